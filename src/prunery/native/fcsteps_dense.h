// A layer with most of its weights kept. Outputs lie in the lanes, and what is skipped is zeros among the inputs, sample by sample:
// four fifths of MNIST's pixels, half of the hidden units. Pruned weights are there, and get no gradient.
//
// Outputs are cut into panels, a few vectors wide: a sample's sums, or the gradients of an input's weights, are held in registers
// while the list of what is lit runs by, and what they read lies in the first-level cache.

#pragma once

#include "fcsteps_sparse.h"

namespace prunery {

constexpr int WIDEST = 8;  // vectors in a panel

// A few vectors of outputs, their weights together: [input][output].
struct Panel {
    int first, vectors;  // the first vector of outputs, and how many
    long weights(int inputs) const { return long(first) * LANES * inputs; }
};

// Values that are not zero, and whose they are: the sample's in a list of an input, the input's in a list of a sample.
struct List {
    int count;
    const int32_t* of;
    const float* value;
};

// What a batch needs beside its rows. All samples share what a shift of the pixels adds: it is one more sample, the last.
class Lists {
    int tile;
    std::vector<int32_t> of_inputs, of_samples, count, begin;
    std::vector<float> inputs_values, samples_values;

  public:
    const int inputs, samples;
    Floats panels;  // y or dy, [panel][sample][output]

    Lists(int inputs, int outputs, int lanes) : inputs(inputs), samples(lanes + 1) {
        tile = 96 / LANES * LANES;
        const long most = long(inputs) * samples + LANES, most_in_tile = (tile + LANES) * samples;
        of_inputs.resize(most);
        inputs_values.resize(most);
        of_samples.resize(most_in_tile);
        samples_values.resize(most_in_tile);
        begin.resize(inputs + 1);
        count.resize(samples);
        panels.resize(samples * whole(outputs, LANES));
    }

    float* of_panel(const Panel& p) { return panels.data() + p.first * LANES * samples; }
    List of_input(int i) const { return {begin[i + 1] - begin[i], of_inputs.data() + begin[i], inputs_values.data() + begin[i]}; }
    List of_sample(int s) const { return {count[s], of_samples.data() + s * (tile + LANES), samples_values.data() + s * (tile + LANES)}; }

    // Each input's samples.
    void by_input(const Rows& x, bool shifted) {
        int n = 0;
        for (int i = 0; i < inputs; ++i) {
            for (int k = 0; k < x.lit[i]; ++k) {
                const int group = x.which[i * x.stride + k];
                if (shifted && group == x.stride - 1) n = append(samples - 1, x.row(i)[group][0], n);
                else n += compress(x.row(i)[group], group * LANES, of_inputs.data() + n, inputs_values.data() + n);
            }
            begin[i + 1] = n;
        }
    }

    // Each sample's inputs, for a tile of them, whose weights fit in the first-level cache; act(first input) for each tile.
    template <class Act>
    void each_tile(const Rows& x, int groups, bool shifted, Act act) {
        for (int first = 0; first < inputs; first += tile) {
            std::fill(count.begin(), count.end(), 0);
            for (int i = first; i < std::min(first + tile, inputs); i += LANES) {
                for (int g = 0; g < groups; ++g) by_sample(x, i, g, g * LANES, LANES);
                if (shifted) by_sample(x, i, x.stride - 1, samples - 1, 1);
            }
            act();
        }
    }

  private:
    int append(int sample, float value, int n) {
        of_inputs[n] = sample;
        inputs_values[n] = value;
        return n + 1;
    }

    void by_sample(const Rows& x, int input, int group, int first, int here) {
        Vec v[LANES] = {};
        bool lit = false;
        for (int i = 0; i < LANES && input + i < inputs; ++i) {
            v[i] = x.row(input + i)[group];
            lit |= x.lit[input + i] > 0;
        }
        if (!lit) return;
        transpose(v);
        for (int i = 0; i < here; ++i) {
            const int s = first + i, at = s * (tile + LANES) + count[s];
            count[s] += compress(v[i], input, of_samples.data() + at, samples_values.data() + at);
        }
    }
};

// y += weights times the inputs in a sample's list
template <int WIDTH>
inline void forward_list(const float* w, List x, float* y) {
    Vec sum[WIDTH];
#pragma GCC unroll 8
    for (int i = 0; i < WIDTH; ++i) sum[i] = load(y + i * LANES);
    for (int k = 0; k < x.count; ++k) {
        const float* row = w + x.of[k] * WIDTH * LANES;
#pragma GCC unroll 8
        for (int i = 0; i < WIDTH; ++i) sum[i] += x.value[k] * load(row + i * LANES);
    }
#pragma GCC unroll 8
    for (int i = 0; i < WIDTH; ++i) store(y + i * LANES, sum[i]);
}

// Gradients of an input's weights, where `kept` (a word for each vector of weights) has a bit.
template <int WIDTH>
inline void backward_list(const float* dy, List x, const uint16_t* kept, float* g) {
    Vec sum[WIDTH] = {};
    for (int k = 0; k < x.count; ++k) {
        const float* row = dy + x.of[k] * WIDTH * LANES;
#pragma GCC unroll 8
        for (int i = 0; i < WIDTH; ++i) sum[i] += x.value[k] * load(row + i * LANES);
    }
    Ints bit{};
    for (int i = 0; i < LANES; ++i) bit[i] = 1 << i;
#pragma GCC unroll 8
    for (int i = 0; i < WIDTH; ++i) store(g + i * LANES, ((Ints{} + kept[i]) & bit) != 0 ? sum[i] : Vec{});
}

// Gradients of an input for the samples in its list, added to dx[sample].
template <int WIDTH>
inline void input_list(const float* w, const float* dy, List x, float* dx) {
    Vec weight[WIDTH];
#pragma GCC unroll 8
    for (int i = 0; i < WIDTH; ++i) weight[i] = load(w + i * LANES);
    for (int first = 0; first < x.count; first += LANES) {
        const int here = std::min(LANES, x.count - first);
        Vec product[LANES];
        for (int k = 0; k < LANES; ++k) {
            const float* row = dy + x.of[first + (k < here ? k : 0)] * WIDTH * LANES;
            product[k] = weight[0] * load(row);
#pragma GCC unroll 8
            for (int i = 1; i < WIDTH; ++i) product[k] += weight[i] * load(row + i * LANES);
        }
        const Vec sums = sums_of(product);
        for (int k = 0; k < here; ++k) dx[x.of[first + k]] += sums[k];
    }
}

class Dense {
    static constexpr int BATCH = 1024;  // weights whose gradients are kept until the optimiser comes

    int inputs, outputs;
    std::vector<Panel> panels;
    std::vector<uint16_t> kept;  // [vector of weights]: a bit for each
    Weights weights;
    Floats g;

  public:
    Dense(const uint8_t* mask, int inputs, int outputs, int widest, int moments) : inputs(inputs), outputs(outputs) {
        const int vectors = (outputs + LANES - 1) / LANES, count = (vectors + widest - 1) / widest;
        for (int i = 0; i < count; ++i) panels.push_back({i * vectors / count, (i + 1) * vectors / count - i * vectors / count});
        weights.resize(long(vectors) * LANES * inputs, moments);
        kept.resize(weights.awake.size());
        each_weight([&](long place, long k) { kept[k / LANES] |= (mask[place] != 0) << k % LANES; });
        g.resize(BATCH + WIDEST * LANES);
    }

    void read(const float* w, const float* m, const float* v, bool awake) {
        const float* from[] = {w, m, v};
        each_tensor([&](int i, float* own) {
            if (!from[i]) return;
            each_weight([&](long place, long k) { own[k] = kept[k / LANES] >> k % LANES & 1 ? from[i][place] : 0; });
        });
        weights.wake(awake);
    }
    void write(float* w, float* m, float* v) {
        float* to[] = {w, m, v};
        each_tensor([&](int i, const float* own) {
            if (to[i]) each_weight([&](long place, long k) { to[i][place] = own[k]; });
        });
    }

    void mark(uint8_t* used) const {
        for (const Panel& p : panels)
            for (int i = 0; i < inputs; ++i)
                for (int n = 0; n < p.vectors; ++n) used[i] |= kept[p.first * inputs + i * p.vectors + n] != 0;
    }

    // y += weights times x; what backward needs is kept in `lists`, where it will follow.
    void forward(const Rows& x, Lists& lists, Rows& y, int groups, bool shifted, bool training) const {
        memset(lists.panels.data(), 0, lists.panels.size() * sizeof(float));
        if (training) lists.by_input(x, shifted);
        lists.each_tile(x, groups, shifted, [&] {
            for (const Panel& p : panels) with_constant<WIDEST>(p.vectors, [&](auto width) { forward_panel<width>(p, lists); });
        });
        from_panels(lists, y, groups, shifted);
    }

    // A step of the weights; dx, unless null, gets the gradients of the inputs added to it.
    void backward(Lists& lists, const Gradient& dy, Vec* dx, const Rule& rule, Update update) {
        to_panels(lists, dy);
        for (const Panel& p : panels)
            with_constant<WIDEST>(p.vectors, [&](auto width) { backward_panel<width>(p, lists, dx, dy.stride, rule, update); });
    }

  private:
    template <int WIDTH>
    void forward_panel(const Panel& p, Lists& lists) const {
        const float* w = weights.w.data() + p.weights(inputs);
        float* to = lists.of_panel(p);
        for (int s = 0; s < lists.samples; ++s)
            if (const List list = lists.of_sample(s); list.count) forward_list<WIDTH>(w, list, to + s * WIDTH * LANES);
    }

    template <int WIDTH>
    void backward_panel(const Panel& p, Lists& lists, Vec* dx, long stride, const Rule& rule, Update update) {
        const float* dy = lists.of_panel(p);
        long done = p.weights(inputs), k = done;
        for (int i = 0; i < inputs; ++i, k += WIDTH * LANES) {
            const List list = lists.of_input(i);
            backward_list<WIDTH>(dy, list, kept.data() + k / LANES, g.data() + k - done);
            if (list.count) memset(weights.awake.data() + k / LANES, 1, WIDTH);
            if (dx) input_list<WIDTH>(weights.w.data() + k, dy, list, reinterpret_cast<float*>(dx + i * stride));
            const long end = k + WIDTH * LANES;
            if (end - done < BATCH && i + 1 < inputs) continue;
            update(rule, weights, g.data() - done, done, end);
            done = end;
        }
    }

    // LANES outputs of a panel at a time, between rows of samples and samples of outputs.
    template <class Act>
    void each_vector(Act act) const {
        for (const Panel& p : panels)
            for (int i = 0; i < p.vectors; ++i) act(p, (p.first + i) * LANES, i * LANES);
    }

    void from_panels(Lists& lists, Rows& y, int groups, bool shifted) const {
        each_vector([&](const Panel& p, int output, int at) {
            const int wide = p.vectors * LANES, here = std::min(LANES, outputs - output);
            const float* from = lists.of_panel(p) + at;
            for (int n = 0; n < groups; ++n) {
                Vec v[LANES];
                for (int i = 0; i < LANES; ++i) v[i] = load(from + (n * LANES + i) * wide);
                transpose(v);
                for (int i = 0; i < here; ++i) y.row(output + i)[n] += v[i];
            }
            for (int i = 0; shifted && i < here; ++i) y.row(output + i)[y.stride - 1] += splat(from[(lists.samples - 1) * wide + i]);
        });
    }

    void to_panels(Lists& lists, const Gradient& dy) const {
        each_vector([&](const Panel& p, int output, int at) {
            const int wide = p.vectors * LANES, here = std::min(LANES, outputs - output);
            float* to = lists.of_panel(p) + at;
            for (int n = 0; n < dy.groups; ++n) {
                Vec v[LANES] = {};
                for (int i = 0; i < here; ++i) v[i] = dy.at[(output + i) * dy.stride + n];
                transpose(v);
                for (int i = 0; i < LANES; ++i) store(to + (n * LANES + i) * wide, v[i]);
            }
            store(to + (lists.samples - 1) * wide, load(dy.sums + output));
        });
    }

    template <class Act>
    void each_tensor(Act act) {
        Floats* all[] = {&weights.w, &weights.m, &weights.v};
        for (int i = 0; i < 3; ++i)
            if (all[i]->size()) act(i, all[i]->data());
    }

    // Places in a tensor [output][input], and here.
    template <class Act>
    void each_weight(Act act) const {
        for (const Panel& p : panels) {
            const int wide = p.vectors * LANES, last = std::min((p.first + p.vectors) * LANES, outputs);
            for (int o = p.first * LANES; o < last; ++o)
                for (int i = 0; i < inputs; ++i) act(long(o) * inputs + i, p.weights(inputs) + long(i) * wide + o - p.first * LANES);
        }
    }
};

}  // namespace prunery
