// Bytes: what the kernels on quantised tensors share. docs/format.md defines their arithmetic to the last bit.
//
// Sums are exact, so their order is free. What is rounded is always one product, never a product and a sum: there is nothing that a compiler could
// contract, and all instruction sets agree.

#pragma once

#include <cmath>
#include <cstring>

#include "engine.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

// The instruction is spelled out in assembler, as the flags that the libraries are compiled with do not know it; has_vnni() says whether the processor
// does. Assemblers that came with GCC before 11 do not know the form without AVX-512.
#if defined(__AVX512F__) || (defined(__AVX2__) && (defined(__clang__) || __GNUC__ >= 11))
#define PRUNERY_HAS_VNNI
#endif

namespace prunery::engine {

typedef int32_t Ints __attribute__((vector_size(PRUNERY_VECTOR_BYTES), may_alias));
typedef uint32_t Words __attribute__((vector_size(PRUNERY_VECTOR_BYTES), may_alias));  // sums: they may wrap on the way, not in the end
typedef uint8_t Bytes __attribute__((vector_size(PRUNERY_VECTOR_BYTES), may_alias));
typedef Words WordsAnywhere __attribute__((aligned(4), may_alias));

constexpr int QUAD = 4;                  // channels in a lane
constexpr double LARGEST = 1 << 29;      // of what is rounded: two of them can be added

inline long quads_of(long channels) { return (channels + QUAD - 1) / QUAD; }

inline Words* words(const Memory& m, const Place& p, long plane, long y) {
    return reinterpret_cast<Words*>(m.at(p) + plane * p.plane + y * p.row);
}

// The nearest integers, ties to even, of what is below LARGEST.
inline Ints nearest(Vec x) {
#if defined(__AVX512F__)
    return (Ints)_mm512_maskz_cvtps_epi32(-1, (__m512)x);  // GCC 12 warns of the plain one's undefined vector
#elif defined(__AVX__)
    return (Ints)_mm256_cvtps_epi32((__m256)x);
#elif defined(__SSE2__)
    return (Ints)_mm_cvtps_epi32((__m128)x);
#elif defined(__aarch64__)
    return (Ints)vcvtnq_s32_f32((float32x4_t)x);
#else
    Ints y;
    for (int i = 0; i < LANES; ++i) y[i] = int32_t(__builtin_rintf(x[i]));
    return y;
#endif
}

inline Vec floats(Ints x) { return __builtin_convertvector(x, Vec); }

inline Ints channel(Words quad, int c) { return (Ints)(quad >> (8 * c) & 255); }

inline Ints held(Ints x, int low, int high) {
    x = x < low ? Ints{} + low : x;
    return x > high ? Ints{} + high : x;
}

// Four channels in the bytes of a lane, each held within 0 and 255.
inline Words quad_of(Ints a, Ints b, Ints c, Ints d) {
#if defined(__AVX512BW__)
    const __m512i turn = _mm512_maskz_broadcast_i32x4(-1, _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m512i ab = _mm512_packs_epi32((__m512i)a, (__m512i)b), cd = _mm512_packs_epi32((__m512i)c, (__m512i)d);
    return (Words)_mm512_shuffle_epi8(_mm512_packus_epi16(ab, cd), turn);
#elif defined(__AVX2__)
    const __m256i turn = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m256i ab = _mm256_packs_epi32((__m256i)a, (__m256i)b), cd = _mm256_packs_epi32((__m256i)c, (__m256i)d);
    return (Words)_mm256_shuffle_epi8(_mm256_packus_epi16(ab, cd), turn);
#else
    return (Words)(held(a, 0, 255) | held(b, 0, 255) << 8 | held(c, 0, 255) << 16 | held(d, 0, 255) << 24);
#endif
}

// Two vectors in 16 bits, held within what these can say, in an order that only two_quads knows.
typedef int16_t Shorts __attribute__((vector_size(PRUNERY_VECTOR_BYTES), may_alias));

inline Shorts halved(Ints first, Ints second) {
#if defined(__AVX512BW__)
    return (Shorts)_mm512_packs_epi32((__m512i)first, (__m512i)second);
#elif defined(__AVX2__)
    return (Shorts)_mm256_packs_epi32((__m256i)first, (__m256i)second);
#elif defined(__SSE2__)
    return (Shorts)_mm_packs_epi32((__m128i)first, (__m128i)second);
#else
    return (Shorts)((held(first, -32768, 32767) & 65535) | held(second, -32768, 32767) << 16);
#endif
}

inline Shorts held_sum(Shorts a, Shorts b) {
#if defined(__AVX512BW__)
    return (Shorts)_mm512_adds_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (Shorts)_mm256_adds_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return (Shorts)_mm_adds_epi16((__m128i)a, (__m128i)b);
#elif defined(__aarch64__)
    return (Shorts)vqaddq_s16((int16x8_t)a, (int16x8_t)b);
#else
    const auto sum = [](Ints x, Ints y) { return held(x + y, -32768, 32767); };
    return (Shorts)((sum((Ints)a << 16 >> 16, (Ints)b << 16 >> 16) & 65535) | sum((Ints)a >> 16, (Ints)b >> 16) << 16);
#endif
}

struct TwoQuads {
    Words first, second;
};

// The two quads of four channels, each held within 0 and 255.
inline TwoQuads two_quads(Shorts a, Shorts b, Shorts c, Shorts d) {
#if defined(__AVX512BW__)
    const __m512i turn = _mm512_maskz_broadcast_i32x4(-1, _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m512 ab = (__m512)_mm512_packus_epi16((__m512i)a, (__m512i)b), cd = (__m512)_mm512_packus_epi16((__m512i)c, (__m512i)d);
    return {(Words)_mm512_shuffle_epi8((__m512i)_mm512_shuffle_ps(ab, cd, 0x88), turn),
            (Words)_mm512_shuffle_epi8((__m512i)_mm512_shuffle_ps(ab, cd, 0xdd), turn)};
#elif defined(__AVX2__)
    const __m256i turn = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m256 ab = (__m256)_mm256_packus_epi16((__m256i)a, (__m256i)b), cd = (__m256)_mm256_packus_epi16((__m256i)c, (__m256i)d);
    return {(Words)_mm256_shuffle_epi8((__m256i)_mm256_shuffle_ps(ab, cd, 0x88), turn),
            (Words)_mm256_shuffle_epi8((__m256i)_mm256_shuffle_ps(ab, cd, 0xdd), turn)};
#elif defined(__SSE2__)
    const auto quads = [](__m128i ab, __m128i cd) { return (Words)_mm_packus_epi16(_mm_unpacklo_epi32(ab, cd), _mm_unpackhi_epi32(ab, cd)); };
    return {quads(_mm_unpacklo_epi16((__m128i)a, (__m128i)b), _mm_unpacklo_epi16((__m128i)c, (__m128i)d)),
            quads(_mm_unpackhi_epi16((__m128i)a, (__m128i)b), _mm_unpackhi_epi16((__m128i)c, (__m128i)d))};
#else
    const auto low = [](Shorts v) { return (Ints)v << 16 >> 16; };
    const auto high = [](Shorts v) { return (Ints)v >> 16; };
    return {quad_of(low(a), low(b), low(c), low(d)), quad_of(high(a), high(b), high(c), high(d))};
#endif
}

inline Words held_bytes(Words quad, Bytes low, Bytes high) {
    Bytes b = (Bytes)quad;
    b = b > low ? b : low;
    return (Words)(b < high ? b : high);
}

inline Bytes bytes_of(int value) { return Bytes{} + uint8_t(value); }

inline int held_byte(long value) { return value < 0 ? 0 : value > 255 ? 255 : int(value); }

// Where an activation holds the bytes of a tensor.
struct Range {
    int low = 0, high = 255;

    Range(const Op& op, const Tensor& t) {
        if (t.type != Type::U8 || op.activation == Activation::NONE) return;
        if (op.activation != Activation::RELU && op.activation != Activation::RELU6) throw Refused(op.name + ": no such activation of bytes");
        low = t.zero;
        if (op.activation == Activation::RELU6) high = held_byte(long(std::fmin(255, t.zero + std::rint(6.0 / double(t.scale)))));
    }
};

// A multiplier of numbers up to `largest`.
inline float multiplier(double by, double largest, const Op& op) {
    const float m = float(by);
    if (!(std::fabs(double(m)) * largest < LARGEST)) throw Refused(op.name + ": scales of its tensors lie too far apart");
    return m;
}

// f(place, byte) for the weights of row o that are not zero.
template <class F>
inline void each_weight(const Weights& w, long o, F f) {
    const long first = w.sparse() ? w.start[o] : o * w.inputs, last = w.sparse() ? w.start[o + 1] : first + w.inputs;
    for (long k = first; k < last; ++k)
        if (w.bytes[k]) f(w.sparse() ? w.index(k) : k - first, int(w.bytes[k]));
}

// What lies around the sums of a convolution or a matrix product: the numbers of each output, rounded up to full vectors with zeros.
struct Frame {
    Place in, out, residual;
    bool adds = false, to_floats = false;
    std::vector<int32_t> start;     // the bias, less what the zero point adds to the sums
    std::vector<float> multiplier;  // of a sum
    float residual_multiplier = 0;
    Range range;
    Activation activation{};
    float slope = 0;

    Frame(const Op& op, const Place& in, const Place& out, const Place* r);
};

// Whether sums of products of bytes have an instruction of their own here. The environment may deny it: PRUNERY_VNNI=0.
bool has_vnni();

// A product that is rounded before anything is added to it.
inline Vec rounded(Vec x) {
#if defined(__AVX512F__)
    __asm__("" : "+v"(x));
#elif defined(__SSE2__)
    __asm__("" : "+x"(x));
#elif defined(__aarch64__)
    __asm__("" : "+w"(x));
#endif
    return x;
}

}  // namespace prunery::engine
