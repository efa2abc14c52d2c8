// The optimisers, with torch's arithmetic: what a gradient does to weights and their moments.

#pragma once

#include <cmath>
#include <vector>

#include "fcsteps_lanes.h"

namespace prunery {

enum Kind : int32_t { SGD, MOMENTUM, NESTEROV, ADAM };

// What Python asks for; the order of the fields is that of fcsteps.py.
struct Optimiser {
    int32_t kind, decoupled;  // decoupled: weight decay as in AdamW
    double momentum, beta1, beta2, eps, decay;
    int moments() const { return kind == SGD ? 0 : kind == ADAM ? 2 : 1; }
};

// An optimiser at one step.
struct Rule {
    float rate, momentum, new1, beta2, new2, root, eps, decay, shrink;

    Rule(const Optimiser& o, double weight_decay, double lr, long step) {
        const bool adam = o.kind == ADAM;
        rate = adam ? lr / (1 - std::pow(o.beta1, step)) : lr;
        root = adam ? 1 / std::sqrt(1 - std::pow(o.beta2, step)) : 1;
        momentum = o.momentum;
        new1 = 1 - o.beta1;
        beta2 = o.beta2;
        new2 = 1 - o.beta2;
        eps = o.eps;
        decay = o.decoupled ? 0 : weight_decay;
        shrink = o.decoupled ? 1 - lr * weight_decay : 1;
    }
};

// An array of floats that begins at a vector and ends with one.
class Floats {
    std::vector<Vec> room;

  public:
    void resize(long count) { room.assign(whole(count, LANES) / LANES, Vec{}); }
    float* data() { return reinterpret_cast<float*>(room.data()); }
    const float* data() const { return reinterpret_cast<const float*>(room.data()); }
    long size() const { return long(room.size()) * LANES; }
};

// Weights in some order with their moments. A vector of them sleeps while its moments are zero and it has had no gradient: the step would
// change nothing, bit for bit.
struct Weights {
    Floats w, m, v;
    std::vector<uint8_t> awake;

    void resize(long count, int moments) {
        w.resize(count);
        if (moments > 0) m.resize(count);
        if (moments > 1) v.resize(count);
        awake.assign(w.size() / LANES, 0);
    }
    // To be called when w, m and v have been filled in.
    void wake(bool all) {
        const Floats* moments[] = {&m, &v};
        for (size_t i = 0; i < awake.size(); ++i) {
            awake[i] = all;
            for (const Floats* moment : moments)
                for (long k = i * LANES; k < long(i + 1) * LANES && k < moment->size(); ++k) {
                    uint32_t bits;
                    memcpy(&bits, moment->data() + k, 4);
                    awake[i] |= bits != 0;
                }
        }
    }
};

template <Kind KIND>
inline void step(const Rule& r, Vec g, float* w, float* m, float* v) {
    Vec weight = load(w) * r.shrink;
    g += r.decay * weight;
    if constexpr (KIND == SGD) {
        weight -= r.rate * g;
    } else if constexpr (KIND == ADAM) {
        const Vec old = load(m);
        const Vec mean = old + r.new1 * (g - old), square = r.beta2 * load(v) + r.new2 * g * g;
        weight -= r.rate * mean / (square_root(square) * r.root + r.eps);
        store(m, mean);
        store(v, square);
    } else {
        const Vec speed = r.momentum * load(m) + g;
        weight -= r.rate * (KIND == NESTEROV ? g + r.momentum * speed : speed);
        store(m, speed);
    }
    store(w, weight);
}

// Weights [from, to), both at vectors, by the gradients g[from], ...
template <Kind KIND>
void update(const Rule& r, Weights& weights, const float* g, long from, long to) {
    float *w = weights.w.data(), *m = weights.m.data(), *v = weights.v.data();
    uint8_t* awake = weights.awake.data();
    const bool lazy = KIND == SGD && r.decay == 0 && r.shrink == 1;  // without memory, no gradient is no step
    for (long k = from; k < to; k += LANES) {
        if (!awake[k / LANES]) continue;
        step<KIND>(r, load(g + k), w + k, m + k, v + k);
        if (lazy) awake[k / LANES] = 0;
    }
}

using Update = void (*)(const Rule&, Weights&, const float* g, long from, long to);

inline Update update_of(int kind) {
    constexpr Update all[] = {update<SGD>, update<MOMENTUM>, update<NESTEROV>, update<ADAM>};
    return all[kind];
}

}  // namespace prunery
