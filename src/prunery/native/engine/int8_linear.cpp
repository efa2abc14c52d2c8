// Matrix times vector, in bytes: what a fully connected layer is for one image.
//
// Both kernels keep weights by input and skip inputs that are zero, as the one for floats does (linear.cpp). The dense one adds the products of a few inputs
// (a word of them: four bytes with VNNI, else a pair of 16 bits) to LANES outputs in one instruction, which is so much that a list of single weights pays
// only where very few are kept, or where a large matrix must come from memory.

#include "int8.h"

#include <cstdio>

#include "activation.h"

namespace prunery::engine {

namespace {

constexpr double NS_PER_KEPT = 0.17, NS_PER_INPUT = 1.6;  // sparse: a weight, and the end of an input's list
constexpr double NS_PER_VECTOR = 0.75;                    // dense: one vector of weights, from the second-level cache
constexpr double NS_PER_BYTE = 0.06;                      // of weights that come from memory
constexpr double CACHED = 4e6;                            // bytes of weights that do not
constexpr double LIVELY = 0.8;                            // inputs taken to be other than zero
constexpr int STRIP = 8;                                  // vectors of outputs that the dense kernel keeps in registers

typedef uint8_t Lane __attribute__((vector_size(LANES)));  // a byte for each
typedef Vec VecAnywhere __attribute__((aligned(4), may_alias));

// ---- from sums to outputs

struct Around {
    Frame frame;
    explicit Around(const Frame& f) : frame(f) {}

    // Outputs first to first + LANES.
    void finish(const Memory& m, long first, Ints sums) const {
        const Vec by = *reinterpret_cast<const VecAnywhere*>(&frame.multiplier[first]), y = floats(sums) * by;
        if (frame.to_floats) return finish_floats(m, first, y);
        Ints bytes = nearest(y);
        if (frame.adds) bytes += residual(m, first);
        const auto narrow = __builtin_convertvector(held(bytes + frame.out.tensor.zero, frame.range.low, frame.range.high), Lane);
        memcpy(m.at(frame.out) + first, &narrow, here(first));
    }

    long here(long first) const { return frame.out.tensor.channels - first < LANES ? frame.out.tensor.channels - first : LANES; }

    void finish_floats(const Memory& m, long first, Vec y) const {
        y = with_activation(frame.activation, [&](auto a) { return activate<decltype(a)::value>(rounded(y), frame.slope); });
        memcpy(reinterpret_cast<float*>(m.at(frame.out)) + first, &y, here(first) * sizeof(float));
    }

    // There is memory to read behind every tensor.
    Ints residual(const Memory& m, long first) const {
        Lane r;
        memcpy(&r, m.at(frame.residual) + first, sizeof r);
        return nearest(floats(__builtin_convertvector(r, Ints) - frame.residual.tensor.zero) * splat(frame.residual_multiplier));
    }
};

// ---- dense

#ifdef PRUNERY_HAS_VNNI
struct Vnni {
    static constexpr int BYTES = 4;  // of the input in a word
    static uint32_t word(const uint8_t* x) {
        uint32_t w;
        memcpy(&w, x, sizeof w);
        return w;
    }
    static uint32_t weight(int value, int place) { return uint32_t(uint8_t(value)) << (8 * place); }
    static void add(Words& sum, uint32_t x, Words w) {
        const Words all = Words{} + x;
#if defined(__AVX512F__)
        __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(all), "v"(w));
#else
        __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(all), "x"(w));
#endif
    }
};
#endif

struct Pairs {
    static constexpr int BYTES = 2;
    static uint32_t word(const uint8_t* x) { return x[0] | uint32_t(x[1]) << 16; }
    static uint32_t weight(int value, int place) { return uint32_t(uint16_t(value)) << (16 * place); }
    static void add(Words& sum, uint32_t x, Words w) {
#if defined(__AVX512BW__)
        sum += (Words)_mm512_madd_epi16(_mm512_set1_epi32(x), (__m512i)w);
#elif defined(__AVX2__)
        sum += (Words)_mm256_madd_epi16(_mm256_set1_epi32(x), (__m256i)w);
#elif defined(__SSE2__)
        sum += (Words)_mm_madd_epi16(_mm_set1_epi32(x), (__m128i)w);
#else
        sum += (Words)((Ints)(w << 16) >> 16) * (x & 65535) + (Words)((Ints)w >> 16) * (x >> 16);
#endif
    }
};

// The words of the input that are not zero.
struct Lit {
    std::vector<int32_t> place;
    std::vector<uint32_t> word;
    long count = 0;

    template <class D>
    void of(const uint8_t* x, long words) {
        if (long(word.size()) < words) place.resize(words), word.resize(words);  // looked at: what is made last
        count = 0;
        for (long i = 0; i < words; ++i) {
            word[count] = D::word(x + i * D::BYTES);
            place[count] = int32_t(i);
            count += word[count] != 0;
        }
    }
};
thread_local Lit lit;

// Memory whose first vector is aligned.
struct Aligned {
    std::vector<char> room;
    Words* first = nullptr;

    void make(long vectors) {
        room.assign((vectors + 1) * VECTOR, 0);
        first = reinterpret_cast<Words*>((reinterpret_cast<uintptr_t>(room.data()) + VECTOR - 1) / VECTOR * VECTOR);
    }
};

template <class D>
struct DenseLinear : Step {
    Around around;
    long inputs, in_words, strips;
    Aligned weights;  // strip, word of the input, STRIP vectors of outputs (the last strip has as many as it needs)

    DenseLinear(const Op& op, const Frame& f)
        : around(f), inputs(op.weights.inputs), in_words((inputs + D::BYTES - 1) / D::BYTES), strips((vectors() + STRIP - 1) / STRIP) {
        weights.make(vectors() * in_words + STRIP);
        for (long o = 0; o < op.weights.outputs; ++o) {
            uint32_t* to = reinterpret_cast<uint32_t*>(strip(o / LANES / STRIP)) + o % (STRIP * LANES);
            const long width = in_strip(o / LANES / STRIP) * LANES;
            each_weight(op.weights, o, [&](long i, int value) { to[i / D::BYTES * width] |= D::weight(value, i % D::BYTES); });
        }
        own_bytes = weights.room.size() + f.start.size() * 8;
    }

    long vectors() const { return around.frame.start.size() / LANES; }
    long in_strip(long s) const { return vectors() - s * STRIP < STRIP ? vectors() - s * STRIP : STRIP; }
    Words* strip(long s) const { return weights.first + s * STRIP * in_words; }

    // Strips are shared out; a matrix of few outputs is not worth a second thread.
    void run(const Memory& m, int part, int parts) const override {
        const Share mine(strips, part, parts);
        if (mine.first == mine.last) return;
        const uint8_t* x = reinterpret_cast<const uint8_t*>(m.at(around.frame.in));
        lit.of<D>(x, inputs / D::BYTES);
        if (inputs % D::BYTES) add_last(x);
        for (long s = mine.first; s < mine.last; ++s) {
            const long n = in_strip(s);
            n > 4 ? n == STRIP ? full<STRIP>(m, s) : some<STRIP>(m, s, n) : n > 2 ? some<4>(m, s, n) : n == 2 ? full<2>(m, s) : full<1>(m, s);
        }
    }

    // What lies behind the last input must not make a word look alive for nothing; its weights are zeros anyhow.
    void add_last(const uint8_t* x) const {
        uint8_t rest[D::BYTES] = {};
        memcpy(rest, x + inputs / D::BYTES * D::BYTES, inputs % D::BYTES);
        if (lit.word.size() <= size_t(lit.count)) lit.place.resize(lit.count + 1), lit.word.resize(lit.count + 1);
        lit.place[lit.count] = int32_t(inputs / D::BYTES);
        lit.word[lit.count++] = D::word(rest);
    }

    template <int N>
    void full(const Memory& m, long s) const {
        some<N>(m, s, N);
    }

    // At most N vectors of outputs. Few of them are summed up in several chains, so that additions need not wait for each other.
    template <int N>
    void some(const Memory& m, long s, long n) const {
        constexpr int CHAINS = N >= 4 ? 1 : 4 / N;
        const Words* w = strip(s);
        const int32_t* place = lit.place.data();
        const uint32_t* word = lit.word.data();
        const long count = lit.count;
        const WordsAnywhere* start = reinterpret_cast<const WordsAnywhere*>(&around.frame.start[s * STRIP * LANES]);
        Words sum[CHAINS][N] = {};
#pragma GCC unroll 8
        for (int v = 0; v < N; ++v)
            if (v < n) sum[0][v] = start[v];
        long i = 0;
        for (; i + CHAINS <= count; i += CHAINS)
#pragma GCC unroll 4
            for (int k = 0; k < CHAINS; ++k) add<N>(sum[k], w + place[i + k] * n, word[i + k]);
        for (; i < count; ++i) add<N>(sum[0], w + place[i] * n, word[i]);
#pragma GCC unroll 8
        for (int v = 0; v < N; ++v) {
#pragma GCC unroll 4
            for (int k = 1; k < CHAINS; ++k) sum[0][v] += sum[k][v];
            if (v < n) around.finish(m, (s * STRIP + v) * LANES, (Ints)sum[0][v]);
        }
    }

    // Beyond the last strip's vectors: what follows, for sums that nobody reads.
    template <int N>
    static inline void add(Words (&sum)[N], const Words* row, uint32_t x) {
#pragma GCC unroll 8
        for (int v = 0; v < N; ++v) D::add(sum[v], x, row[v]);
    }
};

// ---- sparse

struct SparseLinear : Step {
    struct Slice {
        long first, last;             // outputs
        std::vector<uint32_t> start;  // of each input's weights
        std::vector<uint16_t> output;
        std::vector<int8_t> value;
    };
    Around around;
    std::vector<Slice> slices;

    SparseLinear(const Op& op, const Frame& f) : around(f) {
        const Weights& w = op.weights;
        const long most = w.kept > 20000 ? (w.outputs + 1) / 2 : w.outputs;  // two slices at least, where there is work for two threads
        const long size = ((most < SLICE ? most : SLICE) + LANES - 1) / LANES * LANES;
        for (long first = 0; first < w.outputs; first += size) slices.push_back(slice(w, first, first + size < w.outputs ? first + size : w.outputs));
        for (const Slice& s : slices) own_bytes += s.output.size() * 3 + s.start.size() * 4;
    }

    static constexpr long SLICE = 4096;  // outputs whose sums stay in the first-level cache

    static Slice slice(const Weights& w, long first, long last) {
        Slice s{first, last, std::vector<uint32_t>(w.inputs + 1, 0), {}, {}};
        for (long o = first; o < last; ++o) each_weight(w, o, [&](long i, int) { ++s.start[i + 1]; });
        for (int i = 0; i < w.inputs; ++i) s.start[i + 1] += s.start[i];
        s.output.resize(s.start[w.inputs]);
        s.value.resize(s.output.size());
        std::vector<uint32_t> next(s.start.begin(), s.start.end() - 1);
        for (long o = first; o < last; ++o)
            each_weight(w, o, [&](long i, int value) {
                s.output[next[i]] = uint16_t(o - first);
                s.value[next[i]++] = int8_t(value);
            });
        return s;
    }

    void run(const Memory& m, int part, int parts) const override {
        const Share mine(slices.size(), part, parts);
        for (long s = mine.first; s < mine.last; ++s) one(m, slices[s]);
    }

    void one(const Memory& m, const Slice& s) const {
        static thread_local std::vector<uint32_t> sums;
        const long size = (s.last - s.first + LANES - 1) / LANES * LANES;
        sums.assign(size, 0);
        memcpy(sums.data(), &around.frame.start[s.first], size * sizeof(uint32_t));
        const uint8_t* x = reinterpret_cast<const uint8_t*>(m.at(around.frame.in));
        const uint16_t* output = s.output.data();
        const int8_t* value = s.value.data();
        uint32_t* to = sums.data();
        for (size_t i = 0; i + 1 < s.start.size(); ++i) {
            const uint32_t v = x[i];
            if (!v) continue;
            for (uint32_t k = s.start[i], end = s.start[i + 1]; k < end; ++k) to[output[k]] += v * uint32_t(value[k]);
        }
        for (long i = 0; i < size; i += LANES) {
            Ints all;
            memcpy(&all, to + i, VECTOR);
            around.finish(m, s.first + i, all);
        }
    }
};

double streamed(double ns, double bytes) { return bytes > CACHED && bytes * NS_PER_BYTE > ns ? bytes * NS_PER_BYTE : ns; }

StepPtr dense(const Op& op, const Frame& f) {
#ifdef PRUNERY_HAS_VNNI
    if (has_vnni()) return std::make_unique<DenseLinear<Vnni>>(op, f);
#endif
    return std::make_unique<DenseLinear<Pairs>>(op, f);
}

}  // namespace

StepPtr linear_int8(const Op& op, const Place& in, const Place& out, const Place* residual) {
    const Frame frame(op, in, out, residual);
    const Weights& w = op.weights;
    const double total = double(w.outputs) * w.inputs, word = has_vnni() ? 4 : 2, vectors = double(frame.start.size() / LANES) * w.inputs / word;
    const double sparse_ns = 60 + LIVELY * streamed(NS_PER_INPUT * w.inputs + NS_PER_KEPT * w.kept, 3.0 * w.kept);
    const double dense_ns = 60 + w.inputs / word + LIVELY * streamed(NS_PER_VECTOR * vectors, VECTOR * vectors);
    const bool is_sparse = w.sparse() && sparse_ns < dense_ns;
    StepPtr s = is_sparse ? std::make_unique<SparseLinear>(op, frame) : dense(op, frame);
    char text[96];
    snprintf(text, sizeof text, "sparse %.1f us, dense %.1f us", sparse_ns / 1000, dense_ns / 1000);
    s->why = text;
    s->kernel = is_sparse ? "int8 sparse by input" : "int8 dense by input";
    s->density = w.density();
    s->multiply_adds = is_sparse ? w.kept : total;
    s->predicted_ns = is_sparse ? sparse_ns : dense_ns;
    return s;
}

}  // namespace prunery::engine
