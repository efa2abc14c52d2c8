// Training of fully connected networks whose cost falls with the density of the weights: thousands of optimiser steps in a call.
//
// A batch is turned on entry so that its samples lie in the lanes of vectors: a feature is a row of ceil(batch / LANES) vectors.
// Each layer has the kernel that suits its density, fcsteps_sparse.h or fcsteps_dense.h; all between layers is rows.
//
// A network is for one thread at a time; different networks share nothing.

#include <memory>

#include "fcsteps_dense.h"
#include "fcsteps_loss.h"

namespace {

using namespace prunery;

// What Python asks for; the order of the fields is that of fcsteps.py.
struct Request {
    int32_t layers, batch;
    Optimiser optimiser;
    double bias_decay;
    const int32_t* widths;       // of the input and of each layer's output
    const float *scale, *shift;  // of each pixel: input = pixel * scale + shift
};

struct Layer {
    int inputs, outputs;
    std::unique_ptr<Sparse> sparse;  // one of the two
    std::unique_ptr<Dense> dense;
    Weights bias;
    bool has_bias = false;

    Layer(int inputs, int outputs, int moments) : inputs(inputs), outputs(outputs) { bias.resize(outputs, moments); }

    template <class Act>
    void with_kernel(Act act) {
        if (dense) act(*dense);
        else act(*sparse);
    }
    // act(first, second or third pointer, bias or its moment)
    template <class Pointer, class Act>
    void each_bias(Pointer const* pointers, Act act) {
        Floats* own[] = {&bias.w, &bias.m, &bias.v};
        for (int i = 0; i < 3; ++i)
            if (pointers[i] && own[i]->size()) act(pointers[i], own[i]->data());
    }
};

// The activations of a batch, and their gradients.
struct Room {
    Batch batch;
    std::vector<Rows> y;
    std::vector<std::vector<Vec>> dy;
    std::vector<std::unique_ptr<Lists>> lists;  // of the dense layers' inputs
    bool training;

    Room(int samples, const Pixels& pixels, const std::vector<Layer>& layers, bool training)
        : batch(samples, pixels), y(layers.size()), dy(layers.size()), lists(layers.size()), training(training) {
        for (size_t l = 0; l < layers.size(); ++l) {
            const Layer& layer = layers[l];
            y[l].resize(layer.outputs, batch.x.stride);
            if (training) dy[l].resize(layer.outputs * batch.x.stride);
            if (layer.dense) lists[l] = std::make_unique<Lists>(layer.inputs, layer.outputs, batch.lanes);
        }
    }
    const Rows& x(size_t l) const { return l ? y[l - 1] : batch.x; }
};

// ---- between layers

void begin(const Layer& layer, Rows& y, int groups, bool shifted) {
    for (int j = 0; j < layer.outputs; ++j) {
        Vec* row = y.row(j);
        const Vec bias = splat(layer.bias.w.data()[j]);
        for (int g = 0; g < groups; ++g) row[g] = bias;
        if (shifted) row[y.stride - 1] = Vec{};
    }
}

// The first layer's sums for all samples into those of each.
void share_out(Rows& y, int features, int groups) {
    for (int j = 0; j < features; ++j) {
        Vec* row = y.row(j);
        for (int g = 0; g < groups; ++g) row[g] += row[y.stride - 1];
    }
}

// A NaN stays one, as it does in torch.
void relu(Rows& y, int features, int groups) {
    for (int j = 0; j < features; ++j) {
        Vec* row = y.row(j);
        uint16_t* which = y.which.data() + j * y.stride;
        int lit = 0;
        for (int g = 0; g < groups; ++g) {
            const Ints off = row[g] <= 0.0f;
            row[g] = off ? Vec{} : row[g];
            which[lit] = g;
            lit += bits_of(~off) != 0;
        }
        y.lit[j] = lit;
    }
}

// The biases' gradients, and where `shifted` what the samples share into the last vector of each row.
void sum_samples(const Gradient& dy, int outputs, bool shifted) {
    for (int first = 0; first < outputs; first += LANES) {
        Vec sum[LANES] = {};
        for (int i = 0; i < LANES && first + i < outputs; ++i) {
            Vec* row = dy.at + (first + i) * dy.stride;
            for (int g = 0; g < dy.groups; ++g) sum[i] += row[g];
            if (shifted) row[dy.stride - 1] = sum[i];
        }
        store(dy.sums + first, sums_of(sum));
    }
}

// ---- the network

class Net {
    Request request;
    Pixels pixels;
    std::vector<Layer> layers;
    Floats bias_gradients;
    std::unique_ptr<Room> training, evaluating;
    static constexpr int EVALUATED = 64;  // samples at a time

  public:
    explicit Net(const Request& r) : request(r), pixels(r.widths[0], r.scale, r.shift) {
        for (int l = 0; l < r.layers; ++l) layers.emplace_back(r.widths[l], r.widths[l + 1], r.optimiser.moments());
        bias_gradients.resize(*std::max_element(r.widths + 1, r.widths + 1 + r.layers));
    }

    void set_mask(int l, const uint8_t* mask, bool dense) {
        Layer& layer = layers[l];
        const int moments = request.optimiser.moments();
        if (dense) layer.dense = std::make_unique<Dense>(mask, layer.inputs, layer.outputs, panel(), moments);
        else layer.sparse = std::make_unique<Sparse>(mask, layer.inputs, layer.outputs, block(layer), moments);
    }

    void read(int l, const float* const* w, const float* const* b) {
        const bool awake = request.optimiser.decay != 0;
        layers[l].with_kernel([&](auto& kernel) { kernel.read(w[0], w[1], w[2], awake); });
        layers[l].has_bias = b[0] != nullptr;
        layers[l].each_bias(b, [&](const float* from, float* own) { std::copy_n(from, layers[l].outputs, own); });
    }

    void write(int l, float* const* w, float* const* b) {
        layers[l].with_kernel([&](auto& kernel) { kernel.write(w[0], w[1], w[2]); });
        layers[l].each_bias(b, [&](float* to, const float* own) { std::copy_n(own, layers[l].outputs, to); });
    }

    void train(const Images& images, const int32_t* batches, const double* rates, long first, long steps, float* losses) {
        Room& room = ready(training, request.batch, true);
        const NoDenormals here;
        for (long i = 0; i < steps; ++i) {
            const int32_t* index = batches + i * request.batch;
            room.batch.enter(pixels, images, index, request.batch);
            if (i + 1 < steps) images.prefetch(index + request.batch, request.batch);
            losses[i] = forward(room).loss / room.batch.present;
            backward(room, rates[i], first + i + 1);
        }
    }

    Score evaluate(const Images& images, long count) {
        Room& room = ready(evaluating, EVALUATED, false);
        const NoDenormals here;
        Score total;
        for (long i = 0; i < count; i += EVALUATED) {
            int32_t index[2 * EVALUATED];
            for (int s = 0; s < 2 * EVALUATED; ++s) index[s] = i + s < count ? i + s : -1;
            room.batch.enter(pixels, images, index, EVALUATED);
            images.prefetch(index + EVALUATED, EVALUATED);
            const Score part = forward(room);
            total.loss += part.loss;
            total.hits += part.hits;
        }
        return total;
    }

    Images images(const uint8_t* bytes, const int32_t* labels) const { return {bytes, labels, pixels.count()}; }

  private:
    // Outputs in a block: the rows of a block should stay in the second-level cache. Blocks that stay in the first were measured: what
    // they save, the shorter columns cost.
    int block(const Layer& layer) const { return std::min(layer.outputs, std::clamp((256 << 10) / (4 * request.batch), 64, 65535)); }
    // Vectors in a panel: all samples' gradients should leave room in the first-level cache.
    int panel() const { return std::clamp<int>(20480 / (request.batch * sizeof(Vec)), 2, WIDEST); }

    Room& ready(std::unique_ptr<Room>& room, int samples, bool trains) {
        if (pixels.in_tile.empty()) {
            std::vector<uint8_t> reads(pixels.count());
            layers[0].with_kernel([&](auto& kernel) { kernel.mark(reads.data()); });
            pixels.choose(reads);
        }
        if (!room) room = std::make_unique<Room>(samples, pixels, layers, trains);
        return *room;
    }

    // With the gradient of the outputs where the room is for training.
    Score forward(Room& room) const {
        const int groups = room.batch.groups;
        for (size_t l = 0; l < layers.size(); ++l) {
            const Layer& layer = layers[l];
            const bool shifted = l == 0 && pixels.shifted;
            begin(layer, room.y[l], groups, shifted);
            if (layer.dense) layer.dense->forward(room.x(l), *room.lists[l], room.y[l], groups, shifted, room.training);
            else layer.sparse->forward(room.x(l), room.y[l].at.data());
            if (shifted) share_out(room.y[l], layer.outputs, groups);
            if (l + 1 < layers.size()) relu(room.y[l], layer.outputs, groups);
        }
        return softmax(room.batch, room.y.back(), layers.back().outputs, room.training ? room.dy.back().data() : nullptr);
    }

    void backward(Room& room, double rate, long step) {
        const Update update = update_of(request.optimiser.kind);
        const Rule rule(request.optimiser, request.optimiser.decay, rate, step);
        const Rule bias_rule(request.optimiser, request.bias_decay, rate, step);
        for (int l = int(layers.size()) - 1; l >= 0; --l) {
            Layer& layer = layers[l];
            const Gradient dy{room.dy[l].data(), room.batch.x.stride, room.batch.groups, bias_gradients.data()};
            Vec* dx = l ? room.dy[l - 1].data() : nullptr;
            if (dx) std::fill_n(dx, room.dy[l - 1].size(), Vec{});
            sum_samples(dy, layer.outputs, l == 0 && pixels.shifted);
            if (layer.has_bias) {
                std::fill(layer.bias.awake.begin(), layer.bias.awake.end(), 1);
                update(bias_rule, layer.bias, dy.sums, 0, layer.bias.w.size());
            }
            if (layer.dense) layer.dense->backward(*room.lists[l], dy, dx, rule, update);
            else layer.sparse->backward(room.x(l), dy.at, dx, rule, update);
        }
    }
};

}  // namespace

PRUNERY_EXPORT void* prunery_fc_make(const Request* request) { return new Net(*request); }

PRUNERY_EXPORT void prunery_fc_free(void* net) { delete static_cast<Net*>(net); }

// Each layer needs its mask [output][input] first, and the choice of its kernel.
PRUNERY_EXPORT void prunery_fc_mask(void* net, int layer, const uint8_t* mask, int dense) {
    static_cast<Net*>(net)->set_mask(layer, mask, dense);
}

// Weights or biases with first and second moments, three pointers of which any may be null.
PRUNERY_EXPORT void prunery_fc_read(void* net, int layer, const float* const* weights, const float* const* bias) {
    static_cast<Net*>(net)->read(layer, weights, bias);
}

PRUNERY_EXPORT void prunery_fc_write(void* net, int layer, float* const* weights, float* const* bias) {
    static_cast<Net*>(net)->write(layer, weights, bias);
}

// `batches` [steps][batch]: indices, and -1 behind the last where a batch is smaller. `first`: steps that were made before.
PRUNERY_EXPORT void prunery_fc_train(void* net, const uint8_t* pixels, const int32_t* labels, const int32_t* batches, const double* rates,
                                     int64_t first, int64_t steps, float* losses) {
    Net& own = *static_cast<Net*>(net);
    own.train(own.images(pixels, labels), batches, rates, first, steps, losses);
}

// The number of hits; the summed loss in *loss.
PRUNERY_EXPORT int64_t prunery_fc_evaluate(void* net, const uint8_t* pixels, const int32_t* labels, int64_t count, double* loss) {
    Net& own = *static_cast<Net*>(net);
    const Score score = own.evaluate(own.images(pixels, labels), count);
    *loss = score.loss;
    return score.hits;
}
