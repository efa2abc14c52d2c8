// Everything without a matrix, in floats: pools, sums, products, activations, copies. And for both types what keeps lanes in order: halos and
// relayouts.

#include "engine.h"

#include <cmath>
#include <cstring>
#include <functional>

#include "activation.h"

namespace prunery::engine {

namespace {

typedef int32_t Bits __attribute__((vector_size(PRUNERY_VECTOR_BYTES)));
typedef int32_t BitsAnywhere __attribute__((vector_size(PRUNERY_VECTOR_BYTES), aligned(4), may_alias));
typedef int32_t BitsAligned __attribute__((vector_size(PRUNERY_VECTOR_BYTES), may_alias));

// A step that is one function of memory and part.
struct Simple : Step {
    std::function<void(const Memory&, int, int)> act;
    void run(const Memory& memory, int part, int parts) const override { act(memory, part, parts); }
};

constexpr double NS_PER_VECTOR = 0.6;  // a load, a little work and a store, from the second-level cache

template <class F>
StepPtr step(const char* kernel, const Place& out, double passes, F act) {
    auto s = std::make_unique<Simple>();
    s->kernel = kernel;
    const double vectors = out.form == Form::LANED ? double(out.planes) * out.block_h * out.block_w : double(out.tensor.numbers()) / LANES;
    s->predicted_ns = 30 + NS_PER_VECTOR * passes * vectors;
    s->act = act;
    return s;
}

inline const Vec* row(const Memory& m, const Place& p, long plane, long y) {
    return reinterpret_cast<const Vec*>(m.at(p) + plane * p.plane + y * p.row);
}
inline Vec* row_of(const Memory& m, const Place& p, long plane, long y) {
    return reinterpret_cast<Vec*>(m.at(p) + plane * p.plane + y * p.row);
}

bool any_beyond(const Place& p) { return p.lanes.grid_h * p.block_h > p.tensor.rows || p.lanes.grid_w * p.block_w > p.tensor.columns; }

// For vector (y, x) of a plane: all bits set in lanes that lie in the picture, where lanes are read `shift` blocks further down and right.
Bits inside(const Place& p, int y, int x, int down = 0, int right = 0) {
    Bits mask{};
    const Lanes& l = p.lanes;
    for (int lane = 0; lane < LANES; ++lane) {
        const int block = lane / l.images, gy = block / l.grid_w + down, gx = block % l.grid_w + right;
        const bool on_grid = gy >= 0 && gx >= 0 && gy < l.grid_h && gx < l.grid_w;
        mask[lane] = on_grid && gy * p.block_h + y < p.tensor.rows && gx * p.block_w + x < p.tensor.columns ? -1 : 0;
    }
    return mask;
}

bool all_set(Bits mask) {
    for (int lane = 0; lane < LANES; ++lane)
        if (!mask[lane]) return false;
    return true;
}

// ---- element by element

// Rows of vectors that belong together: in lanes a row of each plane, with the plane's number; plain vectors are one row.
struct Rows {
    long planes, rows, vectors;
    explicit Rows(const Place& p)
        : planes(p.form == Form::LANED ? p.planes : 1), rows(p.form == Form::LANED ? p.block_h : 1),
          vectors(p.form == Form::LANED ? p.block_w : (p.tensor.numbers() + LANES - 1) / LANES) {}
};

template <class F>
StepPtr each(const char* kernel, const Op& op, const Place& out, double passes, F value) {
    return with_activation(op.activation, [&](auto a) {
        const float slope = op.slope;
        return step(kernel, out, passes, [=](const Memory& m, int part, int parts) {
            const Rows n(out);
            const Share mine(n.planes * n.rows, part, parts);
            for (long i = mine.first; i < mine.last; ++i) {
                const long plane = i / n.rows, y = i % n.rows;
                Vec* to = row_of(m, out, plane, y);
                const auto at = value(m, plane, y);
                for (long x = 0; x < n.vectors; ++x) to[x] = activate<decltype(a)::value>(at(x), slope);
            }
        });
    });
}

StepPtr add(const Op& op, const Place& a, const Place& b, const Place& out) {
    return each("add", op, out, 2, [=](const Memory& m, long plane, long y) {
        const Vec *p = row(m, a, plane, y), *q = row(m, b, plane, y);
        return [=](long x) { return p[x] + q[x]; };
    });
}

StepPtr multiply(const Op& op, const Place& a, const Place& b, const Place& out) {
    const bool same = a.form == b.form && a.tensor.rows == b.tensor.rows && a.tensor.columns == b.tensor.columns;
    if (same) return each("multiply", op, out, 2, [=](const Memory& m, long plane, long y) {
        const Vec *p = row(m, a, plane, y), *q = row(m, b, plane, y);
        return [=](long x) { return p[x] * q[x]; };
    });
    return each("multiply by channel", op, out, 1, [=](const Memory& m, long plane, long y) {
        const Vec* p = row(m, a, plane, y);
        const Vec by = b.form == Form::LANED ? *row(m, b, plane, 0) : splat(reinterpret_cast<const float*>(m.at(b))[plane]);
        return [=](long x) { return p[x] * by; };
    });
}

StepPtr activation(const Op& op, const Place& a, const Place& out) {
    return each("activation", op, out, 2, [=](const Memory& m, long plane, long y) {
        const Vec* p = row(m, a, plane, y);
        return [=](long x) { return p[x]; };
    });
}

StepPtr affine(const Op& op, const Place& a, const Place& out) {
    const long n = op.weights.outputs;
    std::vector<float> scale((n + LANES - 1) / LANES * LANES), shift(scale.size());
    for (long c = 0; c < n; ++c) scale[c] = op.weights.value(c), shift[c] = op.bias ? op.bias[c] : 0;
    const bool plain = out.form == Form::PLAIN;
    return each("affine", op, out, 1, [=](const Memory& m, long plane, long y) {
        const Vec* p = row(m, a, plane, y);
        const float *s = scale.data() + plane, *t = shift.data() + plane;
        return [=](long x) {
            Vec by, plus;
            if (plain) memcpy(&by, s + x * LANES, VECTOR), memcpy(&plus, t + x * LANES, VECTOR);
            else by = splat(*s), plus = splat(*t);
            return p[x] * by + plus;
        };
    });
}

// ---- copies

StepPtr concat(const std::vector<const Place*>& in, const Place& out) {
    std::vector<Place> parts_in;
    for (const Place* p : in) parts_in.push_back(*p);
    return step("copy", out, 1, [=](const Memory& m, int part, int parts) {
        if (out.form == Form::PLAIN) {
            char* to = m.at(out);
            for (const Place& p : parts_in) {
                if (part == 0) memcpy(to, m.at(p), p.tensor.numbers() * sizeof(float));
                to += p.tensor.numbers() * sizeof(float);
            }
            return;
        }
        long first = 0;
        for (const Place& p : parts_in) {
            const Share mine(p.planes, part, parts);
            for (long c = mine.first; c < mine.last; ++c)
                for (int y = 0; y < out.block_h; ++y) memcpy(row_of(m, out, first + c, y), row(m, p, c, y), out.block_w * VECTOR);
            first += p.planes;
        }
    });
}

StepPtr gather(const Op& op, const Place& a, const Place& out) {
    const std::vector<uint32_t> index(op.index, op.index + out.tensor.channels);
    return step("copy", out, 1, [=](const Memory& m, int part, int parts) {
        const Share mine(index.size(), part, parts);
        for (long c = mine.first; c < mine.last; ++c) {
            if (out.form == Form::PLAIN) reinterpret_cast<float*>(m.at(out))[c] = reinterpret_cast<const float*>(m.at(a))[index[c]];
            else
                for (int y = 0; y < out.block_h; ++y) memcpy(row_of(m, out, c, y), row(m, a, index[c], y), out.block_w * VECTOR);
        }
    });
}

// Of many images: a plane's vectors become planes of one vector.
StepPtr flatten(const Place& a, const Place& out) {
    return step("copy", out, 1, [=](const Memory& m, int part, int parts) {
        const Share mine(a.planes, part, parts);
        for (long c = mine.first; c < mine.last; ++c)
            for (int y = 0; y < a.block_h; ++y)
                for (int x = 0; x < a.block_w; ++x)
                    *row_of(m, out, (c * a.block_h + y) * a.block_w + x, 0) = row(m, a, c, y)[x];
    });
}

// ---- pools

// Of each window's vectors, row by row: value = fold(value, vector).
template <class Fold>
inline Vec window(const char* at, const Op& op, long row_bytes, Vec start, Fold fold) {
    Vec value = start;
    for (int i = 0; i < op.kernel_h; ++i, at += op.dilation_h * row_bytes)
        for (int j = 0; j < op.kernel_w; ++j) value = fold(value, *reinterpret_cast<const Vec*>(at + j * op.dilation_w * VECTOR));
    return value;
}

template <class Fold, class End>
void pool(const Memory& m, const Op& op, const Place& a, const Place& out, Share mine, Vec start, Fold fold, End end) {
    for (long c = mine.first; c < mine.last; ++c)
        for (int y = 0; y < out.block_h; ++y) {
            const char* at = m.at(a) + c * a.plane + (y * op.stride_h - op.pad_top) * a.row - op.pad_left * VECTOR;
            Vec* to = row_of(m, out, c, y);
            for (int x = 0; x < out.block_w; ++x) to[x] = end(window(at + x * op.stride_w * VECTOR, op, a.row, start, fold), y * out.block_w + x);
        }
}

StepPtr max_pool(const Op& op, const Place& a, const Place& out) {
    return step("max pool", out, op.kernel_h * op.kernel_w, [=](const Memory& m, int part, int parts) {
        const auto larger = [](Vec u, Vec v) { return (v > u) | (v != v) ? v : u; };  // as torch's, a NaN wins
        pool(m, op, a, out, Share(out.planes, part, parts), splat(-INFINITY), larger, [](Vec v, int) { return v; });
    });
}

// How many pixels of a window count, along one axis.
int counted(int first, int kernel, int extent, int before, int behind, bool padding) {
    const int low = padding ? -before : 0, high = padding ? extent + behind : extent;
    const int from = first > low ? first : low, to = first + kernel < high ? first + kernel : high;
    return to > from ? to - from : 0;
}

// One over the number of pixels that count, for every vector of a plane.
std::vector<float> shares(const Op& op, const Place& a, const Place& out) {
    std::vector<float> share(long(out.block_h) * out.block_w * LANES);
    const Lanes& l = out.lanes;
    float* to = share.data();
    for (int y = 0; y < out.block_h; ++y)
        for (int x = 0; x < out.block_w; ++x)
            for (int lane = 0; lane < LANES; ++lane) {
                const int block = lane / l.images, r = block / l.grid_w * out.block_h + y, c = block % l.grid_w * out.block_w + x;
                const int h = counted(r * op.stride_h - op.pad_top, op.kernel_h, a.tensor.rows, op.pad_top, op.pad_bottom, op.count_padding);
                const int w = counted(c * op.stride_w - op.pad_left, op.kernel_w, a.tensor.columns, op.pad_left, op.pad_right, op.count_padding);
                *to++ = h && w ? 1.0f / (float(h) * float(w)) : 0;
            }
    return share;
}

StepPtr avg_pool(const Op& op, const Place& a, const Place& out) {
    const std::vector<float> share = shares(op, a, out);
    return step("average pool", out, op.kernel_h * op.kernel_w, [=](const Memory& m, int part, int parts) {
        const auto mean = [&](Vec sum, long i) {
            Vec by;
            memcpy(&by, share.data() + i * LANES, VECTOR);
            return sum * by;
        };
        pool(m, op, a, out, Share(out.planes, part, parts), Vec{}, [](Vec u, Vec v) { return u + v; }, mean);
    });
}

float sum_of(Vec v) {
    float sum = 0;
    for (int lane = 0; lane < LANES; ++lane) sum += v[lane];
    return sum;
}

StepPtr global_pool(const Place& a, const Place& out) {
    std::vector<int32_t> masks;
    const bool partial = any_beyond(a);
    for (int y = 0; partial && y < a.block_h; ++y)
        for (int x = 0; x < a.block_w; ++x) {
            const Bits mask = inside(a, y, x);
            for (int lane = 0; lane < LANES; ++lane) masks.push_back(mask[lane]);
        }
    const float share = 1.0f / (float(a.tensor.rows) * float(a.tensor.columns));
    return step("mean", a, 1, [=](const Memory& m, int part, int parts) {
        const Share mine(a.planes, part, parts);
        for (long c = mine.first; c < mine.last; ++c) {
            Vec sum{};
            const BitsAnywhere* mask = reinterpret_cast<const BitsAnywhere*>(masks.data());
            for (int y = 0; y < a.block_h; ++y) {
                const Vec* from = row(m, a, c, y);
                for (int x = 0; x < a.block_w; ++x) sum += partial ? Vec(Bits(from[x]) & Bits(*mask++)) : from[x];
            }
            if (out.form == Form::PLAIN) reinterpret_cast<float*>(m.at(out))[c] = sum_of(sum) * share;
            else *row_of(m, out, c, 0) = sum * share;
        }
    });
}

// ---- softmax: a vector's, or of many images lane by lane

StepPtr softmax(const Place& a, const Place& out) {
    const int images = a.form == Form::LANED ? LANES : 1;
    const long n = a.tensor.channels, next = a.form == Form::LANED ? a.plane / 4 : 1, to_next = out.form == Form::LANED ? out.plane / 4 : 1;
    return step("softmax", out, 30, [=](const Memory& m, int part, int parts) {
        const Share mine(images, part, parts);
        for (long image = mine.first; image < mine.last; ++image) {
            const float* from = reinterpret_cast<const float*>(m.at(a)) + image;
            float* to = reinterpret_cast<float*>(m.at(out)) + image;
            float largest = from[0], sum = 0;
            for (long c = 1; c < n; ++c) largest = from[c * next] > largest ? from[c * next] : largest;
            for (long c = 0; c < n; ++c) sum += to[c * to_next] = std::exp(from[c * next] - largest);
            for (long c = 0; c < n; ++c) to[c * to_next] /= sum;
        }
    });
}

// ---- halos

// Vector `to` of a plane is vector `from`, seen `shift` lanes further, in the lanes of a mask.
struct Move {
    long to, from;
    int mask;
};

struct Moves {
    std::vector<int32_t> masks;  // LANES each
    std::vector<Move> moves;

    int known(Bits mask) {
        int32_t bits[LANES];
        memcpy(bits, &mask, VECTOR);
        for (size_t i = 0; i < masks.size(); i += LANES)
            if (!memcmp(&masks[i], bits, VECTOR)) return i / LANES;
        masks.insert(masks.end(), bits, bits + LANES);
        return masks.size() / LANES - 1;
    }
};

int floor_div(int a, int b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

// First what lies beyond the edge, then the halo around it, which reads the former.
Moves moves_of(const Place& p) {
    Moves all;
    const auto add = [&](int y, int x) {
        const int down = floor_div(y, p.block_h), right = floor_div(x, p.block_w);
        const int yy = y - down * p.block_h, xx = x - right * p.block_w;
        const Bits mask = inside(p, yy, xx, down, right);
        const long shift = (long(down) * p.lanes.grid_w + right) * p.lanes.images * 4;
        bool none = true;
        for (int lane = 0; lane < LANES; ++lane) none = none && !mask[lane];
        if (!down && !right && all_set(mask)) return;
        all.moves.push_back({y * p.row + x * VECTOR, none ? 0 : yy * p.row + xx * VECTOR + shift, all.known(mask)});
    };
    for (int y = 0; y < p.block_h; ++y)
        for (int x = 0; x < p.block_w; ++x) add(y, x);
    for (int y = -p.halo.top; y < p.block_h + p.halo.bottom; ++y)
        for (int x = -p.halo.left; x < p.block_w + p.halo.right; ++x)
            if (y < 0 || x < 0 || y >= p.block_h || x >= p.block_w) add(y, x);
    return all;
}

// ---- relayouts

// Where a pixel lies is the sum of what its row says and what its column says, in either form.
struct Steps {
    std::vector<long> rows;
    std::vector<int32_t> columns;
    long channel(long c) const { return quads ? c / 4 * plane + c % 4 : c * plane; }
    long image = 0;
    bool quads = false;
    long plane = 0;

    explicit Steps(const Place& p) : plane(p.plane) {
        const bool laned = p.form == Form::LANED;
        const long size = p.tensor.type == Type::F32 ? 4 : 1;
        quads = laned && size == 1;
        image = laned ? 4 : p.tensor.channels * p.plane;
        for (int r = 0; r < p.tensor.rows; ++r)
            rows.push_back(laned ? r % p.block_h * p.row + r / p.block_h * p.lanes.grid_w * p.lanes.images * 4 : r * p.row);
        for (int c = 0; c < p.tensor.columns; ++c)
            columns.push_back(laned ? c % p.block_w * VECTOR + c / p.block_w * p.lanes.images * 4 : c * size);
    }
};

template <class T>
void move_pixels(const Steps& from, const Steps& to, const char* in, char* out, Share mine, int images) {
    const int32_t *in_columns = from.columns.data(), *out_columns = to.columns.data();
    const long columns = from.columns.size(), rows = from.rows.size();
    for (long c = mine.first; c < mine.last; ++c)
        for (int n = 0; n < images; ++n) {
            const char* a = in + from.channel(c) + n * from.image;
            char* b = out + to.channel(c) + n * to.image;
            for (long r = 0; r < rows; ++r) {
                const char* p = a + from.rows[r];
                char* q = b + to.rows[r];
                for (long x = 0; x < columns; ++x) memcpy(q + out_columns[x], p + in_columns[x], sizeof(T));
            }
        }
}

}  // namespace

StepPtr halo(const std::string&, const Place& place, uint32_t fill) {
    const Moves moves = moves_of(place);
    auto s = step("halo", place, 0, [=](const Memory& m, int part, int parts) {
        const Share mine(place.planes, part, parts);
        const Bits outside = Bits{} + int32_t(fill);
        const BitsAnywhere* masks = reinterpret_cast<const BitsAnywhere*>(moves.masks.data());
        for (long c = mine.first; c < mine.last; ++c) {
            char* plane = m.at(place) + c * place.plane;
            for (const Move& move : moves.moves) {
                const Bits mask = masks[move.mask], v = *reinterpret_cast<const BitsAnywhere*>(plane + move.from);
                *reinterpret_cast<BitsAligned*>(plane + move.to) = (v & mask) | (outside & ~mask);
            }
        }
    });
    s->predicted_ns += 0.9 * moves.moves.size() * place.planes;
    return s;
}

// A picture as it is written, whatever the shape that its numbers have afterwards: flattening is this and no more.
static Place unflattened(const Place& out, const Tensor& picture) {
    Place p = out;
    if (out.form == Form::LANED) return p;
    p.tensor = picture;
    p.row = picture.columns * (picture.type == Type::F32 ? 4L : 1L);
    p.plane = picture.rows * p.row;
    return p;
}

StepPtr relayout(const std::string&, const Place& in, const Place& out) {
    const Steps from(in), to(unflattened(out, in.tensor));
    const int images = in.form == Form::LANED ? in.lanes.images : out.form == Form::LANED ? out.lanes.images : 1;
    auto s = step("relayout", in, 0, [=](const Memory& m, int part, int parts) {
        const Share mine(in.tensor.channels, part, parts);
        const auto move = in.tensor.type == Type::F32 ? move_pixels<float> : move_pixels<uint8_t>;
        move(from, to, m.at(in), m.at(out), mine, images);
    });
    s->predicted_ns += 0.8 * in.tensor.numbers() * images;
    return s;
}

StepPtr simple(const Op& op, const std::vector<const Place*>& in, const Place& out) {
    switch (op.kind) {
        case Kind::MAX_POOL: return max_pool(op, *in[0], out);
        case Kind::AVG_POOL: return avg_pool(op, *in[0], out);
        case Kind::GLOBAL_POOL: return global_pool(*in[0], out);
        case Kind::ADD: return add(op, *in[0], *in[1], out);
        case Kind::MUL: return multiply(op, *in[0], *in[1], out);
        case Kind::ACTIVATE: return activation(op, *in[0], out);
        case Kind::AFFINE: return affine(op, *in[0], out);
        case Kind::CONCAT: return concat(in, out);
        case Kind::GATHER: return gather(op, *in[0], out);
        case Kind::FLATTEN: return flatten(*in[0], out);
        case Kind::SOFTMAX: return softmax(*in[0], out);
        default: throw Refused(op.name + ": no kernel for this operation in floats");
    }
}

}  // namespace prunery::engine
