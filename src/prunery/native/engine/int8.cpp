// Convolutions on bytes, in lanes.
//
// A 32-bit lane holds four channels of a pixel, and one instruction (VNNI) adds its four products with four weights to a 32-bit sum. So a weight that is
// kept costs as much as four of them that meet in one quad of channels and one place of the kernel. Two kernels:
//   rows    for each output its own list of quads that are not all zero, with where they lie in the input: sums of a tile of pixels stay in
//           registers while the list runs by;
//   fours   for each four outputs one list, with the weights of all four: where most quads are kept, or where channels go their own way (depthwise),
//           a vector of the input is loaded once for four sums.
// The input of a tile is read once for each output: where it is larger than the first-level cache, the channels are taken in blocks, and sums wait in
// memory meanwhile. Which kernel, which tiles and how many blocks is chosen by a small model of the time that each would take.
//
// Processors without the instruction multiply bytes in pairs, whose sums of 16 bits saturate: quads in which that could happen are split in two.

#include "int8_tiles.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "activation.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace prunery::engine {

bool has_vnni() {
    const char* wanted = getenv("PRUNERY_VNNI");
    if (wanted && !strcmp(wanted, "0")) return false;
    // The library's level says that the operating system saves the registers.
#ifdef PRUNERY_HAS_VNNI
    unsigned a = 0, b = 0, c = 0, d = 0;
#if defined(__AVX512F__)
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c >> 11 & 1);
#else
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
#endif
#else
    return false;
#endif
}

Frame::Frame(const Op& op, const Place& in, const Place& out, const Place* r)
    : in(in), out(out), residual(r ? *r : Place{}), adds(r), to_floats(out.tensor.type == Type::F32), range(op, out.tensor),
      activation(op.activation), slope(op.slope) {
    const Weights& w = op.weights;
    if (!w.bytes || in.tensor.type != Type::U8 || (r && (to_floats || r->tensor.type != Type::U8)))
        throw Refused(op.name + ": no kernel for this mixture of bytes and floats");
    const long size = (w.outputs + LANES - 1) / LANES * LANES;
    start.assign(size, 0);
    multiplier.assign(size, 0);
    const double so = to_floats ? 1 : double(out.tensor.scale);
    if (r) residual_multiplier = engine::multiplier(double(r->tensor.scale) / so, 255, op);
    for (long o = 0; o < w.outputs; ++o) {
        const double step = double(in.tensor.scale) * double(w.scales[o]);
        const double bias = op.bias ? std::rint(double(op.bias[o]) / step) : 0;
        const double limited = bias < -0x1p30 ? -0x1p30 : bias > 0x1p30 ? 0x1p30 : bias;
        long sum = 0, total = 0;
        each_weight(w, o, [&](long, int value) { sum += value, total += std::abs(value); });
        start[o] = int32_t(uint32_t(long(limited) - in.tensor.zero * sum));
        multiplier[o] = to_floats ? float(step) : engine::multiplier(step / so, std::fabs(limited) + 255.0 * total, op);
    }
}

namespace {

// ---- quads of weights

// A quad of input channels at one place of the kernel: its weights for an output, or for four of them.
template <int OUTPUTS>
struct Quad {
    int32_t quad, tap;
    int32_t weights[OUTPUTS];
    bool before(const Quad& other) const { return quad != other.quad ? quad < other.quad : tap < other.tap; }
};
using List = std::vector<Quad<1>>;
using FourList = std::vector<Quad<QUAD>>;

int32_t with_byte(int32_t quad, int channel, int value) { return int32_t(uint32_t(quad) | uint32_t(uint8_t(value)) << (8 * channel)); }
int byte_of(int32_t quad, int channel) { return int8_t(uint32_t(quad) >> (8 * channel)); }

// Whether 255 times these two weights could leave 16 bits.
bool saturates(int a, int b) {
    const int above = std::max(a, 0) + std::max(b, 0), below = std::min(a, 0) + std::min(b, 0);
    return 255 * above > 32767 || 255 * below < -32768;
}

bool saturates(int32_t quad) { return saturates(byte_of(quad, 0), byte_of(quad, 1)) || saturates(byte_of(quad, 2), byte_of(quad, 3)); }

struct Source {
    const Op& op;
    int channels;
    bool splits;

    // The quads of an output that are not all zero, by quad and then by place; none for those that fill up the last four outputs.
    List list(long o) const {
        List all;
        if (o >= op.weights.outputs) return all;
        const int taps = op.kernel_h * op.kernel_w, per_group = channels / op.groups;
        const long first = o / (op.weights.outputs / op.groups) * per_group;
        std::vector<int32_t> held(taps, 0);
        int quad = 0;
        each_weight(op.weights, o, [&](long place, int value) {
            const long channel = first + place / taps;
            if (channel / QUAD != quad) flush(all, held, quad);
            quad = int(channel / QUAD);
            held[place % taps] = with_byte(held[place % taps], channel % QUAD, value);
        });
        flush(all, held, quad);
        return all;
    }

    void flush(List& all, std::vector<int32_t>& held, int quad) const {
        for (size_t tap = 0; tap < held.size(); ++tap) {
            const int32_t w = held[tap];
            if (!w) continue;
            const bool both = splits && saturates(w);
            if (both) all.push_back({quad, int32_t(tap), {int32_t(w & 0x00ff00ff)}});
            all.push_back({quad, int32_t(tap), {both ? int32_t(w & 0xff00ff00) : w}});
            held[tap] = 0;
        }
    }

    // The same places for four outputs.
    FourList four_list(long q) const {
        List lists[QUAD];
        for (int o = 0; o < QUAD; ++o) lists[o] = list(q * QUAD + o);
        FourList all;
        for (size_t at[QUAD] = {};;) {
            const Quad<1>* next = nullptr;
            for (int o = 0; o < QUAD; ++o)
                if (at[o] < lists[o].size() && (!next || lists[o][at[o]].before(*next))) next = &lists[o][at[o]];
            if (!next) return all;
            all.push_back({next->quad, next->tap, {}});
            for (int o = 0; o < QUAD; ++o)
                if (at[o] < lists[o].size() && !next->before(lists[o][at[o]])) all.back().weights[o] = lists[o][at[o]++].weights[0];
        }
    }
};

// ---- the choice

struct Shape {
    bool fours = false;
    int h = 1, w = 1;  // of tiles, at most
    int blocks = 1;    // of input channels
    double ns = INFINITY;
};

struct Tile {
    int y, x, h, w;
};

// `size` in pieces of at most `most`, as even as can be: piece i begins at i * size / count.
int pieces(int size, int most) { return (size + most - 1) / most; }

std::vector<Tile> tiles_of(const Place& out, const Shape& s) {
    const int rows = pieces(out.block_h, s.h), columns = pieces(out.block_w, s.w);
    std::vector<Tile> all;
    for (int i = 0; i < rows; ++i)
        for (int j = 0; j < columns; ++j) {
            const int y = i * out.block_h / rows, x = j * out.block_w / columns;
            all.push_back({y, x, (i + 1) * out.block_h / rows - y, (j + 1) * out.block_w / columns - x});
        }
    return all;
}

// Fitted to measurements of a Zen 4 with VNNI, in nanoseconds for vectors of 64 bytes (9 % off on average); elsewhere the order of things is enough.
struct Costs {
    double sum = 0.29;      // of four products for each lane of a vector
    double far = 0.066;     // more, where its input comes from the second-level cache:
    double near_bytes = 24 << 10, far_bytes = 64 << 10;  // not at all up to the first, wholly from the second size of what a tile reads
    double entry = 0.155;   // of a list of rows
    double four_sums = 1.1, least_four = 1.6;  // an entry of a list of fours: for each vector, but no less
    double list = 1.7;
    double wait = 0.57;     // to keep a sum in memory and fetch it
    double end = 0.68;      // of a sum: rounded to a byte
    double step = 280;
};

struct Counts {
    double rows = 0, fours = 0;  // entries of all lists
    long quads = 0;              // of input that outputs share
    long outputs = 0;
};

// Bytes of the input that a tile of h x w vectors reads for one block of channels.
double region(const Op& op, const Counts& n, int blocks, double h, double w) {
    const int reach_h = (op.kernel_h - 1) * op.dilation_h, reach_w = (op.kernel_w - 1) * op.dilation_w;
    return double((n.quads + blocks - 1) / blocks) * ((h - 1) * op.stride_h + reach_h + 1) * ((w - 1) * op.stride_w + reach_w + 1) * VECTOR;
}

// Tiles are taken to be of one size, the mean.
double predicted(const Op& op, const Place& out, const Counts& n, const Shape& s) {
    const Costs c;
    const double rows = pieces(out.block_h, s.h), columns = pieces(out.block_w, s.w), h = out.block_h / rows, w = out.block_w / columns;
    const double beyond = (region(op, n, s.blocks, h, w) - c.near_bytes) / (c.far_bytes - c.near_bytes);
    const double far = c.far * std::min(1.0, std::max(0.0, beyond)), vectors = h * w;
    const double sums = s.fours ? n.fours * (std::max(vectors * c.four_sums, c.least_four) + vectors * far)
                                : n.rows * (vectors * (c.sum + far) + c.entry);
    const double ends = n.outputs * (s.blocks * c.list / (s.fours ? QUAD : 1) + vectors * (c.end + (s.blocks - 1) * c.wait));
    return c.step + rows * columns * (sums + ends);
}

Shape best(const Op& op, const Place& out, const Counts& n, bool fours) {
    Shape best;
    for (int h = 1; h <= MOST_Y; ++h)
        for (int w = 1; w <= MOST_X; ++w) {
            if (h * w > (fours ? MOST_FOURS : MOST) || (op.stride_w > 2 && w > 1)) continue;
            for (int blocks = 1; blocks <= 16 && blocks <= n.quads; ++blocks) {
                Shape s{fours, h, w, blocks};
                s.ns = predicted(op, out, n, s);
                if (s.ns < best.ns) best = s;
            }
        }
    return best;
}

// ---- the step

struct Scratch {
    std::vector<char> bytes;
    Words* of(long vectors) {
        if (long(bytes.size()) < (vectors + 1) * VECTOR) bytes.resize((vectors + 1) * VECTOR);
        return reinterpret_cast<Words*>((reinterpret_cast<uintptr_t>(bytes.data()) + VECTOR - 1) / VECTOR * VECTOR);
    }
};
thread_local Scratch scratch;

struct Conv : Step {
    Frame frame;
    Ending ending;
    bool ends_in_bytes;            // within the kernel: 16 bits hold what is added to a sum
    int stride_h, stride_w;
    bool fours;
    int blocks;
    long quads;                    // of outputs
    std::vector<Row> rows;         // for each block of channels, for each output
    std::vector<Four> four_rows;   // for each block of channels, for each quad of outputs
    std::vector<uint32_t> start;   // of each list, and the end of the last
    std::vector<Tile> tiles;
    const Kernels& table;
    std::vector<double> work;      // of quads of outputs: the sum up to each

    Conv(const Op& op, const Frame& f, const Shape& s, const Kernels& k)
        : frame(f), ending{f.residual_multiplier, f.residual.tensor.zero, f.out.tensor.zero, f.range.low, f.range.high},
          ends_in_bytes(!f.to_floats && f.residual_multiplier * 255 < 32000), stride_h(op.stride_h), stride_w(op.stride_w), fours(s.fours),
          blocks(s.blocks), quads(quads_of(op.weights.outputs)), tiles(tiles_of(f.out, s)), table(k) {}

    // What is to be done is quads of outputs, tile by tile: shared out by their lists' lengths.
    void run(const Memory& m, int part, int parts) const override {
        const double all = work[quads] * tiles.size();
        const long from = place(all * part / parts), to = part + 1 == parts ? quads * long(tiles.size()) : place(all * (part + 1) / parts);
        for (long at = from; at < to;) {
            const long tile = at / quads, end = std::min(to, (tile + 1) * quads);
            one(m, tiles[tile], at - tile * quads, end - tile * quads);
            at = end;
        }
    }

    long place(double amount) const {
        const long tile = std::min(long(amount / work[quads]), long(tiles.size()) - 1);
        const double rest = amount - tile * work[quads];
        return tile * quads + (std::lower_bound(work.begin(), work.end() - 1, rest) - work.begin());
    }

    void one(const Memory& m, const Tile& t, long from, long to) const {
        const long sums = QUAD * t.h * t.w;
        Words* room = blocks > 1 || !ends_in_bytes ? scratch.of((blocks > 1 ? to - from : 1) * sums) : nullptr;
        Call call{};
        call.in = m.at(frame.in) + t.y * stride_h * frame.in.row + t.x * stride_w * VECTOR;
        call.down = stride_h * frame.in.row;
        call.out_down = frame.out.row;
        call.residual_down = frame.residual.row;
        call.ending = &ending;
        const int number = kernel_number(t.h, t.w, t.w == 1 ? 1 : stride_w);
        for (int block = 0; block < blocks; ++block) {
            const bool last = block + 1 == blocks;
            for (long q = from; q < to; ++q) {
                Words* own = room && blocks > 1 ? room + (q - from) * sums : room;
                call.start = &frame.start[q * QUAD];
                call.by = &frame.multiplier[q * QUAD];
                call.waiting = block ? own : nullptr;
                call.sums = last && ends_in_bytes ? nullptr : own;
                call.out = reinterpret_cast<char*>(words(m, frame.out, q, t.y) + t.x);
                call.residual = frame.adds ? reinterpret_cast<const char*>(words(m, frame.residual, q, t.y) + t.x) : nullptr;
                if (fours) table.fours[number](four_rows.data(), &start[block * quads + q], call);
                else table.rows[number](rows.data(), &start[(block * quads + q) * QUAD], call);
                if (last && call.sums) finish(m, t, q, own);
            }
        }
    }

    void finish(const Memory& m, const Tile& t, long q, const Words* sums) const {
        if (frame.to_floats) finish_floats(m, t, q, sums);
        else finish_bytes(m, t, q, sums);
    }

    // In 32 bits, for a residual that 16 would not hold.
    void finish_bytes(const Memory& m, const Tile& t, long q, const Words* sums) const {
        const long vectors = t.h * t.w;
        for (int y = 0; y < t.h; ++y)
            for (int x = 0; x < t.w; ++x, ++sums) {
                const Words r = words(m, frame.residual, q, t.y + y)[t.x + x];
                Ints of[QUAD];
                for (int o = 0; o < QUAD; ++o)
                    of[o] = nearest(floats((Ints)sums[o * vectors]) * splat(frame.multiplier[q * QUAD + o])) +
                            nearest(floats(channel(r, o) - ending.residual_zero) * splat(ending.residual_by)) + ending.zero;
                words(m, frame.out, q, t.y + y)[t.x + x] = held_bytes(quad_of(of[0], of[1], of[2], of[3]), bytes_of(ending.low), bytes_of(ending.high));
            }
    }

    void finish_floats(const Memory& m, const Tile& t, long q, const Words* sums) const {
        const long vectors = t.h * t.w;
        with_activation(frame.activation, [&](auto a) {
            for (int o = 0; o < QUAD && q * QUAD + o < frame.out.planes; ++o) {
                const Vec by = splat(frame.multiplier[q * QUAD + o]);
                const Words* from = sums + o * vectors;
                for (int y = 0; y < t.h; ++y) {
                    Vec* to = reinterpret_cast<Vec*>(words(m, frame.out, q * QUAD + o, t.y + y)) + t.x;
                    for (int x = 0; x < t.w; ++x) to[x] = activate<decltype(a)::value>(rounded(floats((Ints)*from++) * by), frame.slope);
                }
            }
        });
    }
};

// ---- packing

// Where an entry's vector lies, from a tile's first vector of the input.
int32_t offset(const Op& op, const Place& in, int quad, int tap) {
    const long y = tap / op.kernel_w * op.dilation_h - op.pad_top, x = tap % op.kernel_w * op.dilation_w - op.pad_left;
    const long bytes = quad * in.plane + y * in.row + x * VECTOR;
    if (bytes > INT32_MAX || bytes < INT32_MIN) throw Refused(op.name + ": its input is too large");
    return int32_t(bytes);
}

struct Blocks {
    std::vector<int> of;  // by quad
    Blocks(long quads, int count) {
        for (int block = 0; block < count; ++block) of.resize((block + 1) * quads / count, block);
    }
};

// Lists by block and then by output (or four), each filled up to a multiple of `whole` with entries that add nothing. They are made twice, as all
// of them at once would take several times the memory of what is packed.
template <class Entry, class Lists, class Made>
void pack(Conv& c, const Blocks& blocks, long lists, std::vector<Entry>& to, int whole, Lists list, Made made) {
    c.start.assign(c.blocks * lists + 1, 0);
    for (long i = 0; i < lists; ++i)
        for (const auto& q : list(i)) ++c.start[blocks.of[q.quad] * lists + i + 1];
    uint64_t total = 0;
    for (uint32_t& end : c.start) {
        total += (end + whole - 1) / whole * whole;
        if (total > UINT32_MAX) throw Refused(c.name + ": it has too many weights");
        end = uint32_t(total);
    }
    to.resize(total);
    std::vector<uint32_t> next(c.start.begin(), c.start.end() - 1);
    for (long i = 0; i < lists; ++i) {
        for (const auto& q : list(i)) to[next[blocks.of[q.quad] * lists + i]++] = made(q);
        for (int block = 0; block < c.blocks; ++block)
            for (uint32_t &at = next[block * lists + i], end = c.start[block * lists + i + 1]; at < end; ++at) to[at] = {to[at - 1].offset, {}};
    }
}

// How many entries at a time the kernels of its tiles take.
int whole_of(const std::vector<Tile>& tiles) {
    int most = 1;
    for (const Tile& t : tiles) most = std::max(most, chains(t.h * t.w));
    return most;
}

void weigh(Conv& c) {
    const long each = c.fours ? 1 : QUAD, lists = c.quads * each;
    c.work.assign(1, 0);
    for (long q = 0; q < c.quads; ++q) {
        double work = 8;
        for (int block = 0; block < c.blocks; ++block) work += c.start[block * lists + (q + 1) * each] - c.start[block * lists + q * each];
        c.work.push_back(c.work.back() + work);
    }
}

void describe(Conv& c, const Op& op, const Shape& rows, const Shape& fours, const Counts& n) {
    const Shape& s = c.fours ? fours : rows;
    char text[128];
    const int end = snprintf(text, sizeof text, "%dx%d tiles, %d blocks: rows %.1f us", s.h, s.w, s.blocks, rows.ns / 1000);
    if (fours.ns < INFINITY) snprintf(text + end, sizeof text - end, ", fours %.1f us", fours.ns / 1000);
    c.why = text;
    c.kernel = c.fours ? "int8 fours" : "int8 rows";
    c.density = op.weights.density();
    const double pixels = double(c.frame.out.tensor.rows) * c.frame.out.tensor.columns;
    c.multiply_adds = pixels * QUAD * (c.fours ? QUAD * n.fours : n.rows);
    c.predicted_ns = s.ns;
    c.own_bytes = c.rows.size() * sizeof(Row) + c.four_rows.size() * sizeof(Four) + c.start.size() * 4 + c.frame.start.size() * 8;
}

Counts counted(const Source& source, long out_quads, bool fours) {
    Counts n;
    n.quads = quads_of(source.channels / source.op.groups);
    n.outputs = source.op.weights.outputs;
    for (long o = 0; o < n.outputs; ++o) n.rows += source.list(o).size();
    for (long q = 0; fours && q < out_quads; ++q) n.fours += source.four_list(q).size();
    return n;
}

}  // namespace

StepPtr conv_int8(const Op& op, const Place& in, const Place& out, const Place* residual) {
    const Frame frame(op, in, out, residual);
    const Kernels& table = tile_kernels(has_vnni());
    const Source source{op, in.tensor.channels, table.splits};
    const Counts n = counted(source, quads_of(op.weights.outputs), table.fours[0]);
    const Shape rows = best(op, out, n, false), fours = table.fours[0] ? best(op, out, n, true) : Shape();
    auto c = std::make_unique<Conv>(op, frame, fours.ns < rows.ns ? fours : rows, table);
    c->name = op.name;
    const Blocks blocks(quads_of(in.tensor.channels), c->blocks);
    const auto row = [&](const Quad<1>& q) { return Row{offset(op, in, q.quad, q.tap), q.weights[0]}; };
    const auto four = [&](const Quad<QUAD>& q) {
        return Four{offset(op, in, q.quad, q.tap), {q.weights[0], q.weights[1], q.weights[2], q.weights[3]}};
    };
    if (c->fours) pack(*c, blocks, c->quads, c->four_rows, 1, [&](long q) { return source.four_list(q); }, four);
    else pack(*c, blocks, c->quads * QUAD, c->rows, whole_of(c->tiles), [&](long o) { return source.list(o); }, row);
    weigh(*c);
    describe(*c, op, rows, fours, n);
    return c;
}

}  // namespace prunery::engine
