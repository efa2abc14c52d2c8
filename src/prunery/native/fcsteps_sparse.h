// A layer that knows only its kept weights. Samples lie in the lanes: every feature is a row of `stride` vectors, and a kept weight
// meets a whole row at once.
//
// Weights are stored by the input that they read, their moments beside them, so that one pass serves both gradients: while the
// input's row is in registers, each of its weights needs one row of the outputs' gradients. Sums over samples are made for four weights at
// a time, and the optimiser is applied before they leave the first-level cache.
//
// Only the lit vectors of an input's row (those with a value that is not zero) are looked at.
//
// What a short loop costs is the processor's wrong guess of where it ends. So inputs are sorted by their number of weights.

#pragma once

#include <algorithm>
#include <numeric>

#include "fcsteps_rules.h"

namespace prunery {

// Rows of features, and of each row the vectors that are lit.
struct Rows {
    long stride = 0;
    std::vector<Vec> at;
    std::vector<uint16_t> lit, which;  // how many, and which: `stride` places for each feature

    void resize(long features, long vectors) {
        stride = vectors;
        at.resize(features * stride);
        lit.resize(features);
        which.resize(features * stride);
    }
    Vec* row(long feature) { return at.data() + feature * stride; }
    const Vec* row(long feature) const { return at.data() + feature * stride; }
};

// The gradient of a layer's outputs: rows, and their sums over samples.
struct Gradient {
    Vec* at;
    long stride;
    int groups;
    float* sums;
};

// The weights [begin, end) of one input; the next input's begin at a multiple of four. Outputs are counted from the block's first.
struct Column {
    int32_t input, begin, end;
};

// Outputs whose rows fit in the cache together.
struct Block {
    int32_t first, columns_begin, columns_end;
};

constexpr int MOST_LIT = 8;

// What the loops below know of the column they are at. COUNT lit vectors are held in registers; 0 stands for any number, in memory.
struct Place {
    const uint16_t* output;
    long stride;
    const uint16_t* which;
    int count;
    const Vec* x;
};

template <class Act>
inline void with_count(int count, Act act) {
    if (count > MOST_LIT) act(std::integral_constant<int, 0>());
    else with_constant<MOST_LIT>(count, act);
}

template <int COUNT>
void forward_column(const Column& c, const Place& at, const float* w, Vec* y) {
    Vec x[COUNT ? COUNT : 1];
    Vec* to[COUNT ? COUNT : 1];
    for (int n = 0; n < COUNT; ++n) x[n] = at.x[at.which[n]], to[n] = y + at.which[n];
    for (int k = c.begin; k < c.end; ++k) {
        const long row = at.output[k] * at.stride;
        if constexpr (COUNT > 0) {
#pragma GCC unroll 8
            for (int n = 0; n < COUNT; ++n) to[n][row] += w[k] * x[n];
        } else {
            for (int n = 0; n < at.count; ++n) y[row + at.which[n]] += w[k] * at.x[at.which[n]];
        }
    }
}

inline void put(float* g, const Vec (&products)[4]) { *reinterpret_cast<Quad*>(g) = sums_of_four(products); }

// Gradients of a column's weights into g, and where DX that of its input (before ReLU), which is added to dx.
template <int COUNT, bool DX>
void backward_column(const Column& c, const Place& at, const float* w, const Vec* dy, Vec* dx, float* g) {
    Vec x[COUNT ? COUNT : 1], sum[COUNT ? COUNT : 1];
    const Vec* from[COUNT ? COUNT : 1];
    for (int n = 0; n < COUNT; ++n) x[n] = at.x[at.which[n]], from[n] = dy + at.which[n], sum[n] = Vec{};
    const auto product = [&](int k) {
        const long row = at.output[k] * at.stride;
        Vec p{};
        if constexpr (COUNT > 0) {
#pragma GCC unroll 8
            for (int n = 0; n < COUNT; ++n) {
                const Vec d = from[n][row];
                p += x[n] * d;
                if (DX) sum[n] += w[k] * d;
            }
        } else {
            for (int n = 0; n < at.count; ++n) {
                const int lit = at.which[n];
                const Vec d = dy[row + lit];
                p += at.x[lit] * d;
                if (DX) dx[lit] += at.x[lit] <= 0.0f ? Vec{} : w[k] * d;
            }
        }
        return p;
    };
    int k = c.begin;
    for (; k + 4 <= c.end; k += 4) {
        const Vec p[4] = {product(k), product(k + 1), product(k + 2), product(k + 3)};
        put(g + k, p);
    }
    if (k < c.end) {
        Vec p[4] = {product(k)};
        for (int i = 1; k + i < c.end; ++i) p[i] = product(k + i);
        put(g + k, p);
    }
    for (int n = 0; DX && n < COUNT; ++n) dx[at.which[n]] += x[n] <= 0.0f ? Vec{} : sum[n];
}

class Sparse {
    static constexpr int BATCH = 1024;  // weights whose gradients are kept until the optimiser comes

    int inputs, outputs;
    std::vector<Block> blocks;
    std::vector<Column> columns;
    std::vector<uint16_t> output;
    Weights weights;
    Floats g;

  public:
    Sparse(const uint8_t* mask, int inputs, int outputs, int block, int moments) : inputs(inputs), outputs(outputs) {
        for (int first = 0; first < outputs; first += block) add_block(mask, first, std::min(outputs, first + block));
        weights.resize(output.size(), moments);
        g.resize(BATCH + block + 2 * LANES);
    }

    // Dense tensors [output][input] in and out; null stands for zeros, or for what is not wanted.
    void read(const float* w, const float* m, const float* v, bool awake) {
        const float* from[] = {w, m, v};
        each_tensor([&](int i, float* own) {
            if (from[i]) each_weight([&](long place, int k) { own[k] = from[i][place]; });
        });
        weights.wake(awake);
    }
    void write(float* w, float* m, float* v) {
        float* to[] = {w, m, v};
        for (float* tensor : to)
            if (tensor) memset(tensor, 0, sizeof(float) * inputs * outputs);
        each_tensor([&](int i, const float* own) {
            if (to[i]) each_weight([&](long place, int k) { to[i][place] = own[k]; });
        });
    }

    // The inputs that have a weight.
    void mark(uint8_t* used) const {
        for (const Column& c : columns) used[c.input] = 1;
    }

    // y += weights times x
    void forward(const Rows& x, Vec* y) const {
        for (const Block& b : blocks) {
            for (int i = b.columns_begin; i < b.columns_end; ++i) {
                const Column& c = columns[i];
                const Place at = place(c, x);
                with_count(at.count, [&](auto count) { forward_column<count>(c, at, weights.w.data(), y + b.first * x.stride); });
            }
        }
    }

    // A step of the weights; dx, unless null, gets the gradients of the inputs added to it.
    void backward(const Rows& x, const Vec* dy, Vec* dx, const Rule& rule, Update update) {
        for (const Block& b : blocks) {
            int done = b.columns_begin < int(columns.size()) ? columns[b.columns_begin].begin : 0, end = done;
            for (int i = b.columns_begin; i < b.columns_end; ++i) {
                const Column& c = columns[i];
                column(c, place(c, x), dy + b.first * x.stride, dx ? dx + c.input * x.stride : nullptr, g.data() - done);
                end = whole(c.end, 4);
                if (end - done < BATCH) continue;
                const int complete = end / LANES * LANES;
                update(rule, weights, g.data() - done, done, complete);
                std::copy(g.data() + complete - done, g.data() + end - done, g.data());
                done = complete;
            }
            const int padded = whole(end, LANES);
            std::fill(g.data() + end - done, g.data() + padded - done, 0.0f);
            update(rule, weights, g.data() - done, done, padded);
        }
    }

  private:
    void add_block(const uint8_t* mask, int first, int last) {
        std::vector<int32_t> count(inputs, 0), order(inputs), next(inputs);
        for (int o = first; o < last; ++o)
            for (int i = 0; i < inputs; ++i) count[i] += mask[long(o) * inputs + i] != 0;
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return count[a] > count[b]; });
        const int32_t begin = columns.size();
        int32_t at = output.size();
        for (int i : order) {
            if (!count[i]) break;
            next[i] = at;
            columns.push_back({i, at, at + count[i]});
            at = whole(columns.back().end, 4);
        }
        output.resize(whole(at, LANES));
        for (int o = first; o < last; ++o)
            for (int i = 0; i < inputs; ++i)
                if (mask[long(o) * inputs + i]) output[next[i]++] = o - first;
        blocks.push_back({first, begin, int32_t(columns.size())});
    }

    template <class Act>
    void each_tensor(Act act) {
        Floats* all[] = {&weights.w, &weights.m, &weights.v};
        for (int i = 0; i < 3; ++i)
            if (all[i]->size()) act(i, all[i]->data());
    }

    // act(place in a tensor [output][input], place here)
    template <class Act>
    void each_weight(Act act) const {
        for (const Block& b : blocks)
            for (int i = b.columns_begin; i < b.columns_end; ++i)
                for (int k = columns[i].begin; k < columns[i].end; ++k) act(long(b.first + output[k]) * inputs + columns[i].input, k);
    }

    Place place(const Column& c, const Rows& x) const {
        return {output.data(), x.stride, x.which.data() + c.input * x.stride, x.lit[c.input], x.row(c.input)};
    }

    void column(const Column& c, const Place& at, const Vec* dy, Vec* dx, float* g) {
        if (!at.count) {
            std::fill(g + c.begin, g + whole(c.end, 4), 0.0f);
            return;
        }
        for (int k = c.begin / LANES; k <= (c.end - 1) / LANES; ++k) weights.awake[k] = 1;
        with_count(at.count, [&](auto count) {
            if (dx) backward_column<count, true>(c, at, weights.w.data(), dy, dx, g);
            else backward_column<count, false>(c, at, weights.w.data(), dy, dx, g);
        });
    }
};

}  // namespace prunery
