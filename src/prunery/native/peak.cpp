// How many floating-point operations one core can do in a second: the roof that every other kernel is measured against.
// A multiply-add counts as two.

#include <time.h>

#include "vector.h"

namespace {

using prunery::LANES;
using prunery::splat;
using prunery::Vec;

// A multiply-add takes 4 to 5 cycles and two (on some Arm cores four) start in each, so about 10 (16) must be in flight. The rest of
// the registers hold the operands and, on processors without a fused instruction, the product.
constexpr int CHAINS = PRUNERY_VECTOR_REGISTERS == 32 ? 24 : 12;
constexpr int STEPS = 4000;  // one timed stretch: some 20 to 50 microseconds, far above the clock's resolution
constexpr int ROWS = 8;      // of CHAINS vectors each, in memory: 1.5 to 12 KiB, which fits in any first-level cache

struct Chains {
    Vec sum[CHAINS];
};

double now() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

// The compiler must neither compute this in advance nor drop it.
template <class T>
inline void opaque(T& value) {
    __asm__ volatile("" : "+m"(value) : : "memory");
}

// sum = sum * scale + shift converges to 1: no overflow, no denormals.
__attribute__((noinline)) void run_registers(Chains& chains, Vec scale, Vec shift, const Vec*) {
    Vec sum[CHAINS];
    for (int c = 0; c < CHAINS; ++c) sum[c] = chains.sum[c];
    for (int step = 0; step < STEPS; ++step) {
#pragma GCC unroll 24
        for (int c = 0; c < CHAINS; ++c) sum[c] = sum[c] * scale + shift;
    }
    for (int c = 0; c < CHAINS; ++c) chains.sum[c] = sum[c];
}

// The same, with one operand streamed from the first-level cache, as in a matrix product whose inputs are at hand.
__attribute__((noinline)) void run_l1(Chains& chains, Vec scale, Vec, const Vec* memory) {
    Vec sum[CHAINS];
    for (int c = 0; c < CHAINS; ++c) sum[c] = chains.sum[c];
    for (int round = 0; round < STEPS / ROWS; ++round) {
        __asm__ volatile("" : : : "memory");  // the products are the same in every round, but must not be kept
        for (const Vec* row = memory; row < memory + ROWS * CHAINS; row += CHAINS) {
#pragma GCC unroll 24
            for (int c = 0; c < CHAINS; ++c) sum[c] += scale * row[c];
        }
    }
    for (int c = 0; c < CHAINS; ++c) chains.sum[c] = sum[c];
}

using Stretch = void (*)(Chains&, Vec, Vec, const Vec*);

double seconds_of(Stretch stretch, Chains& chains, const Vec* memory) {
    float half = 0.5f;
    opaque(half);
    const double start = now();
    stretch(chains, splat(half), splat(half), memory);
    opaque(chains);
    return now() - start;
}

// The best stretch counts: anything that disturbs only makes it slower, and the first ones run before the clock has settled.
double best_gflops(Stretch stretch, double seconds) {
    Vec memory[ROWS * CHAINS];
    Chains chains;
    for (Vec& v : memory) v = splat(1.0f);
    for (Vec& v : chains.sum) v = splat(1.0f);
    opaque(memory);
    double best = 1e30;
    for (const double end = now() + seconds; now() < end;) {
        const double taken = seconds_of(stretch, chains, memory);
        if (taken < best) best = taken;
    }
    return 2e-9 * STEPS * CHAINS * LANES / best;
}

}  // namespace

PRUNERY_EXPORT double prunery_peak_registers(double seconds) { return best_gflops(run_registers, seconds); }

PRUNERY_EXPORT double prunery_peak_l1(double seconds) { return best_gflops(run_l1, seconds); }
