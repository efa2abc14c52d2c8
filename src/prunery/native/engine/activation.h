// Activations on vectors: one definition for all kernels. No call leaves the vector, no number is looked up; a NaN stays a NaN.
//
// exp: Cody and Waite's reduction, x = n ln 2 + r, and the polynomial of Cephes (expf.c) for r. Errors are below 2e-7, relative or absolute,
// whichever is larger (against double precision, all over the floats).

#pragma once

#include <type_traits>
#include <utility>

#include "engine.h"

namespace prunery::engine {

typedef int32_t VecInts __attribute__((vector_size(PRUNERY_VECTOR_BYTES)));

// The comparisons are this way round because they are false for a NaN, which then passes.
inline Vec at_least(Vec x, float least) { return x < splat(least) ? splat(least) : x; }
inline Vec at_most(Vec x, float most) { return x > splat(most) ? splat(most) : x; }

// e^x = scale * (1 + rest), scale a power of two: 0 below -88 and infinity above 88.4.
struct Exponential {
    Vec scale, rest;
};

inline Exponential exponential(Vec x) {
    constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the last bits
    x = at_least(at_most(x, 88.73f), -88.0f);
    const Vec shifted = x * 1.44269504088896f + splat(ROUND);
    const Vec n = shifted - splat(ROUND);
    const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts, the first of few bits
    Vec p = r * 1.9875691500e-4f + splat(1.3981999507e-3f);
    p = p * r + splat(8.3334519073e-3f);
    p = p * r + splat(4.1665795894e-2f);
    p = p * r + splat(1.6666665459e-1f);
    p = p * r + splat(5.0000001201e-1f);
    return {(Vec)(((VecInts)shifted << 23) + 0x3f800000), p * (r * r) + r};
}

inline Vec vexp(Vec x) {
    const Exponential e = exponential(x);
    return e.scale * (e.rest + splat(1.0f));
}

// e^x - 1 for x <= 0 (up to 88), without cancellation near 0.
inline Vec vexpm1(Vec x) {
    const Exponential e = exponential(x);
    return e.scale * e.rest + (e.scale - splat(1.0f));
}

inline Vec vtanh(Vec x) {
    const Vec u = vexpm1((x < Vec{} ? x : -x) * 2.0f);  // of -2 |x|
    const Vec t = u / (u + splat(2.0f));                // -tanh |x|
    return x < Vec{} ? t : -t;
}

// x times the normal distribution's share below x. The share beyond |x| is exp(-x^2 / 2) t P(t) with t = 1 / (1 + 0.38 |x| / sqrt 2): the
// tail has no cancellation that way. P: a minimax fit to erfcx / 2, relative error 2e-8.
inline Vec vgelu(Vec x) {
    const Vec size = at_most(x < Vec{} ? -x : x, 20.0f);
    const Vec t = splat(1.0f) / (size * 0.268700577f + splat(1.0f));
    Vec p = t * 0.0295242099f + splat(-0.131346726f);
    p = p * t + splat(0.182375419f);
    p = p * t + splat(-0.0812628266f);
    p = p * t + splat(0.115400431f);
    p = p * t + splat(0.0691501147f);
    p = p * t + splat(0.102000935f);
    p = p * t + splat(0.106952519f);
    p = p * t + splat(0.107205934f);
    const Vec beyond = size * (p * t * vexp(size * size * -0.5f));
    return x < Vec{} ? -beyond : x - beyond;
}

template <Activation A>
inline Vec activate(Vec x, [[maybe_unused]] float slope) {
    [[maybe_unused]] const Vec one = splat(1.0f);
    if constexpr (A == Activation::RELU) return at_least(x, 0.0f);
    else if constexpr (A == Activation::RELU6) return at_most(at_least(x, 0.0f), 6.0f);
    else if constexpr (A == Activation::HARD_SWISH) return x * at_most(at_least(x + splat(3.0f), 0.0f), 6.0f) / splat(6.0f);
    else if constexpr (A == Activation::HARD_SIGMOID) return at_most(at_least(x + splat(3.0f), 0.0f), 6.0f) / splat(6.0f);
    else if constexpr (A == Activation::SILU) return x / (one + vexp(-x));
    else if constexpr (A == Activation::SIGMOID) return one / (one + vexp(-x));
    else if constexpr (A == Activation::GELU) return vgelu(x);
    else if constexpr (A == Activation::TANH) return vtanh(x);
    else if constexpr (A == Activation::LEAKY_RELU) return x < Vec{} ? x * slope : x;
    else if constexpr (A == Activation::ELU) return x < Vec{} ? vexpm1(x) * slope : x;
    else return x;
}

// f(std::integral_constant<Activation, A>()) for an activation that is known when the program runs.
template <class F>
inline auto with_activation(Activation a, F&& f) {
    switch (a) {
        case Activation::RELU: return f(std::integral_constant<Activation, Activation::RELU>());
        case Activation::RELU6: return f(std::integral_constant<Activation, Activation::RELU6>());
        case Activation::HARD_SWISH: return f(std::integral_constant<Activation, Activation::HARD_SWISH>());
        case Activation::HARD_SIGMOID: return f(std::integral_constant<Activation, Activation::HARD_SIGMOID>());
        case Activation::SILU: return f(std::integral_constant<Activation, Activation::SILU>());
        case Activation::SIGMOID: return f(std::integral_constant<Activation, Activation::SIGMOID>());
        case Activation::GELU: return f(std::integral_constant<Activation, Activation::GELU>());
        case Activation::TANH: return f(std::integral_constant<Activation, Activation::TANH>());
        case Activation::LEAKY_RELU: return f(std::integral_constant<Activation, Activation::LEAKY_RELU>());
        case Activation::ELU: return f(std::integral_constant<Activation, Activation::ELU>());
        case Activation::NONE: break;
    }
    return f(std::integral_constant<Activation, Activation::NONE>());
}

// A rectangle of vectors in memory, activated where it lies. For kernels that have too many variants to have each for every activation.
using ActivateTile = void (*)(char* at, long row, int h, int w, float slope);

template <Activation A>
inline void activate_tile(char* at, long row, int h, int w, float slope) {
    for (; h; --h, at += row)
        for (int x = 0; x < w; ++x) {
            Vec& v = reinterpret_cast<Vec*>(at)[x];
            v = activate<A>(v, slope);
        }
}

inline ActivateTile activate_tile_of(Activation a) {
    return with_activation(a, [](auto constant) -> ActivateTile { return activate_tile<decltype(constant)::value>; });
}

}  // namespace prunery::engine
