// A tile: a rectangle of h x w output vectors, kept in registers while a kernel adds to it. What conv.cpp and depthwise.cpp share.

#pragma once

#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__AVX__)
#include <immintrin.h>
#endif

#include "activation.h"

// Sums stay in registers only where everything that touches them is inlined, and early.
#define PRUNERY_KERNEL __attribute__((flatten))

namespace prunery::engine {

struct Call;

// The activation of a tile of many outputs, where it lies: a call of its own, as there are too many kernels to have each for every activation,
// and for many outputs at a time, since one vector's takes as long as ten's.
using Activate = void (*)(const Call&, const int* outputs, int count, int h, int w);

// What a kernel needs besides its weights.
struct Call {
    const char *in, *residual;  // at the tile, in the first plane that matters
    char* out;
    long in_row, in_step, out_row, out_plane, residual_row, residual_plane;  // in_row and in_step: from one output vector to the next
    const float* bias;
    bool first, last, relu;
    Activate activate;  // neither nothing nor relu; kernels leave it to their callers
    float slope;
};

// do(0), do(1) ... do(N - 1), written out. Loops over sums would do, but GCC unrolls them too late to keep the sums out of memory.
template <class Do, int... I>
inline void each(const Do& act, std::integer_sequence<int, I...>) {
    (act(std::integral_constant<int, I>()), ...);
}
template <int N, class Do>
inline void each(const Do& act) {
    each(act, std::make_integer_sequence<int, N>());
}

template <int H, int W, class Do>
inline void each(const Do& act) {
    each<H>([&](auto y) { each<W>([&](auto x) { act(y, x); }); });
}

template <int N, int H, int W, class Do>
inline void each(const Do& act) {
    each<N>([&](auto n) { each<H, W>([&](auto y, auto x) { act(n, y, x); }); });
}

inline const Vec& vector_at(const char* p) { return *reinterpret_cast<const Vec*>(p); }
inline Vec& vector_at(char* p) { return *reinterpret_cast<Vec*>(p); }

// A weight in all lanes. Not splat: adding a zero would turn -0 into 0, so that the compiler has to do it; subtracting one is nothing.
inline Vec broadcast(float weight) { return weight - Vec{}; }

// Four numbers in each quarter of a vector (half, or all of it), from where they are spread without a load of their own: loads are what
// sparse kernels have least to spare of.
inline Vec load_four(const float* from) {
#if defined(__AVX512F__)
    return (Vec)_mm512_maskz_broadcast_f32x4(__mmask16(-1), _mm_loadu_ps(from));
#elif defined(__AVX__)
    return (Vec)_mm256_broadcast_ps(reinterpret_cast<const __m128*>(from));
#else
    Vec four;
    memcpy(&four, from, sizeof four);
    return four;
#endif
}

template <int WHICH, int... LANE>
inline Vec one_of(Vec four, std::integer_sequence<int, LANE...>) {
#ifdef __clang__
    return __builtin_shufflevector(four, four, (LANE / 4 * 4 + WHICH)...);
#else
    return __builtin_shuffle(four, VecInts{(LANE / 4 * 4 + WHICH)...});
#endif
}

template <int WHICH>
inline Vec one_of(Vec four) {
    return one_of<WHICH>(four, std::make_integer_sequence<int, LANES>());
}

// act(y, x, vector) for a rectangle in memory. A compiler that knew all rows' addresses beforehand would keep each in a register or worse, on the
// stack; one address that is moved on is enough.
template <int H, int W, class Byte, class Do>
inline void each_at(Byte* p, long row, long step, const Do& act) {
    each<H>([&](auto y) {
        each<W>([&](auto x) { act(y, x, vector_at(p + x * step)); });
        if (y + 1 < H) p += row;
        __asm__("" : "+r"(p));
    });
}

// The sums of N outputs: begun with their biases, or taken up from where an earlier pass put them down.
template <int N, int H, int W>
inline void take_up(const Call& c, Vec (&sum)[N][H][W], const int* outputs) {
    if (c.first) {
        each<N>([&](auto n) {
            const Vec bias = broadcast(c.bias[outputs[n]]);
            each<H, W>([&](auto y, auto x) { sum[n][y][x] = bias; });
        });
    } else {
        each<N>([&](auto n) {
            const char* from = c.out + outputs[n] * c.out_plane;
            each_at<H, W>(from, c.out_row, VECTOR, [&](auto y, auto x, const Vec& v) { sum[n][y][x] = v; });
        });
    }
}

template <int N, int H, int W>
inline void put_down(const Call& c, Vec (&sum)[N][H][W], const int* outputs) {
    if (c.last && c.residual) {
        each<N>([&](auto n) {
            const char* more = c.residual + outputs[n] * c.residual_plane;
            each_at<H, W>(more, c.residual_row, VECTOR, [&](auto y, auto x, const Vec& v) { sum[n][y][x] += v; });
        });
    }
    if (c.last && c.relu) each<N, H, W>([&](auto n, auto y, auto x) { sum[n][y][x] = activate<Activation::RELU>(sum[n][y][x], 0); });
    each<N>([&](auto n) {
        char* to = c.out + outputs[n] * c.out_plane;
        each_at<H, W>(to, c.out_row, VECTOR, [&](auto y, auto x, Vec& v) { v = sum[n][y][x]; });
    });
}

// sum += weight * what lies at p. STRIDE 0: any.
template <int H, int W, int STRIDE>
inline void add_tap(const Call& c, Vec (&sum)[H][W], const char* p, Vec weight) {
    const long step = STRIDE ? STRIDE * VECTOR : c.in_step;
    each_at<H, W>(p, c.in_row, step, [&](auto y, auto x, const Vec& v) { sum[y][x] += weight * v; });
}

template <Activation A>
void activate_outputs(const Call& call, const int* outputs, int count, int h, int w) {
    const Call c = call;  // what is written might be c for all that the compiler knows
    for (int i = 0; i < count; ++i) {
        char* p = c.out + outputs[i] * c.out_plane;
        for (int y = 0; y < h; ++y, p += c.out_row)
            for (int x = 0; x < w; ++x) vector_at(p + x * VECTOR) = activate<A>(vector_at(p + x * VECTOR), c.slope);
    }
}

inline Activate activate_of(Activation a) {
    if (a == Activation::NONE || a == Activation::RELU) return nullptr;
    return with_activation(a, [](auto constant) -> Activate { return activate_outputs<decltype(constant)::value>; });
}

// ---- cutting and choosing

// Into how many pieces of at most `most` a number is cut: piece i begins at count * i / pieces.
inline int pieces(int count, int most) { return (count + most - 1) / most; }

// f(constant) for the value among V, if it is there.
template <class Kernel, int... V, class F>
inline Kernel among(int value, F f) {
    Kernel found = nullptr;
    (void)((value == V && (found = f(std::integral_constant<int, V>()), true)) || ...);
    return found;
}

// The parts of a call that a layer's places and operation settle.
inline Call call_of(const Op& op, const Place& in, const Place& out, const Place& residual, const float* bias) {
    Call c{};
    c.in_row = op.stride_h * in.row;
    c.in_step = op.stride_w * VECTOR;
    c.out_row = out.row;
    c.out_plane = out.plane;
    c.residual_row = residual.row;
    c.residual_plane = residual.plane;
    c.bias = bias;
    c.first = c.last = true;
    c.relu = op.activation == Activation::RELU;
    c.activate = activate_of(op.activation);
    c.slope = op.slope;
    return c;
}

inline std::vector<float> bias_of(const Op& op) {
    return op.bias ? std::vector<float>(op.bias, op.bias + op.weights.outputs) : std::vector<float>(op.weights.outputs);
}

// Where input number i of a group's matrix lies, seen from the first plane and the output's place.
inline long tap_offset(const Op& op, const Place& in, long i) {
    const long area = long(op.kernel_h) * op.kernel_w, ky = i % area / op.kernel_w, kx = i % op.kernel_w;
    return i / area * in.plane + (ky * op.dilation_h - op.pad_top) * in.row + (kx * op.dilation_w - op.pad_left) * VECTOR;
}

}  // namespace prunery::engine
