// Convolution of pictures in lanes, sparse or dense.
//
// One loop serves both: for each tile (a rectangle of output vectors that fits in registers), for each pass (a range of input channels whose part
// under the tile fits in the first-level cache), for each bundle of outputs: sums are begun or taken up, a stream of steps is run through,
// and the sums are put down or finished. All taps are aligned loads at an offset, so kernel size, padding, dilation and groups only matter when
// the stream is packed.
//
//   sparse   a step has a tap and a weight of its own for each output of the bundle: {offset x size, weight x size}. Outputs in a bundle have
//            about as many weights in the pass (they are sorted for it); shorter ones are filled up with zeros. Bundles hide the latency of
//            multiply-adds where tiles are small, and a branch is mispredicted once in a bundle instead of once in an output.
//   dense    a step is one tap for all outputs of the bundle: {offset, weight x size}. Taps that none of them has are left out.

#include "engine.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <numeric>

#include "activation.h"
#include "cost.h"
#include "tile.h"

namespace prunery::engine {

namespace conv_testing {
Choice forced;
}

namespace {

using conv_testing::Choice;
using cost::COSTS;

constexpr int MOST_SUMS = PRUNERY_VECTOR_REGISTERS == 32 ? 28 : 14;    // of a sparse tile: a weight and a product need registers too

// Registers that sums and inputs of a dense tile leave for a weight and, without fused multiply-adds, a product.
#if defined(__FMA__) || defined(__aarch64__)
constexpr int SPARE = 1;
#else
constexpr int SPARE = 2;
#endif
constexpr bool fits(int area, int size) { return area * size + area + SPARE <= PRUNERY_VECTOR_REGISTERS; }
constexpr int BUNDLE = 8;                                              // outputs at most, sparse

union Word {
    int32_t offset;
    float weight;
};

struct Bundle {
    const Word* stream;
    const int* outputs;
    int steps, size;
};

using Kernel = void (*)(const Call&, const Bundle* first, const Bundle* last);

// Four outputs of a bundle, from `o` on: offsets are loaded in pairs, weights together.
template <int H, int W, int STRIDE, int SIZE>
inline void add_four(const Call& c, Vec (&sum)[SIZE][H][W], int o, const Word* s) {
    int64_t offset[2];
    memcpy(offset, s + o, sizeof offset);
    const Vec four = load_four(&s[SIZE + o].weight);
    add_tap<H, W, STRIDE>(c, sum[o], c.in + int32_t(offset[0]), one_of<0>(four));
    add_tap<H, W, STRIDE>(c, sum[o + 1], c.in + (offset[0] >> 32), one_of<1>(four));
    add_tap<H, W, STRIDE>(c, sum[o + 2], c.in + int32_t(offset[1]), one_of<2>(four));
    add_tap<H, W, STRIDE>(c, sum[o + 3], c.in + (offset[1] >> 32), one_of<3>(four));
}

template <int H, int W, int STRIDE, int SIZE>
inline void add_step(const Call& c, Vec (&sum)[SIZE][H][W], const Word* s) {
    if constexpr (SIZE % 4 == 0) each<SIZE / 4>([&](auto i) { add_four<H, W, STRIDE>(c, sum, 4 * i, s); });
    else each<SIZE>([&](auto o) { add_tap<H, W, STRIDE>(c, sum[o], c.in + s[o].offset, broadcast(s[SIZE + o].weight)); });
}

template <int H, int W, int STRIDE, int SIZE>
PRUNERY_KERNEL void sparse_kernel(const Call& call, const Bundle* b, const Bundle* last) {
    const Call c = call;
    for (; b != last; ++b) {
        Vec sum[SIZE][H][W];
        take_up(c, sum, b->outputs);
        const Word* s = b->stream;
        for (int step = b->steps; step; --step, s += 2 * SIZE) add_step<H, W, STRIDE>(c, sum, s);
        put_down(c, sum, b->outputs);
    }
}

template <int H, int W, int SIZE>
PRUNERY_KERNEL void dense_kernel(const Call& call, const Bundle* b, const Bundle* last) {
    const Call c = call;
    for (; b != last; ++b) {
        Vec sum[SIZE][H][W];
        take_up(c, sum, b->outputs);
        const Word* s = b->stream;
        for (int step = b->steps; step; --step, s += 1 + SIZE) {
            const char* p = c.in + s[0].offset;
            Vec in[H][W];
            each<H, W>([&](auto y, auto x) { in[y][x] = vector_at(p + y * c.in_row + x * c.in_step); });
            each<SIZE>([&](auto o) {
                const Vec w = broadcast(s[1 + o].weight);
                each<H, W>([&](auto y, auto x) { sum[o][y][x] += w * in[y][x]; });
            });
        }
        put_down(c, sum, b->outputs);
    }
}

// ---- kernels by number

Kernel find_sparse(int h, int w, int stride, int size) {
    return among<Kernel, 1, 2, 4>(h, [&](auto H) {
        return among<Kernel, 1, 2, 3, 4, 7>(w, [&](auto W) {
            return among<Kernel, 0, 1, 2>(stride, [&](auto S) {
                return among<Kernel, 1, 2, 4, 8>(size, [&](auto N) -> Kernel {
                    if constexpr (H * W * N > MOST_SUMS || H * W > 16 || (S == 0 && W > 1)) return nullptr;
                    else return sparse_kernel<H, W, S, N>;
                });
            });
        });
    });
}

Kernel find_dense(int h, int w, int size) {
    return among<Kernel, 1, 2, 4>(h, [&](auto H) {
        return among<Kernel, 1, 2, 3, 4>(w, [&](auto W) {
            return among<Kernel, 1, 2, 3, 4, 6, 12, 24>(size, [&](auto N) -> Kernel {
                if constexpr (H * W > 4 || !fits(H * W, N)) return nullptr;
                else return dense_kernel<H, W, N>;
            });
        });
    });
}

// Sizes of bundles, large ones first: any number of outputs can be put together from them.
constexpr int SPARSE_SIZES[] = {8, 4, 2, 1}, DENSE_SIZES[] = {24, 12, 6, 4, 3, 2, 1};

int largest_size(bool dense, int most) {
    for (const int* size = dense ? DENSE_SIZES : SPARSE_SIZES;; ++size)
        if (*size <= most) return *size;
}

// ---- the layer

// The weights that are not zero, by output.
struct Rows {
    std::vector<long> start;
    std::vector<int> input;
    std::vector<float> value;

    explicit Rows(const Weights& w) : start{0} {
        for (int o = 0; o < w.outputs; ++o) {
            const long first = w.sparse() ? w.start[o] : long(o) * w.inputs, last = w.sparse() ? w.start[o + 1] : first + w.inputs;
            for (long k = first; k < last; ++k) {
                const float v = w.value(k);
                if (v == 0) continue;
                input.push_back(w.sparse() ? w.index(k) : k - first);
                value.push_back(v);
            }
            start.push_back(input.size());
        }
    }
    long kept() const { return input.size(); }
};

// An operation and its places, as the planner of a kernel sees them.
struct Layer {
    const Op& op;
    const Place &in, &out;
    const Place* residual;
    Rows rows;
    int outputs, channels, area;  // of a group: outputs, input channels; places of a kernel

    Layer(const Op& op, const Place& in, const Place& out, const Place* residual)
        : op(op), in(in), out(out), residual(residual), rows(op.weights), outputs(op.weights.outputs / op.groups),
          channels(op.weights.inputs / (op.kernel_h * op.kernel_w)), area(op.kernel_h * op.kernel_w) {}

    int stride() const { return op.stride_w <= 2 ? op.stride_w : 0; }
    double pixels() const { return double(out.tensor.rows) * out.tensor.columns; }

    // The rows and columns of input vectors that lie under a tile of outputs, and their bytes in whole cache lines.
    double rows_under(int h) const { return std::min((h - 1) * op.stride_h + 1 + (op.kernel_h - 1) * op.dilation_h, h * op.kernel_h); }
    double columns_under(int w) const { return std::min((w - 1) * op.stride_w + 1 + (op.kernel_w - 1) * op.dilation_w, w * op.kernel_w); }
    double bytes_under(int h, int w) const { return rows_under(h) * (columns_under(w) * VECTOR + cost::CACHE_LINE - VECTOR); }
};

// ---- the choice of a kernel, by predicted time alone

struct Prediction {
    Choice choice;
    double ns = 1e30;
};

// What the terms of a prediction are made of. A pair is an output and an input channel that it may see.
struct Figures {
    double vectors, tiles, area;  // of a plane of outputs; tiles in it; vectors in a tile
    double outputs, pairs, taps;  // of all groups; taps: weights of a pair
    double passes, under;         // under: vectors of an input channel that lie under a tile
    double vast;                  // 1 where input and output together do not stay in the second-level cache

    Figures(const Layer& l, const Choice& c)
        : vectors(double(l.out.block_h) * l.out.block_w), tiles(double(pieces(l.out.block_h, c.h)) * pieces(l.out.block_w, c.w)), area(vectors / tiles),
          outputs(l.op.weights.outputs), pairs(outputs * l.channels), taps(l.rows.kept() / pairs), passes(pieces(l.channels, c.channels)),
          under(l.rows_under(c.h) * l.columns_under(c.w)), vast(l.in.bytes + l.out.bytes > cost::NEAR_BYTES) {}

    // How many of the vectors under a tile some outputs touch, at random.
    double touched(double some) const { return under * (1 - std::exp(-some * taps * area / under)); }
};

// How often a bundle finds that a vector of its input is not near any more, as a share. A bundle that touches few returns to them at random; one
// that touches all returns in order, when the first are gone, but then the processor fetches ahead of it.
double far_share(const Layer& l, const Choice& c, double touched) {
    const double bytes = l.bytes_under(c.h, c.w) * c.channels;
    return bytes <= cost::NEAREST_BYTES ? 0 : std::pow(1 - cost::NEAREST_BYTES / bytes, 1 - touched) * (1 - touched / 2);
}

double predict_sparse(const Layer& l, const Choice& c) {
    const Figures f(l, c);
    const double mean = l.rows.kept() / (f.outputs * f.passes), spread = std::sqrt(mean * (1 - f.taps / l.area));
    const double weights = l.rows.kept() + f.outputs * f.passes * spread * cost::UNEVEN * (1 - 1.0 / c.size);
    const double lines = f.tiles * f.pairs / l.outputs * f.touched(l.outputs), again = f.tiles * f.pairs / c.size * f.touched(c.size);
    return weights * (f.vectors * COSTS.fma + f.tiles * (c.size % 4 ? COSTS.weight : COSTS.of_four)) +
           f.outputs * f.passes * (f.vectors * COSTS.sum + f.tiles / c.size * COSTS.bundle) + lines * (COSTS.line + f.vast * COSTS.vast) +
           again * far_share(l, c, f.touched(c.size) / f.under) * COSTS.far + f.vast * f.outputs * f.vectors * COSTS.vast;
}

double predict_dense(const Layer& l, const Choice& c) {
    const Figures f(l, c);
    const double steps = f.pairs * l.area / c.size * (1 - std::pow(1 - f.taps / l.area, c.size));
    const double adding = c.size * f.area * COSTS.dense_fma, loading = (f.area + (1 + c.size) * cost::LOAD_OF_ONE) * COSTS.fma;
    const double lines = f.tiles * f.pairs / l.outputs * f.under, again = f.tiles * f.pairs / c.size * f.under;
    return steps * f.tiles * std::max(adding, loading) + f.outputs * f.passes * f.vectors * COSTS.sum + again * far_share(l, c, 1) * COSTS.far +
           f.vast * (lines + f.outputs * f.vectors) * COSTS.vast;
}

double predict(const Layer& l, const Choice& c) {
    const bool more = l.op.activation != Activation::NONE && l.op.activation != Activation::RELU;
    const double finish = more ? double(l.op.weights.outputs) * l.out.block_h * l.out.block_w * COSTS.activation : 0;
    return finish + (c.dense ? predict_dense(l, c) : predict_sparse(l, c));
}

bool possible(const Layer& l, const Choice& c) {
    if (c.h > l.out.block_h || c.w > l.out.block_w || c.size > l.outputs) return false;
    if ((c.w > 4 && l.out.block_w % c.w) || (c.h > 2 && l.out.block_h % c.h)) return false;  // there would be pieces of sizes that have no kernel
    return c.dense ? find_dense(c.h, c.w, c.size) : find_sparse(c.h, c.w, l.stride(), c.size);
}

void consider(const Layer& l, const Choice& c, Prediction& best) {
    if (!possible(l, c)) return;
    const double ns = predict(l, c);
    if (ns < best.ns) best = {c, ns};
}

// As many channels in a pass as take some power of two of bytes under a tile, or half as much again; or all.
void consider_passes(const Layer& l, Choice c, Prediction& best) {
    c.channels = l.channels;
    consider(l, c, best);
    for (long bytes = 8 << 10; bytes <= 96 << 10; bytes += bytes & (bytes - 1) ? bytes / 3 : bytes / 2) {
        const int most = std::max(1, int(bytes / l.bytes_under(c.h, c.w))), passes = pieces(l.channels, most);
        c.channels = pieces(l.channels, passes);
        if (passes > 1) consider(l, c, best);
    }
}

Prediction best_sparse(const Layer& l) {
    Prediction best;
    for (int h : {4, 2, 1})
        for (int w : {7, 4, 3, 2, 1})
            for (int size : SPARSE_SIZES) consider_passes(l, {false, h, w, size, 0}, best);
    return best;
}

// As many outputs in a bundle as there are registers for.
Prediction best_dense(const Layer& l) {
    Prediction best;
    for (int h : {4, 2, 1})
        for (int w : {4, 3, 2, 1}) {
            int most = l.outputs;
            while (most > 1 && !fits(h * w, most)) --most;
            consider_passes(l, {true, h, w, largest_size(true, most), 0}, best);
        }
    return best;
}

// ---- the step

struct Tile {
    long in, out, residual;
    int h, w;
    double before;  // vectors in the tiles before
};

struct Pass {
    long plane;  // of its first channel
    int channel, channels;
    bool first, last;
    int chunk, chunks;  // its group's
    size_t bundles;     // where starts has those of its first chunk
};

// Outputs that stay together: sorted into bundles pass by pass, and computed by one thread.
struct Chunk {
    int first, last;
    double before;  // weights in the chunks before
};

class Conv : public Step {
  public:
    Conv(const Layer& layer, const Choice& choice) : choice(choice), in(layer.in), out(layer.out) {
        if (layer.residual) residual = *layer.residual;
        adds = layer.residual;
        bias = bias_of(layer.op);
        call = call_of(layer.op, in, out, residual, bias.data());
        cut_chunks(layer);
        cut_passes(layer);
        cut_tiles(layer);
        pack(layer);
        own_bytes = stream.size() * sizeof(Word) + bundles.size() * sizeof(Bundle) + (order.size() + starts.size()) * sizeof(int);
        density = layer.op.weights.density();
        multiply_adds = carried_out * layer.pixels();
        name = layer.op.name;
    }

    void run(const Memory& memory, int part, int parts) const override {
        const double all = vectors * weight, from = all * part / parts, to = all * (part + 1) / parts;
        for (size_t t = 0; t < tiles.size(); ++t) {
            const double area = double(tiles[t].h) * tiles[t].w;
            const int first = chunk_at((from - tiles[t].before * weight) / area), last = chunk_at((to - tiles[t].before * weight) / area);
            if (first < last) run_tile(memory, tiles[t], kernels.data() + t * SIZES, first, last);
        }
    }

  private:
    static constexpr int SIZES = 25;
    Choice choice;
    Place in, out, residual;
    bool adds = false;
    Call call{};
    std::vector<float> bias;
    std::vector<Tile> tiles;
    std::vector<Kernel> kernels;  // SIZES of each tile
    std::vector<Pass> passes;
    std::vector<Chunk> chunks;
    std::vector<int> starts;  // of each chunk of each pass: its first bundle
    std::vector<Bundle> bundles;
    std::vector<int> order;  // the outputs of bundles
    std::vector<Word> stream;
    double vectors = 0, weight = 0, carried_out = 0;

    // The first chunk that begins at a share of the weights or later.
    int chunk_at(double share) const {
        return std::lower_bound(chunks.begin(), chunks.end(), share, [](const Chunk& c, double s) { return c.before < s; }) - chunks.begin();
    }

    void run_tile(const Memory& memory, const Tile& t, const Kernel* kernel, int first, int last) const {
        Call c = call;
        c.out = memory.at(out) + t.out;
        c.residual = adds ? memory.at(residual) + t.residual : nullptr;
        for (const Pass& p : passes) {
            const int from = std::max(first, p.chunk), to = std::min(last, p.chunk + p.chunks);
            if (from >= to) continue;
            c.in = memory.at(in) + t.in + p.plane;
            c.first = p.first;
            c.last = p.last;
            const int* start = starts.data() + p.bundles - p.chunk;
            if (p.last && c.activate)
                for (int chunk = from; chunk < to; ++chunk) activate_chunk(c, t, kernel, bundles.data() + start[chunk], bundles.data() + start[chunk + 1], chunks[chunk]);
            else run_bundles(c, kernel, bundles.data() + start[from], bundles.data() + start[to]);
        }
    }

    // Bundles name their outputs one after the other.
    static void activate_chunk(const Call& c, const Tile& t, const Kernel* kernel, const Bundle* first, const Bundle* last, const Chunk& chunk) {
        run_bundles(c, kernel, first, last);
        c.activate(c, first->outputs, chunk.last - chunk.first, t.h, t.w);
    }

    static void run_bundles(const Call& c, const Kernel* kernel, const Bundle* first, const Bundle* last) {
        while (first != last) {
            const Bundle* next = first + 1;
            while (next != last && next->size == first->size) ++next;
            kernel[first->size](c, first, next);
            first = next;
        }
    }

    void cut_chunks(const Layer& l) {
        const int rows = choice.dense ? choice.size : choice.size * 8;
        for (int g = 0; g < l.op.groups; ++g)
            for (int first = 0; first < l.outputs; first += rows) {
                const int from = g * l.outputs + first, to = g * l.outputs + std::min(first + rows, l.outputs);
                chunks.push_back({from, to, weight});
                weight += l.rows.start[to] - l.rows.start[from] + to - from;
            }
    }

    void cut_passes(const Layer& l) {
        const int count = pieces(l.channels, choice.channels), per_group = chunks.size() / l.op.groups;
        for (int g = 0; g < l.op.groups; ++g)
            for (int i = 0; i < count; ++i) {
                const int first = long(l.channels) * i / count, last = long(l.channels) * (i + 1) / count;
                passes.push_back({(long(g) * l.channels + first) * in.plane, first, last - first, i == 0, i + 1 == count, g * per_group, per_group, 0});
            }
    }

    void cut_tiles(const Layer& l) {
        const int down = pieces(out.block_h, choice.h), across = pieces(out.block_w, choice.w);
        for (int i = 0; i < down; ++i)
            for (int j = 0; j < across; ++j) {
                const long y = long(out.block_h) * i / down, x = long(out.block_w) * j / across;
                const int h = long(out.block_h) * (i + 1) / down - y, w = long(out.block_w) * (j + 1) / across - x;
                tiles.push_back({y * call.in_row + x * call.in_step, y * out.row + x * VECTOR, y * residual.row + x * VECTOR, h, w, vectors});
                vectors += double(h) * w;
                for (int size = 0; size < SIZES; ++size)
                    kernels.push_back(choice.dense ? find_dense(h, w, size) : find_sparse(h, w, l.stride(), size));
            }
    }

    // ---- packing. Bundles first hold numbers of words and outputs, which become addresses when all are there.

    void pack(const Layer& l) {
        std::vector<long> next(l.rows.start.begin(), l.rows.start.end() - 1), end(next);
        std::vector<long> first_word, first_output;
        for (Pass& p : passes) {
            p.bundles = starts.size();
            for (int c = p.chunk; c < p.chunk + p.chunks; ++c) {
                starts.push_back(bundles.size());
                for (int o = chunks[c].first; o < chunks[c].last; ++o)
                    for (end[o] = next[o]; end[o] < l.rows.start[o + 1] && l.rows.input[end[o]] < (p.channel + p.channels) * l.area;) ++end[o];
                pack_chunk(l, p, chunks[c], next, end);
                for (int o = chunks[c].first; o < chunks[c].last; ++o) next[o] = end[o];
            }
            starts.push_back(bundles.size());
        }
        const Word* word = stream.data();
        const int* output = order.data();
        for (Bundle& b : bundles) {
            b.stream = word;
            b.outputs = output;
            word += long(b.steps) * (choice.dense ? 1 + b.size : 2 * b.size);
            output += b.size;
        }
    }

    void pack_chunk(const Layer& l, const Pass& p, const Chunk& c, const std::vector<long>& next, const std::vector<long>& end) {
        std::vector<int> rows(c.last - c.first);
        std::iota(rows.begin(), rows.end(), c.first);
        if (!choice.dense && choice.size > 1)
            std::stable_sort(rows.begin(), rows.end(), [&](int a, int b) { return end[a] - next[a] > end[b] - next[b]; });
        for (size_t i = 0; i < rows.size();) {
            const int size = largest_size(choice.dense, std::min<int>(rows.size() - i, choice.size));
            const int steps = choice.dense ? pack_dense(l, p, &rows[i], size, next, end) : pack_sparse(l, p, &rows[i], size, next, end);
            if (steps || p.first || p.last) {
                bundles.push_back({nullptr, nullptr, steps, size});
                order.insert(order.end(), &rows[i], &rows[i] + size);
                carried_out += double(steps) * size;
            }
            i += size;
        }
    }

    int32_t offset(const Layer& l, const Pass& p, int input) const {
        const long o = tap_offset(l.op, l.in, input) - p.channel * l.in.plane;
        if (o != int32_t(o)) throw Refused("the picture is too large for the kernel: " + l.op.name);
        return int32_t(o);
    }

    // Rows are in order of falling length: the first one's taps serve those that have no more of their own.
    int pack_sparse(const Layer& l, const Pass& p, const int* rows, int size, const std::vector<long>& next, const std::vector<long>& end) {
        const int steps = end[rows[0]] - next[rows[0]];
        for (int step = 0; step < steps; ++step) {
            Word words[2 * BUNDLE];
            for (int i = 0; i < size; ++i) {
                const long own = next[rows[i]] + step;
                const bool has = own < end[rows[i]];
                words[i].offset = offset(l, p, l.rows.input[has ? own : next[rows[0]] + step]);
                words[size + i].weight = has ? l.rows.value[own] : 0;
            }
            stream.insert(stream.end(), words, words + 2 * size);
        }
        return steps;
    }

    int pack_dense(const Layer& l, const Pass& p, const int* rows, int size, std::vector<long> next, const std::vector<long>& end) {
        for (int steps = 0;; ++steps) {
            int tap = -1;
            for (int i = 0; i < size; ++i)
                if (next[rows[i]] < end[rows[i]] && (tap < 0 || l.rows.input[next[rows[i]]] < tap)) tap = l.rows.input[next[rows[i]]];
            if (tap < 0) return steps;
            Word word;
            word.offset = offset(l, p, tap);
            stream.push_back(word);
            for (int i = 0; i < size; ++i) {
                long& own = next[rows[i]];
                const bool has = own < end[rows[i]] && l.rows.input[own] == tap;
                word.weight = has ? l.rows.value[own++] : 0;
                stream.push_back(word);
            }
        }
    }
};

std::string title(const Choice& c) {
    return (c.dense ? "dense " : "sparse ") + std::to_string(c.h) + "x" + std::to_string(c.w) + " tiles, " + std::to_string(c.size) + " outputs";
}

}  // namespace

StepPtr conv(const Op& op, const Place& in, const Place& out, const Place* residual) {
    const Layer layer(op, in, out, residual);
    const Prediction sparse = best_sparse(layer), dense = best_dense(layer);
    Prediction best = dense.ns < sparse.ns ? dense : sparse;
    Choice forced = conv_testing::forced;
    if (forced.h) {
        if (!forced.channels) forced.channels = layer.channels;
        best = {forced, predict(layer, forced)};
    }
    auto step = std::make_unique<Conv>(layer, best.choice);
    char why[120];
    snprintf(why, sizeof why, "predicted %.1f us sparse, %.1f us dense", sparse.ns / 1e3, dense.ns / 1e3);
    step->kernel = title(best.choice);
    step->why = why;
    step->predicted_ns = best.ns;
    return step;
}

}  // namespace prunery::engine
