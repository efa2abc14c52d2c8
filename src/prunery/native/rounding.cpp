// Numbers to whole numbers of a few bits and back (quantize/rounding.py): a division, a rounding and two bounds in one pass over memory, forward
// and backward, in float or bfloat16. Each step is rounded as torch's operators round it one after the other, so results are theirs, bit for
// bit but for the sign of zeros.
//
// A tensor is shared out in blocks; each leaves its own partial sum, which are added in order: the result depends neither on the number of
// threads nor on who did what.

#include <atomic>
#include <cstdint>
#include <cstring>

#include "vector.h"

namespace {

using prunery::LANES;
using prunery::splat;
using prunery::Vec;

typedef uint32_t Bits __attribute__((vector_size(PRUNERY_VECTOR_BYTES)));
typedef uint32_t Pairs __attribute__((vector_size(PRUNERY_VECTOR_BYTES), aligned(2), may_alias));
typedef float Loose __attribute__((vector_size(PRUNERY_VECTOR_BYTES), aligned(4), may_alias));

constexpr long BLOCK = 1 << 14;  // of numbers; a multiple of what is loaded at a time

// Single precision, and what bfloat16 makes of it: the upper half of its bits, to the nearest, ties to even. What is no number here was none
// before, and in bfloat16: its lower bits are zeros, so adding to them does not carry into the sign.
struct Single {
    typedef float Number;
    static constexpr int VECTORS = 1;
    static void load(const float* from, Vec (&v)[1]) { v[0] = *reinterpret_cast<const Loose*>(from); }
    static void store(float* to, const Vec (&v)[1]) { *reinterpret_cast<Loose*>(to) = v[0]; }
    static Vec rounded(Vec v) { return v; }
};

// Every second number is widened by a shift and the others by a mask: as nothing here depends on places, none is moved.
struct Half {
    typedef uint16_t Number;
    static constexpr int VECTORS = 2;
    static void load(const uint16_t* from, Vec (&v)[2]) {
        const Bits pairs = *reinterpret_cast<const Pairs*>(from);
        v[0] = Vec(pairs << 16);
        v[1] = Vec(pairs & 0xffff0000);
    }
    static void store(uint16_t* to, const Vec (&v)[2]) { *reinterpret_cast<Pairs*>(to) = (Bits(v[0]) >> 16) | Bits(v[1]); }
    static Vec rounded(Vec v) {
        const Bits bits = Bits(v);
        return Vec((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000);
    }
};

struct Job {
    const void *x, *grad;
    void* out;
    long count;
    float step, low, high;
    double* sums;  // one for each block; forward has none
    std::atomic<long> next;
};

// In registers: what is stored might be the job itself, for all the compiler knows.
struct Told {
    Vec step, low, high;
    explicit Told(const Job& job) : step(splat(job.step)), low(splat(job.low)), high(splat(job.high)) {}
};

// Bounds are whole numbers, so they may come before the rounding; then 1.5 * 2^23 pushes what is behind the point out of the last place.
template <class Kind>
struct Forward {
    static Vec at(const Told& told, Vec x, Vec, Vec&) {
        const Vec shift = splat(12582912.0f);
        Vec u = Kind::rounded(x / told.step);
        u = u < told.low ? told.low : u;
        u = u > told.high ? told.high : u;
        return (u + shift) - shift;
    }
};

// What lies within bounds passes the gradient on, divided by the step; the step's own gradient is what is passed times the quotient, negated.
template <class Kind>
struct Backward {
    static Vec at(const Told& told, Vec x, Vec grad, Vec& sum) {
        const Vec u = Kind::rounded(x / told.step);
        const Bits within = Bits(u > told.low) & Bits(u < told.high);
        const Vec inside = Kind::rounded(Vec(within & Bits(grad)) / told.step);
        sum += inside * u;
        return inside;
    }
};

template <class Kind, class Way>
inline void some(const Told& told, const typename Kind::Number* x, const typename Kind::Number* grad, typename Kind::Number* out, Vec& sum) {
    Vec xs[Kind::VECTORS], grads[Kind::VECTORS], outs[Kind::VECTORS];
    Kind::load(x, xs);
    Kind::load(grad, grads);
    for (int i = 0; i < Kind::VECTORS; ++i) outs[i] = Way::at(told, xs[i], grads[i], sum);
    Kind::store(out, outs);
}

template <class Kind, class Way>
void block(const Job& job, long number) {
    typedef typename Kind::Number Number;
    constexpr int SOME = LANES * Kind::VECTORS;
    const long from = number * BLOCK, to = from + BLOCK < job.count ? from + BLOCK : job.count;
    const Number* x = static_cast<const Number*>(job.x);
    const Number* grad = job.grad ? static_cast<const Number*>(job.grad) : x;
    Number* out = static_cast<Number*>(job.out);
    const Told told(job);
    Vec sum{};
    long at = from;
    for (; at + SOME <= to; at += SOME) some<Kind, Way>(told, x + at, grad + at, out + at, sum);
    if (at < to) {  // zeros fill up the last vectors: they pass nothing on and add nothing
        Number xs[SOME] = {}, grads[SOME] = {}, outs[SOME];
        memcpy(xs, x + at, (to - at) * sizeof(Number));
        memcpy(grads, grad + at, (to - at) * sizeof(Number));
        some<Kind, Way>(told, xs, grads, outs, sum);
        memcpy(out + at, outs, (to - at) * sizeof(Number));
    }
    if (!job.sums) return;
    double total = 0;
    for (int i = 0; i < LANES; ++i) total += sum[i];
    job.sums[number] = total;
}

template <class Kind, class Way>
void work(void* data) {
    Job& job = *static_cast<Job*>(data);
    for (long number; (number = job.next++) * BLOCK < job.count;) block<Kind, Way>(job, number);
}

typedef void (*Team)(void (*work)(void*), void* data, unsigned threads, unsigned flags);  // GOMP_parallel's

void share(Job& job, void (*work)(void*), int threads, Team team) {
    if (team && threads > 1 && job.count > BLOCK) team(work, &job, threads, 0);
    else work(&job);
}

}  // namespace

PRUNERY_EXPORT int64_t prunery_rounding_blocks(int64_t count) { return (count + BLOCK - 1) / BLOCK; }

PRUNERY_EXPORT void prunery_rounding_forward(
    int half, const void* x, void* whole, int64_t count, float step, float low, float high, int threads, Team team) {
    Job job{x, nullptr, whole, long(count), step, low, high, nullptr, {0}};
    share(job, half ? work<Half, Forward<Half>> : work<Single, Forward<Single>>, threads, team);
}

// Gives the gradient of the step back; `sums` has room for a double for each block.
PRUNERY_EXPORT double prunery_rounding_backward(
    int half, const void* x, const void* grad, void* inside, int64_t count, float step, float low, float high, double* sums, int threads,
    Team team) {
    Job job{x, grad, inside, long(count), step, low, high, sums, {0}};
    share(job, half ? work<Half, Backward<Half>> : work<Single, Backward<Single>>, threads, team);
    double total = 0;
    for (long number = 0; number * BLOCK < job.count; ++number) total += sums[number];
    return -total;
}
