// Convolution of each channel by itself, in lanes.
//
// A channel is a list of taps, those with a weight of zero left out; a tile of outputs stays in registers while the taps are added. Channels
// are taken so many at a time that their input fits in the first-level cache, for each tile in turn.

#include "engine.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "cost.h"
#include "tile.h"

namespace prunery::engine {

namespace {

using cost::COSTS;

constexpr int MOST_SUMS = PRUNERY_VECTOR_REGISTERS == 32 ? 28 : 14;
constexpr long NEAR_BYTES = 16 << 10;

struct Tap {
    int32_t offset;
    float weight;
};

struct Channels {
    const Tap* taps;
    const int* start;
    long plane;  // of the input
    int first, last;
};

using Kernel = void (*)(const Call&, const Channels&);

template <int H, int W, int STRIDE>
PRUNERY_KERNEL void depthwise_kernel(const Call& call, const Channels& channels) {
    const Call c = call;
    for (int channel = channels.first; channel < channels.last; ++channel) {
        const char* in = c.in + channel * channels.plane;
        Vec sum[1][H][W];
        take_up(c, sum, &channel);
        const Tap* end = channels.taps + channels.start[channel + 1];
        for (const Tap* t = channels.taps + channels.start[channel]; t != end; ++t) add_tap<H, W, STRIDE>(c, sum[0], in + t->offset, broadcast(t->weight));
        put_down(c, sum, &channel);
    }
}

Kernel find_kernel(int h, int w, int stride) {
    return among<Kernel, 1, 2, 3, 4>(h, [&](auto H) {
        return among<Kernel, 1, 2, 3, 4, 5, 6, 7>(w, [&](auto W) {
            return among<Kernel, 0, 1, 2>(stride, [&](auto S) -> Kernel {
                if constexpr (H * W > MOST_SUMS || (S == 0 && W > 1)) return nullptr;
                else return depthwise_kernel<H, W, S>;
            });
        });
    });
}

struct Tile {
    long in, out, residual;
    Kernel kernel;
    int h, w;
};

class Depthwise : public Step {
  public:
    Depthwise(const Op& op, const Place& i, const Place& o, const Place* r) : in(i), out(o), residual(r ? *r : Place{}), adds(r), bias(bias_of(op)) {
        call = call_of(op, in, out, residual, bias.data());
        channels.resize(out.planes);
        std::iota(channels.begin(), channels.end(), 0);
        pack(op);
        cut(op);
        name = op.name;
        density = op.weights.density();
        multiply_adds = double(taps.size()) * out.tensor.rows * out.tensor.columns;
        own_bytes = taps.size() * sizeof(Tap) + (start.size() + bias.size()) * 4;
        predicted_ns = predict();
    }

    void run(const Memory& memory, int part, int parts) const override {
        const int blocks = pieces(out.planes, together);
        const Share share(long(blocks) * tiles.size(), part, parts);
        for (long i = share.first; i < share.last; ++i) {
            const int block = i / tiles.size();
            const Tile& t = tiles[i % tiles.size()];
            Call c = call;
            c.in = memory.at(in) + t.in;
            c.out = memory.at(out) + t.out;
            c.residual = adds ? memory.at(residual) + t.residual : nullptr;
            const int first = long(out.planes) * block / blocks, last = long(out.planes) * (block + 1) / blocks;
            t.kernel(c, {taps.data(), start.data(), in.plane, first, last});
            if (c.activate) c.activate(c, channels.data() + first, last - first, t.h, t.w);
        }
    }

  private:
    Place in, out, residual;
    bool adds;
    std::vector<float> bias;
    Call call{};
    std::vector<Tap> taps;
    std::vector<int> start{0}, channels;  // of each channel its first tap, and its number
    std::vector<Tile> tiles;
    int together = 1;  // channels

    void pack(const Op& op) {
        const Weights& w = op.weights;
        for (int o = 0; o < w.outputs; ++o) {
            const long first = w.sparse() ? w.start[o] : long(o) * w.inputs, last = w.sparse() ? w.start[o + 1] : first + w.inputs;
            for (long k = first; k < last; ++k) {
                const long offset = tap_offset(op, in, w.sparse() ? w.index(k) : k - first);
                if (offset != int32_t(offset)) throw Refused("the picture is too large for the kernel: " + op.name);
                if (w.value(k) != 0) taps.push_back({int32_t(offset), w.value(k)});
            }
            start.push_back(taps.size());
        }
    }

    void cut(const Op& op) {
        const int across = pieces(out.block_w, op.stride_w <= 2 ? 7 : 1), wide = pieces(out.block_w, across);
        const int down = pieces(out.block_h, std::min(4, MOST_SUMS / wide));
        for (int i = 0; i < down; ++i)
            for (int j = 0; j < across; ++j) {
                const long y = long(out.block_h) * i / down, x = long(out.block_w) * j / across;
                const int h = long(out.block_h) * (i + 1) / down - y, w = long(out.block_w) * (j + 1) / across - x;
                const Kernel kernel = find_kernel(h, w, op.stride_w <= 2 ? op.stride_w : 0);
                tiles.push_back({y * call.in_row + x * call.in_step, y * out.row + x * VECTOR, y * residual.row + x * VECTOR, kernel, h, w});
            }
        kernel = "depthwise " + std::to_string(pieces(out.block_h, down)) + "x" + std::to_string(wide);
        why = "each output has one input channel";
        together = std::max<long>(1, NEAR_BYTES / (in.plane + out.plane));
    }

    double predict() const {
        const double vectors = double(out.block_h) * out.block_w, outputs = out.planes * vectors, inputs = in.planes * double(in.plane) / VECTOR;
        const double vast = in.bytes + out.bytes > cost::NEAR_BYTES ? COSTS.vast : 0;
        return taps.size() * (vectors * COSTS.fma + tiles.size() * COSTS.weight) + outputs * (COSTS.sum + vast + (call.activate ? COSTS.activation : 0)) +
               inputs * (COSTS.line + vast) + double(out.planes) * tiles.size() * COSTS.bundle;
    }
};

}  // namespace

StepPtr depthwise(const Op& op, const Place& in, const Place& out, const Place* residual) {
    return std::make_unique<Depthwise>(op, in, out, residual);
}

}  // namespace prunery::engine
