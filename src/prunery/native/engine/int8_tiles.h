// The kernels of int8.cpp: sums of four outputs for a tile of vectors, and the bytes that they become; one for each instruction that adds products of
// bytes and each size of tile.

#pragma once

#include <utility>

#include "int8.h"

namespace prunery::engine {

namespace {

struct Row {
    int32_t offset;   // bytes from the tile's first vector of the input
    int32_t weights;  // a byte for each channel of the quad
};

struct Four {
    int32_t offset;
    int32_t weights[QUAD];  // of four outputs
};

constexpr int MOST_Y = 4, MOST_X = 8;                               // rows and columns of a tile, in vectors
constexpr int MOST = PRUNERY_VECTOR_REGISTERS == 32 ? 16 : 8;       // vectors in a tile of rows
constexpr int MOST_FOURS = PRUNERY_VECTOR_REGISTERS == 32 ? 6 : 2;  // and of fours

// Small tiles keep several sums of each vector, as many as hide the time that an addition takes: so many entries of a list of rows are taken at a time,
// and lists must be filled up to a multiple.
constexpr int chains(int vectors) { return vectors == 1 ? 4 : vectors < 5 ? 2 : 1; }

// What turns sums into bytes, the same for all outputs.
struct Ending {
    float residual_by;
    int residual_zero, zero, low, high;
};

struct Call {
    const char* in;         // of the tile's first vector
    long down;              // bytes from one row of the tile to the next, in the input
    const int32_t* start;   // of the four outputs: what their sums begin with,
    const Words* waiting;   // unless they wait here since the last block of channels
    Words* sums;            // where they go to, TY * TX for each output; or, if null,
    const float* by;        // they become bytes
    char* out;
    const char* residual;   // or null
    long out_down, residual_down;
    const Ending* ending;
};

// The lists of four outputs lie one after the other: `bounds` are the first entry of each and the end of the last. One list serves four outputs where
// entries are fours.
using ByRows = void (*)(const Row*, const uint32_t* bounds, const Call&);
using ByFours = void (*)(const Four*, const uint32_t* bounds, const Call&);

struct Kernels {
    ByRows rows[2 * MOST_X * MOST_Y];
    ByFours fours[2 * MOST_X * MOST_Y];  // or null
    bool splits;                         // whether quads must be split whose products could leave 16 bits
};

// The place in these tables of a tile of h x w vectors whose columns lie `step` (1 or 2) apart in the input.
int kernel_number(int h, int w, int step) { return ((h - 1) * MOST_X + w - 1) * 2 + step - 1; }

// ---- sums of products of four bytes

#ifdef PRUNERY_HAS_VNNI
// Spelled out as the compiler's flags know nothing of it.
struct Vnni {
    static constexpr bool SPLITS = false, FOURS = true;
    typedef Words Weight;
    static Weight weight(int32_t w) {
#if defined(__AVX512F__)
        Words all;  // from a register: the ports for loads are what kernels wait for
        __asm__("vpbroadcastd %1, %0" : "=v"(all) : "r"(w));
        return all;
#else
        return Words{} + uint32_t(w);
#endif
    }
    static void add(Words& sum, Words x, Weight w) {
#if defined(__AVX512F__)
        __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));
#else
        __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(x), "x"(w));
#endif
    }
};
#endif

#if defined(__AVX512BW__)
struct Plain {
    static constexpr bool SPLITS = true, FOURS = false;
    typedef __m512i Weight;
    static Weight weight(int32_t w) { return _mm512_set1_epi32(w); }
    static void add(Words& sum, Words x, Weight w) {
        sum += (Words)_mm512_madd_epi16(_mm512_maddubs_epi16((__m512i)x, w), _mm512_set1_epi16(1));
    }
};
#elif defined(__AVX2__)
struct Plain {
    static constexpr bool SPLITS = true, FOURS = false;
    typedef __m256i Weight;
    static Weight weight(int32_t w) { return _mm256_set1_epi32(w); }
    static void add(Words& sum, Words x, Weight w) {
        sum += (Words)_mm256_madd_epi16(_mm256_maddubs_epi16((__m256i)x, w), _mm256_set1_epi16(1));
    }
};
#elif defined(__SSE2__)
// The first and third byte, then the second and fourth, as pairs of 16 bits.
struct Plain {
    static constexpr bool SPLITS = false, FOURS = false;
    struct Weight {
        __m128i even, odd;
    };
    static Weight weight(int32_t w) {
        const __m128i all = _mm_set1_epi32(w);
        return {_mm_srai_epi16(_mm_slli_epi16(all, 8), 8), _mm_srai_epi16(all, 8)};
    }
    static void add(Words& sum, Words x, Weight w) {
        const __m128i even = _mm_and_si128((__m128i)x, _mm_set1_epi16(255)), odd = _mm_srli_epi16((__m128i)x, 8);
        sum += (Words)_mm_madd_epi16(even, w.even) + (Words)_mm_madd_epi16(odd, w.odd);
    }
};
#else
struct Plain {
    static constexpr bool SPLITS = false, FOURS = false;
    struct Weight {
        uint32_t of[QUAD];
    };
    static Weight weight(int32_t w) {
        const uint32_t u = w;
        return {{uint32_t(int8_t(u)), uint32_t(int8_t(u >> 8)), uint32_t(int8_t(u >> 16)), uint32_t(int8_t(u >> 24))}};
    }
    static void add(Words& sum, Words x, Weight w) {
#pragma GCC unroll 4
        for (int c = 0; c < QUAD; ++c) sum += (x >> (8 * c) & 255) * w.of[c];
    }
};
#endif

// ---- four outputs of a tile of TY x TX vectors

template <int T>
inline void begin(Words (&sum)[T], const Call& c, int o) {
    if (c.waiting) {
#pragma GCC unroll 16
        for (int i = 0; i < T; ++i) sum[i] = c.waiting[o * T + i];
    } else {
        const Words all = Words{} + uint32_t(c.start[o]);
#pragma GCC unroll 16
        for (int i = 0; i < T; ++i) sum[i] = all;
    }
}

template <class D, int TY, int TX, int STEP>
inline void take(Words (&sum)[TY * TX], const Row& row, const char* in, long down) {
    uint64_t both;  // in one load
    memcpy(&both, &row, sizeof both);
    const auto w = D::weight(int32_t(both >> 32));
    const char* at = in + int32_t(both);
#pragma GCC unroll 4
    for (int y = 0; y < TY; ++y) {
#pragma GCC unroll 8
        for (int x = 0; x < TX; ++x) D::add(sum[y * TX + x], *reinterpret_cast<const Words*>(at + x * STEP * VECTOR), w);
        if (y + 1 < TY) at += down;
    }
}

template <class D, int TY, int TX, int STEP>
inline void add_list(Words (&sum)[TY * TX], const Row* e, const Row* end, const char* in, long down) {
    constexpr int T = TY * TX, CHAINS = chains(T);
    if constexpr (CHAINS == 1) {
        for (; e != end; ++e) take<D, TY, TX, STEP>(sum, *e, in, down);
    } else {
        Words more[CHAINS - 1][T] = {};
        for (; e != end; e += CHAINS) {
            take<D, TY, TX, STEP>(sum, e[0], in, down);
#pragma GCC unroll 4
            for (int k = 1; k < CHAINS; ++k) take<D, TY, TX, STEP>(more[k - 1], e[k], in, down);
        }
#pragma GCC unroll 4
        for (int k = 1; k < CHAINS; ++k)
#pragma GCC unroll 4
            for (int i = 0; i < T; ++i) sum[i] += more[k - 1][i];
    }
}

inline Ints rescaled(Words sum, Vec by) { return nearest(floats((Ints)sum) * by); }

inline Shorts residual_of(Words first, Words second, int c, const Ending& e) {
    const Vec by = splat(e.residual_by);
    return halved(nearest(floats(channel(first, c) - e.residual_zero) * by), nearest(floats(channel(second, c) - e.residual_zero) * by));
}

// From the rounded sums of four outputs, two vectors at a time, to their bytes.
template <int TY, int TX>
inline void put(const Shorts (&half)[QUAD][(TY * TX + 1) / 2], const Call& c) {
    constexpr int T = TY * TX;
    const Ending e = *c.ending;
    const Shorts zero = Shorts{} + int16_t(e.zero);
#pragma GCC unroll 8
    for (int i = 0; i < T; i += 2) {
        const int j = i + 1 < T ? i + 1 : i;
        const auto at = [&](auto* first, long down, int i) { return reinterpret_cast<Words*>(const_cast<char*>(first) + i / TX * down + i % TX * VECTOR); };
        Shorts y[QUAD];
#pragma GCC unroll 4
        for (int o = 0; o < QUAD; ++o) y[o] = held_sum(half[o][i / 2], zero);
        if (c.residual) {
            const Words first = *at(c.residual, c.residual_down, i), second = *at(c.residual, c.residual_down, j);
#pragma GCC unroll 4
            for (int o = 0; o < QUAD; ++o) y[o] = held_sum(y[o], residual_of(first, second, o, e));
        }
        const TwoQuads q = two_quads(y[0], y[1], y[2], y[3]);
        const Bytes low = bytes_of(e.low), high = bytes_of(e.high);
        *at(c.out, c.out_down, i) = held_bytes(q.first, low, high);
        if (j != i) *at(c.out, c.out_down, j) = held_bytes(q.second, low, high);
    }
}

template <class D, int TY, int TX, int STEP>
void by_rows(const Row* rows, const uint32_t* bounds, const Call& call) {
    constexpr int T = TY * TX;
    const Call c = call;
    Shorts half[QUAD][(T + 1) / 2];
#pragma GCC unroll 4
    for (int o = 0; o < QUAD; ++o) {
        Words sum[T];
        begin(sum, c, o);
        add_list<D, TY, TX, STEP>(sum, rows + bounds[o], rows + bounds[o + 1], c.in, c.down);
        if (c.sums) {
#pragma GCC unroll 16
            for (int i = 0; i < T; ++i) c.sums[o * T + i] = sum[i];
        } else {
            const Vec by = splat(c.by[o]);
#pragma GCC unroll 8
            for (int i = 0; i < T; i += 2) half[o][i / 2] = halved(rescaled(sum[i], by), rescaled(sum[i + 1 < T ? i + 1 : i], by));
        }
    }
    if (!c.sums) put<TY, TX>(half, c);
}

template <class D, int TY, int TX, int STEP>
void by_fours(const Four* fours, const uint32_t* bounds, const Call& call) {
    constexpr int T = TY * TX;
    const Call c = call;
    Words sum[QUAD][T];
#pragma GCC unroll 4
    for (int o = 0; o < QUAD; ++o) begin(sum[o], c, o);
    for (const Four *e = fours + bounds[0], *end = fours + bounds[1]; e != end; ++e) {
        const char* at = c.in + e->offset;
        Words in[T];
#pragma GCC unroll 4
        for (int y = 0; y < TY; ++y, at += c.down)
#pragma GCC unroll 8
            for (int x = 0; x < TX; ++x) in[y * TX + x] = *reinterpret_cast<const Words*>(at + x * STEP * VECTOR);
#pragma GCC unroll 4
        for (int o = 0; o < QUAD; ++o) {
            const auto w = D::weight(e->weights[o]);
#pragma GCC unroll 8
            for (int i = 0; i < T; ++i) D::add(sum[o][i], in[i], w);
        }
    }
    Shorts half[QUAD][(T + 1) / 2];
#pragma GCC unroll 4
    for (int o = 0; o < QUAD; ++o) {
        if (c.sums) {
#pragma GCC unroll 8
            for (int i = 0; i < T; ++i) c.sums[o * T + i] = sum[o][i];
        } else {
            const Vec by = splat(c.by[o]);
#pragma GCC unroll 8
            for (int i = 0; i < T; i += 2) half[o][i / 2] = halved(rescaled(sum[o][i], by), rescaled(sum[o][i + 1 < T ? i + 1 : i], by));
        }
    }
    if (!c.sums) put<TY, TX>(half, c);
}

// ---- tables

template <class D, int I>
constexpr ByRows rows_entry() {
    constexpr int TY = I / (2 * MOST_X) + 1, TX = I / 2 % MOST_X + 1, STEP = I % 2 + 1;
    if constexpr (TY * TX <= MOST) return by_rows<D, TY, TX, STEP>;
    else return nullptr;
}

template <class D, int I>
constexpr ByFours fours_entry() {
    constexpr int TY = I / (2 * MOST_X) + 1, TX = I / 2 % MOST_X + 1, STEP = I % 2 + 1;
    if constexpr (D::FOURS && TY * TX <= MOST_FOURS) return by_fours<D, TY, TX, STEP>;
    else return nullptr;
}

template <class D, int... I>
const Kernels& kernels(std::integer_sequence<int, I...>) {
    static const Kernels all{{rows_entry<D, I>()...}, {fours_entry<D, I>()...}, D::SPLITS};
    return all;
}

const Kernels& tile_kernels(bool vnni) {
    using All = std::make_integer_sequence<int, 2 * MOST_X * MOST_Y>;
#ifdef PRUNERY_HAS_VNNI
    if (vnni) return kernels<Vnni>(All());
#endif
    (void)vnni;
    return kernels<Plain>(All());
}

}  // namespace

}  // namespace prunery::engine
