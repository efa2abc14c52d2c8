// Everything without a matrix that reads or writes bytes: pools, sums, copies, and the ways from floats and back.
//
// In lanes a vector holds a quad of channels of LANES pixels; a plain tensor of bytes is a row of vectors like that for whatever works byte by byte.

#include "int8.h"

#include <functional>

#include "activation.h"

namespace prunery::engine {

namespace {

struct Simple : Step {
    std::function<void(const Memory&, int, int)> act;
    void run(const Memory& memory, int part, int parts) const override { act(memory, part, parts); }
};

constexpr double NS_PER_VECTOR = 0.6;  // a load, a little work and a store, from the second-level cache

// A step over rows of vectors of `over`: act(memory, plane, row), shared out; a plain tensor is one plane of one row.
struct Rows {
    long planes, rows, vectors;
    explicit Rows(const Place& p)
        : planes(p.form == Form::LANED ? p.planes : 1), rows(p.form == Form::LANED ? p.block_h : 1),
          vectors(p.form == Form::LANED ? p.block_w : (p.bytes + VECTOR - 1) / VECTOR) {}
    double all() const { return double(planes) * rows * vectors; }
};

template <class F>
StepPtr each_row(const char* kernel, const Place& over, double passes, F act) {
    auto s = std::make_unique<Simple>();
    const Rows n(over);
    s->kernel = kernel;
    s->predicted_ns = 30 + NS_PER_VECTOR * passes * n.all();
    s->act = [=](const Memory& m, int part, int parts) {
        const Share mine(n.planes * n.rows, part, parts);
        for (long i = mine.first; i < mine.last; ++i) act(m, i / n.rows, i % n.rows);
    };
    return s;
}

// A step over channels or quads: act(memory, number).
template <class F>
StepPtr each_of(const char* kernel, long count, double ns, F act) {
    auto s = std::make_unique<Simple>();
    s->kernel = kernel;
    s->predicted_ns = 30 + ns;
    s->act = [=](const Memory& m, int part, int parts) {
        const Share mine(count, part, parts);
        for (long i = mine.first; i < mine.last; ++i) act(m, i);
    };
    return s;
}

void same_place(const Op& op, const Tensor& a, const Tensor& b) {
    if (a.scale != b.scale || a.zero != b.zero) throw Refused(op.name + ": its tensors need one scale and zero point");
}

// ---- sums

StepPtr add(const Op& op, const Place& a, const Place& b, const Place& out) {
    const Range range(op, out.tensor);
    const float by_a = multiplier(double(a.tensor.scale) / double(out.tensor.scale), 255, op);
    const float by_b = multiplier(double(b.tensor.scale) / double(out.tensor.scale), 255, op);
    const int za = a.tensor.zero, zb = b.tensor.zero, zero = out.tensor.zero;
    const long vectors = Rows(out).vectors;
    return each_row("int8 add", out, 12, [=](const Memory& m, long plane, long y) {
        const Words *p = words(m, a, plane, y), *q = words(m, b, plane, y);
        Words* to = words(m, out, plane, y);
        const Bytes low = bytes_of(range.low), high = bytes_of(range.high);
        for (long x = 0; x < vectors; ++x) {
            Ints s[QUAD];
#pragma GCC unroll 4
            for (int c = 0; c < QUAD; ++c)
                s[c] = nearest(floats(channel(p[x], c) - za) * by_a) + nearest(floats(channel(q[x], c) - zb) * by_b) + zero;
            to[x] = held_bytes(quad_of(s[0], s[1], s[2], s[3]), low, high);
        }
    });
}

// ---- from floats and back

// One over the scale, as a float; where it is too large for one, every number but zero is beyond the range of bytes.
Ints quantised(Vec x, float by, int zero) {
    Vec y = x * by;
    y = y == y ? y : Vec{};
    y = y < -1024.0f ? splat(-1024.0f) : y;
    y = y > 1024.0f ? splat(1024.0f) : y;
    return nearest(y) + zero;
}

StepPtr quantize(const Place& a, const Place& out) {
    const float by = float(1.0 / double(out.tensor.scale));
    const int zero = out.tensor.zero;
    if (out.form == Form::PLAIN) return each_of("quantize", 1, out.tensor.numbers(), [=](const Memory& m, long) {
        const Vec* from = reinterpret_cast<const Vec*>(m.at(a));
        uint8_t* to = reinterpret_cast<uint8_t*>(m.at(out));
        for (long i = 0, n = out.tensor.numbers(); i < n; i += LANES) {
            const Ints y = held(quantised(from[i / LANES], by, zero), 0, 255);
            for (long k = 0; k < LANES && i + k < n; ++k) to[i + k] = y[k];
        }
    });
    return each_row("quantize", out, 6, [=](const Memory& m, long quad, long y) {
        const Vec* from[QUAD];
        for (int c = 0; c < QUAD; ++c) {
            const long plane = quad * QUAD + c < a.planes ? quad * QUAD + c : a.planes - 1;
            from[c] = reinterpret_cast<const Vec*>(words(m, a, plane, y));
        }
        Words* to = words(m, out, quad, y);
        for (int x = 0; x < out.block_w; ++x) {
            Ints q[QUAD];
#pragma GCC unroll 4
            for (int c = 0; c < QUAD; ++c) q[c] = quantised(from[c][x], by, zero);
            to[x] = quad_of(q[0], q[1], q[2], q[3]);
        }
    });
}

StepPtr dequantize(const Place& a, const Place& out) {
    const float by = a.tensor.scale;
    const int zero = a.tensor.zero;
    if (out.form == Form::PLAIN) return each_of("dequantize", 1, out.tensor.numbers(), [=](const Memory& m, long) {
        const uint8_t* from = reinterpret_cast<const uint8_t*>(m.at(a));
        float* to = reinterpret_cast<float*>(m.at(out));
        for (long i = 0, n = out.tensor.numbers(); i < n; ++i) to[i] = by * float(from[i] - zero);
    });
    return each_row("dequantize", out, 1, [=](const Memory& m, long plane, long y) {
        const Words* from = words(m, a, plane / QUAD, y);
        Vec* to = reinterpret_cast<Vec*>(words(m, out, plane, y));
        for (int x = 0; x < out.block_w; ++x) to[x] = floats(channel(from[x], plane % QUAD) - zero) * by;
    });
}

// ---- copies

// Where a byte of a quad comes from: a vector's place in one of the inputs, and its byte.
struct Pick {
    int input = -1;  // none: zero
    long plane = 0;
    int byte = 0;
    long offset = 0;  // within the plane
};

// Vectors of `out`, each lane's bytes picked from vectors of the inputs, row by row of `height` x `width`.
StepPtr pick(std::vector<Pick> picks, const std::vector<Place>& in, const Place& out, int height, int width) {
    const double vectors = double(out.planes) * height * width;
    return each_of("int8 copy", out.planes, 4 * NS_PER_VECTOR * vectors, [=](const Memory& m, long quad) {
        const Pick* p = &picks[quad * QUAD];
        const auto follows = [&](int c) {
            return p[c].input < 0 || (p[c].input == p[0].input && p[c].plane == p[0].plane && p[c].offset == p[0].offset && p[c].byte == c);
        };
        const bool whole = p[0].byte == 0 && follows(1) && follows(2) && follows(3);
        for (int y = 0; y < height; ++y) {
            Words* to = words(m, out, quad, y);
            const auto from = [&](int c) {
                return reinterpret_cast<const Words*>(reinterpret_cast<const char*>(words(m, in[p[c].input], p[c].plane, y)) + p[c].offset);
            };
            if (whole) {
                memcpy(to, from(0), width * VECTOR);
                continue;
            }
            for (int x = 0; x < width; ++x) {
                Words all{};
                for (int c = 0; c < QUAD; ++c)
                    if (p[c].input >= 0) all |= (Words)channel(from(c)[x], p[c].byte) << (8 * c);
                to[x] = all;
            }
        }
    });
}

StepPtr concat(const std::vector<Place>& in, const Place& out) {
    if (out.form == Form::PLAIN) return each_of("int8 copy", 1, out.tensor.numbers() / 16.0, [=](const Memory& m, long) {
        char* to = m.at(out);
        for (const Place& p : in) {
            memcpy(to, m.at(p), p.tensor.numbers());
            to += p.tensor.numbers();
        }
    });
    std::vector<Pick> picks;
    for (size_t i = 0; i < in.size(); ++i)
        for (int c = 0; c < in[i].tensor.channels; ++c) picks.push_back({int(i), c / QUAD, c % QUAD});
    picks.resize(out.planes * QUAD);
    return pick(picks, in, out, out.block_h, out.block_w);
}

StepPtr gather(const Op& op, const Place& a, const Place& out) {
    const std::vector<uint32_t> index(op.index, op.index + out.tensor.channels);
    if (out.form == Form::PLAIN) return each_of("int8 copy", 1, index.size(), [=](const Memory& m, long) {
        for (size_t c = 0; c < index.size(); ++c) m.at(out)[c] = m.at(a)[index[c]];
    });
    std::vector<Pick> picks;
    for (const long c : index) picks.push_back({0, c / QUAD, int(c % QUAD)});
    picks.resize(out.planes * QUAD);
    return pick(picks, {a}, out, out.block_h, out.block_w);
}

// Of many images: each pixel of each channel becomes a channel.
StepPtr flatten(const Place& a, const Place& out) {
    std::vector<Pick> picks;
    for (int c = 0; c < a.tensor.channels; ++c)
        for (int y = 0; y < a.block_h; ++y)
            for (int x = 0; x < a.block_w; ++x) picks.push_back({0, c / QUAD, c % QUAD, y * a.row + x * VECTOR});
    picks.resize(out.planes * QUAD);
    return pick(picks, {a}, out, 1, 1);
}

// ---- pools

// f(vector) for those of a window, row by row.
template <class F>
inline void window(const char* at, const Op& op, long row_bytes, F f) {
    for (int i = 0; i < op.kernel_h; ++i, at += op.dilation_h * row_bytes)
        for (int j = 0; j < op.kernel_w; ++j) f(*reinterpret_cast<const Words*>(at + j * op.dilation_w * VECTOR));
}

const char* window_row(const Memory& m, const Op& op, const Place& a, long plane, long y) {
    return m.at(a) + plane * a.plane + (y * op.stride_h - op.pad_top) * a.row - op.pad_left * VECTOR;
}

StepPtr max_pool(const Op& op, const Place& a, const Place& out) {
    return each_row("int8 max pool", out, op.kernel_h * op.kernel_w, [=](const Memory& m, long quad, long y) {
        const char* at = window_row(m, op, a, quad, y);
        Words* to = words(m, out, quad, y);
        for (int x = 0; x < out.block_w; ++x) {
            Bytes most{};
            window(at + x * op.stride_w * VECTOR, op, a.row, [&](Words v) { most = (Bytes)v > most ? (Bytes)v : most; });
            to[x] = (Words)most;
        }
    });
}

// How many pixels of a window count, along one axis.
int counted(int first, int kernel, int extent, int before, int behind, bool padding) {
    const int low = padding ? -before : 0, high = padding ? extent + behind : extent;
    const int from = first > low ? first : low, to = first + kernel < high ? first + kernel : high;
    return to > from ? to - from : 0;
}

// The multiplier of a sum over n pixels.
float mean_of(const Tensor& in, const Tensor& out, double n) {
    return float(double(in.scale) / ((out.type == Type::F32 ? 1.0 : double(out.scale)) * n));
}

// That of every vector of a plane: windows at the edge see fewer pixels.
std::vector<float> means(const Op& op, const Place& a, const Place& out) {
    std::vector<float> all;
    const Lanes& l = out.lanes;
    for (int y = 0; y < out.block_h; ++y)
        for (int x = 0; x < out.block_w; ++x)
            for (int lane = 0; lane < LANES; ++lane) {
                const int block = lane / l.images, r = block / l.grid_w * out.block_h + y, c = block % l.grid_w * out.block_w + x;
                const int h = counted(r * op.stride_h - op.pad_top, op.kernel_h, a.tensor.rows, op.pad_top, op.pad_bottom, op.count_padding);
                const int w = counted(c * op.stride_w - op.pad_left, op.kernel_w, a.tensor.columns, op.pad_left, op.pad_right, op.count_padding);
                all.push_back(h && w ? mean_of(a.tensor, out.tensor, double(h) * w) : 0);
            }
    return all;
}

// Padding has the byte of zero, so that it adds nothing.
StepPtr avg_pool(const Op& op, const Place& a, const Place& out) {
    const std::vector<float> mean = means(op, a, out);
    const int all = op.kernel_h * op.kernel_w, nothing = all * a.tensor.zero, zero = out.tensor.zero;
    multiplier(mean_of(a.tensor, out.tensor, 1), 255.0 * all, op);
    return each_row("int8 average pool", out, 4 * all, [=](const Memory& m, long quad, long y) {
        const char* at = window_row(m, op, a, quad, y);
        Words* to = words(m, out, quad, y);
        for (int x = 0; x < out.block_w; ++x) {
            Ints sum[QUAD] = {};
            window(at + x * op.stride_w * VECTOR, op, a.row, [&](Words v) {
#pragma GCC unroll 4
                for (int c = 0; c < QUAD; ++c) sum[c] += channel(v, c);
            });
            Vec by;
            memcpy(&by, &mean[(y * out.block_w + x) * LANES], VECTOR);
#pragma GCC unroll 4
            for (int c = 0; c < QUAD; ++c) sum[c] = nearest(floats(sum[c] - nothing) * by) + zero;
            to[x] = quad_of(sum[0], sum[1], sum[2], sum[3]);
        }
    });
}

// For vector (y, x) of a plane: ones in lanes that lie in the picture.
Words inside(const Place& p, int y, int x) {
    Words mask{};
    const Lanes& l = p.lanes;
    for (int lane = 0; lane < LANES; ++lane) {
        const int block = lane / l.images, r = block / l.grid_w * p.block_h + y, c = block % l.grid_w * p.block_w + x;
        mask[lane] = r < p.tensor.rows && c < p.tensor.columns ? ~0u : 0;
    }
    return mask;
}

struct Mean {
    Place in, out;
    std::vector<uint32_t> masks;  // LANES for each vector of a plane, where a part of them lies beyond the edge
    float by;

    Mean(const Op& op, const Place& a, const Place& out)
        : in(a), out(out), by(multiplier(mean_of(a.tensor, out.tensor, double(a.tensor.rows) * a.tensor.columns),
                                         out.tensor.type == Type::F32 ? 0 : 255.0 * a.tensor.rows * a.tensor.columns, op)) {
        if (a.lanes.grid_h * a.block_h <= a.tensor.rows && a.lanes.grid_w * a.block_w <= a.tensor.columns) return;
        for (int y = 0; y < a.block_h; ++y)
            for (int x = 0; x < a.block_w; ++x) {
                const Words mask = inside(a, y, x);
                for (int lane = 0; lane < LANES; ++lane) masks.push_back(mask[lane]);
            }
    }

    // The sums of a quad's channels, lane by lane.
    void sum(const Memory& m, long quad, Ints (&sums)[QUAD]) const {
        const WordsAnywhere* mask = reinterpret_cast<const WordsAnywhere*>(masks.data());
        for (int y = 0; y < in.block_h; ++y) {
            const Words* from = words(m, in, quad, y);
            for (int x = 0; x < in.block_w; ++x) {
                const Words v = masks.empty() ? from[x] : from[x] & Words(*mask++);
#pragma GCC unroll 4
                for (int c = 0; c < QUAD; ++c) sums[c] += channel(v, c);
            }
        }
    }

    void run(const Memory& m, long quad) const {
        Ints sums[QUAD] = {};
        sum(m, quad, sums);
        const int nothing = in.tensor.rows * in.tensor.columns * in.tensor.zero;
        const long here = in.tensor.channels - quad * QUAD < QUAD ? in.tensor.channels - quad * QUAD : QUAD;
        if (out.form == Form::LANED) return put_lanes(m, quad, here, sums, nothing);
        Ints all{};
        for (int c = 0; c < QUAD; ++c) all[c] = total(sums[c]) - nothing;
        put(m, quad, here, floats(all) * by);
    }

    static int total(Ints lanes) {
        int32_t each[LANES], sum = 0;
        memcpy(each, &lanes, VECTOR);
        for (int lane = 0; lane < LANES; ++lane) sum += each[lane];
        return sum;
    }

    // Of one image: the channels of the quad are the first lanes.
    void put(const Memory& m, long quad, long here, Vec y) const {
        if (out.tensor.type == Type::F32) {
            memcpy(m.at(out) + quad * QUAD * sizeof(float), &y, here * sizeof(float));
            return;
        }
        const Ints bytes = held(nearest(y) + out.tensor.zero, 0, 255);
        for (int c = 0; c < here; ++c) reinterpret_cast<uint8_t*>(m.at(out))[quad * QUAD + c] = bytes[c];
    }

    // Of many: each lane is an image.
    void put_lanes(const Memory& m, long quad, long here, Ints (&sums)[QUAD], int nothing) const {
        Ints bytes[QUAD];
        for (int c = 0; c < QUAD; ++c) {
            const Vec y = floats(sums[c] - nothing) * by;
            if (out.tensor.type == Type::U8) bytes[c] = nearest(y) + out.tensor.zero;
            else if (c < here) *reinterpret_cast<Vec*>(words(m, out, quad * QUAD + c, 0)) = y;
        }
        if (out.tensor.type == Type::U8) *words(m, out, quad, 0) = quad_of(bytes[0], bytes[1], bytes[2], bytes[3]);
    }
};

StepPtr global_pool(const Op& op, const Place& a, const Place& out) {
    if (a.form != Form::LANED) throw Refused(op.name + ": no kernel for plain bytes");
    const Mean mean(op, a, out);
    return each_of("int8 mean", a.planes, 4 * NS_PER_VECTOR * Rows(a).all(), [=](const Memory& m, long quad) { mean.run(m, quad); });
}

}  // namespace

StepPtr simple_int8(const Op& op, const std::vector<const Place*>& in, const Place& out) {
    std::vector<Place> places;
    for (const Place* p : in) places.push_back(*p);
    const Place& a = places[0];
    if (op.kind == Kind::QUANTIZE) return quantize(a, out);
    for (const Place& p : places)
        if (p.tensor.type != Type::U8) throw Refused(op.name + ": bytes and floats are mixed");
    switch (op.kind) {
        case Kind::DEQUANTIZE: return dequantize(a, out);
        case Kind::GLOBAL_POOL: return global_pool(op, a, out);
        case Kind::AVG_POOL: return avg_pool(op, a, out);
        case Kind::ADD: return add(op, a, places[1], out);
        default: break;
    }
    for (const Place& p : places) same_place(op, p.tensor, out.tensor);
    switch (op.kind) {
        case Kind::MAX_POOL: return max_pool(op, a, out);
        case Kind::CONCAT: return concat(places, out);
        case Kind::GATHER: return gather(op, a, out);
        case Kind::FLATTEN: return flatten(a, out);
        default: throw Refused(op.name + ": no kernel for this operation in bytes");
    }
}

}  // namespace prunery::engine
