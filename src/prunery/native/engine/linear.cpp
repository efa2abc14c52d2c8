// Matrix times vector, in floats: what a fully connected layer is for one image.
//
// Half of a vector behind a ReLU is zeros, of a picture of a digit four fifths: both kernels first list the inputs that are not zero and look
// at no others' weights. So weights are kept by input. Adding to outputs here and there costs more than twice as much as a sum in a register, though:
// where most inputs are lit, the sparse kernel goes by output. Which way it goes depends on the input alone, so the result is the same for any
// number of threads.

#include "engine.h"

#include <cstring>
#include <vector>

#include "activation.h"

namespace prunery::engine {

namespace {

constexpr double NS_PER_KEPT = 0.45;          // sparse: a load, a multiply-add, a store
constexpr double NS_PER_VECTOR = 0.5;         // dense: one vector of weights from the first-level cache,
constexpr double NS_PER_FAR_VECTOR = 2.0;     // or from beyond it
constexpr double NEAR = 24 << 10;             // bytes of weights that stay in it
constexpr double LIVELY = 0.6;                // inputs taken to be other than zero
constexpr double CROWDED = 0.45;              // of inputs lit: above, the sparse kernel goes by output
constexpr int SLICE = 4096;                   // outputs that one part of the sparse kernel adds to: they stay in the first-level cache
constexpr int STRIP = 8;                      // vectors of outputs that the dense kernel keeps in registers

// The inputs that are not zero.
struct Lit {
    std::vector<int32_t> place;
    std::vector<float> value;
    int count = 0;

    void of(const float* x, int n) {
        if (int(value.size()) < n) place.resize(n), value.resize(n);  // looked at: what is made last
        count = 0;
        for (int i = 0; i < n; ++i) {
            place[count] = i;
            value[count] = x[i];
            count += !(x[i] == 0);  // a NaN counts
        }
    }
};

thread_local Lit lit;

// Bias, residual and activation around either kernel.
struct Frame {
    std::vector<float> bias;  // as many as the outputs' vectors have lanes
    Place in, out, residual;
    bool adds = false;
    Activation activation{};
    float slope = 0;

    Frame(const Op& op, const Place& in, const Place& out, const Place* r)
        : bias((op.weights.outputs + LANES - 1) / LANES * LANES), in(in), out(out), residual(r ? *r : Place{}), adds(r), activation(op.activation),
          slope(op.slope) {
        if (op.bias) memcpy(bias.data(), op.bias, op.weights.outputs * sizeof(float));
    }

    // Outputs first to first + count, both multiples of LANES.
    void finish(const Memory& m, long first, long count) const {
        Vec* to = reinterpret_cast<Vec*>(reinterpret_cast<float*>(m.at(out)) + first);
        const Vec* more = adds ? reinterpret_cast<const Vec*>(reinterpret_cast<const float*>(m.at(residual)) + first) : nullptr;
        with_activation(activation, [&](auto a) {
            for (long i = 0; i < count / LANES; ++i) to[i] = activate<decltype(a)::value>(more ? to[i] + more[i] : to[i], slope);
        });
    }
};

// The numbers of a row by input instead of by output.
struct Column {
    std::vector<uint32_t> start;
    std::vector<uint32_t> output;
    std::vector<float> value;
};

Column by_input(const Weights& w, long first, long last) {
    Column c;
    c.start.assign(w.inputs + 1, 0);
    for (long k = w.start[first]; k < w.start[last]; ++k) ++c.start[w.index(k) + 1];
    for (int i = 0; i < w.inputs; ++i) c.start[i + 1] += c.start[i];
    c.output.resize(c.start[w.inputs]);
    c.value.resize(c.output.size());
    std::vector<uint32_t> next(c.start.begin(), c.start.end() - 1);
    for (long o = first; o < last; ++o)
        for (long k = w.start[o]; k < w.start[o + 1]; ++k) {
            const uint32_t at = next[w.index(k)]++;
            c.output[at] = o - first;
            c.value[at] = w.value(k);
        }
    return c;
}

template <class Slice>
void by_output(const Weights& w, Slice& s) {
    for (long o = s.first; o <= s.last; ++o) s.row_start.push_back(w.start[o] - w.start[s.first]);
    for (long k = w.start[s.first]; k < w.start[s.last]; ++k) {
        s.row_input.push_back(w.index(k));
        s.row_value.push_back(w.value(k));
    }
}

template <class Index>
struct SparseLinear : Step {
    struct Slice {
        long first, last;
        std::vector<uint32_t> start;
        std::vector<Index> output;
        std::vector<float> value;
        std::vector<uint32_t> row_start;  // the same numbers by output
        std::vector<uint32_t> row_input;
        std::vector<float> row_value;
    };
    Frame frame;
    std::vector<Slice> slices;

    explicit SparseLinear(const Frame& f) : frame(f) {}
    static void by_inputs(const Slice& s, const float* bias, float* to);
    static void by_outputs(const Slice& s, const float* bias, const float* x, float* to);

    void run(const Memory& m, int part, int parts) const override {
        const Share mine(slices.size(), part, parts);
        if (mine.first == mine.last) return;
        lit.of(reinterpret_cast<const float*>(m.at(frame.in)), slices[0].start.size() - 1);
        for (long s = mine.first; s < mine.last; ++s) one(m, slices[s]);
    }

    void one(const Memory& m, const Slice& s) const {
        float* to = reinterpret_cast<float*>(m.at(frame.out)) + s.first;
        const float* bias = frame.bias.data() + s.first;
        if (lit.count > CROWDED * (s.start.size() - 1)) by_outputs(s, bias, reinterpret_cast<const float*>(m.at(frame.in)), to);
        else by_inputs(s, bias, to);
        frame.finish(m, s.first, (s.last - s.first + LANES - 1) / LANES * LANES);
    }
};

template <class Index>
void SparseLinear<Index>::by_inputs(const Slice& s, const float* bias, float* to) {
    memcpy(to, bias, (s.last - s.first) * sizeof(float));
    const Index* output = s.output.data();
    const float* value = s.value.data();
    for (int i = 0; i < lit.count; ++i) {
        const float x = lit.value[i];
        for (uint32_t k = s.start[lit.place[i]], end = s.start[lit.place[i] + 1]; k < end; ++k) to[output[k]] += value[k] * x;
    }
}

// Four sums, since each must wait for its own last addition.
template <class Index>
void SparseLinear<Index>::by_outputs(const Slice& s, const float* bias, const float* x, float* to) {
    const uint32_t* input = s.row_input.data();
    const float* value = s.row_value.data();
    for (long o = 0; o < s.last - s.first; ++o) {
        float sum[4] = {bias[o], 0, 0, 0};
        uint32_t k = s.row_start[o];
        const uint32_t end = s.row_start[o + 1];
        for (; k + 4 <= end; k += 4)
            for (int j = 0; j < 4; ++j) sum[j] += value[k + j] * x[input[k + j]];
        for (; k < end; ++k) sum[0] += value[k] * x[input[k]];
        to[o] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    }
}

template <class Index>
StepPtr sparse(const Op& op, const Frame& frame) {
    auto s = std::make_unique<SparseLinear<Index>>(frame);
    const Weights& w = op.weights;
    // Two slices at least, where there is work enough for two threads.
    const long size = w.kept > 20000 && w.outputs <= SLICE ? ((w.outputs + 1) / 2 + LANES - 1) / LANES * LANES : SLICE;
    for (long first = 0; first < w.outputs; first += size) {
        const long last = first + size < w.outputs ? first + size : w.outputs;
        Column c = by_input(w, first, last);
        s->own_bytes += c.output.size() * (sizeof(Index) + sizeof(float)) + c.start.size() * sizeof(uint32_t);
        s->slices.push_back({first, last, std::move(c.start), std::vector<Index>(c.output.begin(), c.output.end()), std::move(c.value), {}, {}, {}});
        by_output(w, s->slices.back());
    }
    return s;
}

struct DenseLinear : Step {
    Frame frame;
    int inputs;
    std::vector<float> weights;  // strip, input, STRIP vectors of outputs
    long strips;

    DenseLinear(const Op& op, const Frame& f) : frame(f), inputs(op.weights.inputs) {
        const Weights& w = op.weights;
        const long width = STRIP * LANES;
        strips = (w.outputs + width - 1) / width;
        weights.assign(strips * inputs * width + LANES, 0);
        for (long o = 0; o < w.outputs; ++o) {
            float* to = aligned() + o / width * inputs * width + o % width;
            if (w.sparse())
                for (long k = w.start[o]; k < w.start[o + 1]; ++k) to[w.index(k) * width] = w.value(k);
            else
                for (long i = 0; i < inputs; ++i) to[i * width] = w.value(o * inputs + i);
        }
        own_bytes = weights.size() * sizeof(float);
    }

    float* aligned() { return const_cast<float*>(static_cast<const DenseLinear*>(this)->aligned()); }
    const float* aligned() const { return weights.data() + (-reinterpret_cast<uintptr_t>(weights.data()) % VECTOR) / sizeof(float); }

    void run(const Memory& m, int part, int parts) const override {
        const Share mine(strips, part, parts);
        if (mine.first == mine.last) return;
        lit.of(reinterpret_cast<const float*>(m.at(frame.in)), inputs);
        for (long s = mine.first; s < mine.last; ++s) {
            const long all = frame.bias.size() / LANES - s * STRIP, n = all < STRIP ? all : STRIP;
            if (n == STRIP) strip<STRIP>(m, s, n);
            else if (n > 2) strip<STRIP>(m, s, n);
            else strip<2>(m, s, n);
        }
    }

    // N vectors of outputs, of which n exist.
    template <int N>
    void strip(const Memory& m, long s, long n) const {
        const Vec* w = reinterpret_cast<const Vec*>(aligned()) + s * inputs * STRIP;
        Vec sum[N];
        for (int v = 0; v < N; ++v) {
            sum[v] = Vec{};
            if (v < n) memcpy(&sum[v], frame.bias.data() + (s * STRIP + v) * LANES, VECTOR);
        }
        for (int i = 0; i < lit.count; ++i) {
            const Vec* row = w + long(lit.place[i]) * STRIP;
            const float x = lit.value[i];
#pragma GCC unroll 8
            for (int v = 0; v < N; ++v) sum[v] += row[v] * x;
        }
        Vec* to = reinterpret_cast<Vec*>(m.at(frame.out)) + s * STRIP;
        for (int v = 0; v < N; ++v)
            if (v < n) to[v] = sum[v];
        frame.finish(m, s * STRIP * LANES, n * LANES);
    }
};

std::string told(double sparse_ns, double dense_ns) {
    char text[96];
    snprintf(text, sizeof text, "sparse %.1f us, dense %.1f us", sparse_ns / 1000, dense_ns / 1000);
    return text;
}

}  // namespace

StepPtr linear(const Op& op, const Place& in, const Place& out, const Place* residual) {
    const Frame frame(op, in, out, residual);
    const Weights& w = op.weights;
    const double total = double(w.outputs) * w.inputs, listed = 1.0 * w.inputs;
    const double sparse_ns = 60 + listed + NS_PER_KEPT * LIVELY * w.kept;
    const double each = total * sizeof(float) < NEAR ? NS_PER_VECTOR : NS_PER_FAR_VECTOR;
    const double dense_ns = 60 + listed + each * LIVELY * total / LANES;
    const bool is_sparse = w.sparse() && sparse_ns < dense_ns;
    StepPtr s = !is_sparse ? std::make_unique<DenseLinear>(op, frame) : w.outputs <= 65536 ? sparse<uint16_t>(op, frame) : sparse<uint32_t>(op, frame);
    s->kernel = is_sparse ? "sparse" : "dense";
    s->why = told(sparse_ns, dense_ns);
    s->density = w.density();
    s->multiply_adds = is_sparse ? w.kept : total;
    s->predicted_ns = is_sparse ? sparse_ns : dense_ns;
    return s;
}

}  // namespace prunery::engine
