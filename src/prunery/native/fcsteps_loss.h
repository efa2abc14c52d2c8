// Softmax cross-entropy: the loss, the hits, and the gradient of what went in.

#pragma once

#include "fcsteps_batch.h"

namespace prunery {

struct Score {
    double loss = 0;  // summed over samples
    int64_t hits = 0;

    // Lanes below `count`, whose losses are gap + log(sum). One logarithm of a product serves all lanes.
    void add(Vec gap, Vec sum, Ints hit, int count) {
        double product = 1, gaps = 0;
        for (int i = 0; i < count; ++i) {
            product *= sum[i];
            gaps += gap[i];
            hits += hit[i] != 0;
        }
        loss += gaps + std::log(product);
    }
};

// Group g of a batch with the outputs z; dy, unless null, gets the gradient of the mean loss. Of equal outputs the first is the answer.
inline void softmax(const Batch& batch, const Rows& z, int classes, int g, Vec* dy, Score& score) {
    const long stride = z.stride;
    const Ints label = batch.labels[g];
    Vec best = z.at[g], chosen{};
    Ints answer{};
    for (int c = 0; c < classes; ++c) {
        const Vec v = z.at[c * stride + g];
        const Ints better = v > best;
        best = better ? v : best;
        answer = better ? Ints{} + c : answer;
        chosen = label == c ? v : chosen;
    }
    Vec sum{};
    for (int c = 0; c < classes; ++c) {
        const Vec e = exponential(z.at[c * stride + g] - best);
        sum += e;
        if (dy) dy[c * stride + g] = e;
    }
    score.add(best - chosen, sum, answer == label, std::min(LANES, batch.present - g * LANES));
    if (!dy) return;
    const Vec share = numbers(g * LANES) < batch.present ? splat(1.0f / batch.present) : Vec{};
    const Vec scale = share / sum;
    for (int c = 0; c < classes; ++c) {
        Vec& d = dy[c * stride + g];
        d = d * scale - (label == c ? share : Vec{});
    }
}

inline Score softmax(const Batch& batch, const Rows& z, int classes, Vec* dy) {
    Score score;
    for (int g = 0; g < batch.groups; ++g) softmax(batch, z, classes, g, dy, score);
    return score;
}

}  // namespace prunery
