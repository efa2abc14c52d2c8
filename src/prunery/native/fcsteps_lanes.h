// What the training steps need of a vector beyond plus and times: sums of lanes, exp, sqrt, "any", bytes, and denormals.

#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "vector.h"

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace prunery {

typedef int32_t Ints __attribute__((vector_size(PRUNERY_VECTOR_BYTES)));
typedef float Slice __attribute__((vector_size(PRUNERY_VECTOR_BYTES), may_alias));  // LANES floats of an aligned array
constexpr int TILE = 16;  // bytes are turned in tiles of 16 x 16: the vectors of bytes that every processor has
typedef uint8_t Row __attribute__((vector_size(TILE)));
typedef uint8_t Bytes __attribute__((vector_size(LANES)));

inline Vec load(const float* from) { return *reinterpret_cast<const Slice*>(from); }
inline void store(float* to, Vec v) { *reinterpret_cast<Slice*>(to) = v; }

constexpr long whole(long count, long unit) { return (count + unit - 1) / unit * unit; }

template <class Act, int... I>
inline void with_constant(int n, Act& act, std::integer_sequence<int, I...>) {
    (void)((n == I + 1 && (act(std::integral_constant<int, I + 1>()), true)) || ...);
}
// act(n), with n among 1 ... MOST known to the compiler.
template <int MOST, class Act>
inline void with_constant(int n, Act act) {
    with_constant(n, act, std::make_integer_sequence<int, MOST>());
}

// ---- sums of lanes: LANES vectors become one whose lane i is the sum of vector i

// Each fold adds neighbours: first lanes, inside of quads, which is one instruction everywhere; then whole quads.
constexpr int folded_lane(int lane, int odd) {
    const int quad = lane / 4 * 4, place = lane % 4;
    return place < 2 ? quad + 2 * place + odd : LANES + quad + 2 * (place - 2) + odd;
}
constexpr int folded_quad(int lane, int odd) {
    const int quad = lane / 4, place = lane % 4, half = LANES / 8;
    return quad < half ? (2 * quad + odd) * 4 + place : LANES + (2 * (quad - half) + odd) * 4 + place;
}

template <int... I>
inline Vec pick(Vec a, Vec b, std::integer_sequence<int, I...>) {
#ifdef __clang__
    return __builtin_shufflevector(a, b, I...);
#else
    return __builtin_shuffle(a, b, Ints{I...});
#endif
}

template <bool QUADS, int... I>
inline Vec fold(Vec a, Vec b, std::integer_sequence<int, I...>) {
    return pick(a, b, std::integer_sequence<int, (QUADS ? folded_quad(I, 0) : folded_lane(I, 0))...>()) +
           pick(a, b, std::integer_sequence<int, (QUADS ? folded_quad(I, 1) : folded_lane(I, 1))...>());
}

template <int COUNT>
inline Vec folded(const Vec* v) {
    if constexpr (COUNT == 1) return *v;
    else return fold<(COUNT > 4)>(folded<COUNT / 2>(v), folded<COUNT / 2>(v + COUNT / 2), std::make_integer_sequence<int, LANES>());
}

inline Vec sums_of(const Vec (&v)[LANES]) { return folded<LANES>(v); }

typedef float Quad __attribute__((vector_size(16), may_alias));

// The same for four vectors; fold by fold the work is the same for each.
inline Quad sums_of_four(const Vec (&v)[4]) {
    const Vec quads = folded<4>(v);
    Quad q[LANES / 4];
    memcpy(q, &quads, sizeof quads);
#pragma GCC unroll 2
    for (int step = LANES / 8; step; step /= 2)
#pragma GCC unroll 2
        for (int i = 0; i < step; ++i) q[i] += q[i + step];
    return q[0];
}

// ---- rows and lanes exchanged

template <int HALF, int... I>
inline Vec zip(Vec a, Vec b, std::integer_sequence<int, I...>) {
    return pick(a, b, std::integer_sequence<int, (HALF * LANES / 2 + I / 2 + I % 2 * LANES)...>());
}
template <int HALF, int... I>
inline Row zip(Row a, Row b, std::integer_sequence<int, I...>) {
#ifdef __clang__
    return __builtin_shufflevector(a, b, (HALF * TILE / 2 + I / 2 + I % 2 * TILE)...);
#else
    return __builtin_shuffle(a, b, Row{uint8_t(HALF * TILE / 2 + I / 2 + I % 2 * TILE)...});
#endif
}

// Zipping the first half of the rows with the second turns row and column numbers by one bit; log2(SIZE) times swaps them.
template <class Vector, int SIZE>
inline void transpose(Vector (&v)[SIZE]) {
    using Columns = std::make_integer_sequence<int, SIZE>;
#pragma GCC unroll 4
    for (int done = 1; done < SIZE; done *= 2) {
        Vector t[SIZE];
#pragma GCC unroll 8
        for (int i = 0; i < SIZE / 2; ++i) {
            t[2 * i] = zip<0>(v[i], v[i + SIZE / 2], Columns());
            t[2 * i + 1] = zip<1>(v[i], v[i + SIZE / 2], Columns());
        }
#pragma GCC unroll 16
        for (int i = 0; i < SIZE; ++i) v[i] = t[i];
    }
}

// ---- functions (the masked intrinsics, because the plain ones make GCC 12 warn of its own header)

inline Vec square_root(Vec v) {
#if defined(__AVX512F__)
    return _mm512_maskz_sqrt_ps(0xffff, v);
#elif defined(__AVX__)
    return _mm256_sqrt_ps(v);
#elif defined(__SSE2__)
    return _mm_sqrt_ps(v);
#elif defined(__aarch64__)
    return vsqrtq_f32(v);
#else
    for (int i = 0; i < LANES; ++i) v[i] = __builtin_sqrtf(v[i]);
    return v;
#endif
}

// Bit i is set where lane i of a comparison's result is true.
inline int bits_of(Ints v) {
#if defined(__AVX512F__)
    return _mm512_test_epi32_mask(reinterpret_cast<__m512i>(v), reinterpret_cast<__m512i>(v));
#elif defined(__AVX__)
    return _mm256_movemask_ps(reinterpret_cast<__m256>(v));
#elif defined(__SSE2__)
    return _mm_movemask_ps(reinterpret_cast<__m128>(v));
#elif defined(__aarch64__)
    return vaddvq_s32(v & Ints{1, 2, 4, 8});
#else
    int bits = 0;
    for (int i = 0; i < LANES; ++i) bits |= (v[i] & 1) << i;
    return bits;
#endif
}

// Lane numbers from `first` on.
inline Ints numbers(int first) {
    Ints v{};
    for (int i = 0; i < LANES; ++i) v[i] = i;
    return v + first;
}

#if defined(__AVX2__) && !defined(__AVX512F__)
// Which lanes each set of bits means.
struct Lit {
    uint8_t lanes[256][8] = {};
    constexpr Lit() {
        for (int bits = 0; bits < 256; ++bits)
            for (int lane = 0, count = 0; lane < 8; ++lane)
                if (bits >> lane & 1) lanes[bits][count++] = lane;
    }
};
constexpr Lit LIT;
#endif

// Moves the lanes that are not zero to where `values` and `of` point, with their numbers from `first` on; says how many there are.
// LANES places are written.
inline int compress(Vec v, int first, int32_t* of, float* values) {
#if defined(__AVX512F__)
    const __mmask16 lit = _mm512_cmp_ps_mask(v, Vec{}, _CMP_NEQ_UQ);
    _mm512_storeu_ps(values, _mm512_maskz_compress_ps(lit, v));
    _mm512_storeu_si512(of, _mm512_maskz_compress_epi32(lit, reinterpret_cast<__m512i>(numbers(first))));
    return __builtin_popcount(lit);
#elif defined(__AVX2__)
    const int lit = _mm256_movemask_ps(_mm256_cmp_ps(v, Vec{}, _CMP_NEQ_UQ));
    const __m256i lanes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(LIT.lanes[lit])));
    _mm256_storeu_ps(values, _mm256_permutevar8x32_ps(v, lanes));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(of), _mm256_add_epi32(lanes, _mm256_set1_epi32(first)));
    return __builtin_popcount(lit);
#else
    int count = 0;
    for (int i = 0; i < LANES; ++i) {
        of[count] = first + i;
        values[count] = v[i];
        count += v[i] != 0;
    }
    return count;
#endif
}

// e to the x for x <= 0, to 1 unit in the last place: x = n ln 2 + r, a polynomial in r (Cephes), n into the exponent.
// Below -87 the result is about 1e-38, which counts for nothing beside the 1 that every softmax has.
inline Vec exponential(Vec x) {
    x = x < -87.0f ? splat(-87.0f) : x;
    const Vec magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to whole numbers
    const Vec n = (x * 1.44269504088896341f + magic) - magic;
    const Vec r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    Vec p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const Ints power = (__builtin_convertvector(n, Ints) + 127) << 23;
    return p * reinterpret_cast<Vec>(power);
}

// ---- bytes

// GCC 12 widens bytes one by one.
inline Vec to_floats(const uint8_t* from) {
#if defined(__AVX512F__)
    const __m512i wide = _mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    return __builtin_convertvector(reinterpret_cast<Ints>(wide), Vec);
#elif defined(__AVX2__)
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
#elif defined(__SSE2__)
    int32_t word;
    memcpy(&word, from, 4);
    const __m128i zero = _mm_setzero_si128(), bytes = _mm_cvtsi32_si128(word);
    return _mm_cvtepi32_ps(_mm_unpacklo_epi16(_mm_unpacklo_epi8(bytes, zero), zero));
#else
    Bytes bytes;
    memcpy(&bytes, from, sizeof bytes);
    return __builtin_convertvector(__builtin_convertvector(bytes, Ints), Vec);
#endif
}

inline bool any_byte(const uint8_t* from) {
    if constexpr (LANES == 4) {
        uint32_t word;
        memcpy(&word, from, 4);
        return word != 0;
    } else {
        uint64_t words[LANES / 8], found = 0;
        memcpy(words, from, LANES);
        for (uint64_t word : words) found |= word;
        return found != 0;
    }
}

// ---- denormals

// While one of these lives, this thread counts denormals as zero: the moments of inputs that are rarely lit fade into them, and they cost
// a hundred times as much. Everybody else keeps the processor's usual arithmetic.
class NoDenormals {
#if defined(__SSE2__)
    unsigned before = _mm_getcsr();

  public:
    NoDenormals() { _mm_setcsr(before | 0x8040); }
    ~NoDenormals() { _mm_setcsr(before); }
#elif defined(__aarch64__)
    uint64_t before;

  public:
    NoDenormals() {
        __asm__ volatile("mrs %0, fpcr" : "=r"(before));
        __asm__ volatile("msr fpcr, %0" : : "r"(before | 1u << 24));
    }
    ~NoDenormals() { __asm__ volatile("msr fpcr, %0" : : "r"(before)); }
#else
  public:
    NoDenormals() {}
    ~NoDenormals() {}
#endif
    NoDenormals(const NoDenormals&) = delete;
};

}  // namespace prunery
