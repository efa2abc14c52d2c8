// Activations on vectors: one definition for all kernels. No call leaves the vector, no number is looked up; a NaN stays a NaN.
//
// Exponentials: x = n ln 2 + r by Cody and Waite's reduction, then a polynomial for e^r; where a small result need not be exact in itself but only
// in a sum with 1, powers of two instead. Polynomials are minimax fits. Errors are below 2e-7 of the larger of the result and 1 (against double
// precision, all over the floats).

#pragma once

#include <type_traits>
#include <utility>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "engine.h"

namespace prunery::engine {

typedef int32_t VecInts __attribute__((vector_size(PRUNERY_VECTOR_BYTES)));
typedef uint32_t VecUints __attribute__((vector_size(PRUNERY_VECTOR_BYTES)));  // shifts that wrap are defined for these

// x86's maximum is its second operand where one is a NaN: it passes, as it does through a comparison that is false for it.
inline Vec at_least(Vec x, float least) {
#if defined(__AVX512F__)
    return (Vec)_mm512_maskz_max_ps(__mmask16(-1), (__m512)splat(least), (__m512)x);
#elif defined(__AVX__)
    return (Vec)_mm256_max_ps((__m256)splat(least), (__m256)x);
#elif defined(__SSE2__)
    return (Vec)_mm_max_ps((__m128)splat(least), (__m128)x);
#else
    return x < splat(least) ? splat(least) : x;
#endif
}

inline Vec at_most(Vec x, float most) {
#if defined(__AVX512F__)
    return (Vec)_mm512_maskz_min_ps(__mmask16(-1), (__m512)splat(most), (__m512)x);
#elif defined(__AVX__)
    return (Vec)_mm256_min_ps((__m256)splat(most), (__m256)x);
#elif defined(__SSE2__)
    return (Vec)_mm_min_ps((__m128)splat(most), (__m128)x);
#else
    return x > splat(most) ? splat(most) : x;
#endif
}

constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the last bits

// 2^n for an n in the last bits of n + ROUND: 0 for -127, infinity for 128.
inline Vec power_of_two(Vec shifted) { return (Vec)(((VecUints)shifted << 23) + 0x3f800000u); }

// e^x = scale * (1 + rest): 0 below -88 and infinity above 88.4.
struct Exponential {
    Vec scale, rest;
};

inline Exponential exponential(Vec x) {
    x = at_least(at_most(x, 88.73f), -88.0f);
    const Vec shifted = x * 1.44269504f + splat(ROUND);
    const Vec n = shifted - splat(ROUND);
    const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts, the first of few bits
    Vec p = r * 1.38145882e-3f + splat(8.36871488e-3f);
    p = p * r + splat(4.16683880e-2f);
    p = p * r + splat(0.166665206f);
    p = p * r + splat(0.499999934f);
    return {power_of_two(shifted), p * (r * r) + r};
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

// e^-x for -80 <= x <= 87; its relative error grows with x, up to 4e-6.
inline Vec fading(Vec x) {
    const Vec shifted = x * -1.44269504f + splat(ROUND);
    const Vec f = x * -1.44269504f - (shifted - splat(ROUND));
    Vec p = f * 1.32647073e-3f + splat(9.67151112e-3f);
    p = p * f + splat(5.55073378e-2f);
    p = p * f + splat(0.240222421f);
    p = p * f + splat(0.693146978f);
    return power_of_two(shifted) * (p * f + splat(1.0f));
}

inline Vec vsilu(Vec x) {
    x = at_least(x, -80.0f);
    return x / (splat(1.0f) + fading(at_most(x, 87.0f)));
}

inline Vec vtanh(Vec x) {
    const Vec u = vexpm1((x < Vec{} ? x : -x) * 2.0f);  // of -2 |x|
    const Vec t = u / (u + splat(2.0f));                // -tanh |x|
    return x < Vec{} ? t : -t;
}

// x times the normal distribution's share below x. The share beyond |x| is exp(-x^2 / 2) t P(t) with t = 1 / (1 + 0.38 |x| / sqrt 2): the
// tail has no cancellation that way. P fits erfcx / 2, relative error 2e-8.
inline Vec vgelu(Vec x) {
    const Vec size = at_most(x < Vec{} ? -x : x, 13.0f);
    const Vec t = splat(1.0f) / (size * 0.268700577f + splat(1.0f));
    Vec p = t * 0.0295242099f + splat(-0.131346726f);
    p = p * t + splat(0.182375419f);
    p = p * t + splat(-0.0812628266f);
    p = p * t + splat(0.115400431f);
    p = p * t + splat(0.0691501147f);
    p = p * t + splat(0.102000935f);
    p = p * t + splat(0.106952519f);
    p = p * t + splat(0.107205934f);
    const Vec beyond = size * (p * t * fading(size * size * 0.5f));
    return x < Vec{} ? -beyond : x - beyond;
}

template <Activation A>
inline Vec activate(Vec x, [[maybe_unused]] float slope) {
    if constexpr (A == Activation::RELU) return at_least(x, 0.0f);
    else if constexpr (A == Activation::RELU6) return at_most(at_least(x, 0.0f), 6.0f);
    else if constexpr (A == Activation::HARD_SWISH) return x * at_most(at_least(x + splat(3.0f), 0.0f), 6.0f) / splat(6.0f);
    else if constexpr (A == Activation::HARD_SIGMOID) return at_most(at_least(x + splat(3.0f), 0.0f), 6.0f) / splat(6.0f);
    else if constexpr (A == Activation::SILU) return vsilu(x);
    else if constexpr (A == Activation::SIGMOID) return splat(1.0f) / (splat(1.0f) + fading(at_most(at_least(x, -80.0f), 87.0f)));
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

}  // namespace prunery::engine
