// One training block: convolution (stride 1) + bias + ReLU + maximum over 2x2 windows, forward and backward.
//
// Images lie in the lanes of a vector: a group of LANES images is transposed once on entry, [channel][y][x][lane], zero padding
// included. Then any kernel size, padding and number of channels is the same full-vector code without a tail, and only the last
// group of a batch may have idle lanes (zeros). Groups are shared out to threads; each leaves its own partial sums, which are added in the
// order of the groups: the result depends neither on the number of threads nor on who did what.
//
// The library allocates nothing: the caller asks prunery_convpool_sizes and brings buffers aligned to 64 bytes.

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>

#include "vector.h"

namespace {

using prunery::LANES;
using prunery::Vec;

typedef int32_t Ints __attribute__((vector_size(PRUNERY_VECTOR_BYTES)));
typedef int8_t Codes __attribute__((vector_size(LANES)));
typedef float Loose __attribute__((vector_size(PRUNERY_VECTOR_BYTES), aligned(4), may_alias));

// What torch hands over; the order of the fields is that of blocks.py.
struct Shape {
    int32_t images, channels, height, width, outputs, kernel, padding, pool;
};

// The extents that follow; "pitch" is the distance between rows and "plane" between channels, in vectors.
struct Extents : Shape {
    int groups, conv_h, conv_w, out_h, out_w;
    long taps, in_pitch, in_plane, in_vectors, out_vectors, grad_pitch, grad_plane;

    explicit Extents(const Shape& shape) : Shape(shape) {
        groups = (images + LANES - 1) / LANES;
        conv_h = height + 2 * padding - kernel + 1;
        conv_w = width + 2 * padding - kernel + 1;
        out_h = conv_h / pool;
        out_w = conv_w / pool;
        taps = long(channels) * kernel * kernel;
        in_pitch = width + 2 * padding;
        in_plane = in_pitch * (height + 2 * padding);
        in_vectors = channels * in_plane + in_pitch + 1;  // a 2x2 block at an odd edge reads one row and one column further
        out_vectors = long(outputs) * out_h * out_w;
        grad_pitch = conv_w + 2;  // with a frame of one, for the same reason
        grad_plane = grad_pitch * (conv_h + 2);
    }
    int present(int group) const { return images - group * LANES < LANES ? images - group * LANES : LANES; }
    long image_size() const { return long(channels) * height * width; }
    long sums() const { return outputs * taps + outputs; }  // of a group: the gradients of weights and biases
    long saved_bytes() const { return in_vectors * long(sizeof(Vec)) + (out_vectors * LANES + 63) / 64 * 64; }
    long packed_bytes() const { return (outputs * taps * 4 + 63) / 64 * 64; }
    long partial_bytes() const { return (groups * sums() * 4 + 63) / 64 * 64; }
    long backward_vectors() const { return out_vectors + outputs * grad_plane + sums() + image_size(); }
};

// ---- images <-> lanes

template <int... I>
inline Vec interleave(Vec a, Vec b, int, std::integer_sequence<int, I...>) {
#ifdef __clang__
    return __builtin_shufflevector(a, b, I...);
#else
    return __builtin_shuffle(a, b, Ints{I...});
#endif
}

template <int HALF, int... I>
inline Vec zip(Vec a, Vec b, std::integer_sequence<int, I...>) {
    return interleave(a, b, 0, std::integer_sequence<int, (HALF * LANES / 2 + I / 2 + I % 2 * LANES)...>());
}

// Zipping the first half of the rows with the second turns row and lane numbers by one bit; doing it log2(LANES) times swaps them.
inline void transpose(Vec (&v)[LANES]) {
    using Lanes = std::make_integer_sequence<int, LANES>;
#pragma GCC unroll 4
    for (int done = 1; done < LANES; done *= 2) {
        Vec t[LANES];
#pragma GCC unroll 8
        for (int i = 0; i < LANES / 2; ++i) {
            t[2 * i] = zip<0>(v[i], v[i + LANES / 2], Lanes());
            t[2 * i + 1] = zip<1>(v[i], v[i + LANES / 2], Lanes());
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i) v[i] = t[i];
    }
}

// `put` takes the vectors one after the other. Absent images are zeros.
template <class Put>
inline void to_lanes(const float* images, int present, long size, Put put) {
    long at = 0;
    for (; at + LANES <= size; at += LANES) {
        Vec v[LANES];
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i) v[i] = i < present ? Vec(*reinterpret_cast<const Loose*>(images + i * size + at)) : Vec{};
        transpose(v);
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i) put(v[i]);
    }
    for (; at < size; ++at) {
        Vec v{};
        for (int i = 0; i < present; ++i) v[i] = images[i * size + at];
        put(v);
    }
}

void from_lanes(const Vec* from, float* images, int present, long size) {
    long at = 0;
    for (; at + LANES <= size; at += LANES) {
        Vec v[LANES];
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i) v[i] = from[at + i];
        transpose(v);
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i)
            if (i < present) *reinterpret_cast<Loose*>(images + i * size + at) = v[i];
    }
    for (; at < size; ++at)
        for (int i = 0; i < present; ++i) images[i * size + at] = from[at][i];
}

void load_padded(const Extents& e, const float* images, int present, Vec* to) {
    const int pad = e.padding;
    if (pad) memset(to, 0, e.in_vectors * sizeof(Vec));
    memset(to + e.channels * e.in_plane, 0, (e.in_pitch + 1) * sizeof(Vec));
    Vec* next = to + pad * e.in_pitch + pad;
    int x = 0, y = 0;
    to_lanes(images, present, e.image_size(), [&](Vec v) {
        *next++ = v;
        if (++x < e.width) return;
        x = 0;
        next += 2 * pad;
        if (++y < e.height) return;
        y = 0;
        next += 2 * pad * e.in_pitch;
    });
}

// The sum of each vector's lanes, for many vectors: a transposition and additions.
void sum_lanes(const Vec* from, float* to, long count) {
    for (long at = 0; at < count; at += LANES) {
        Vec v[LANES] = {};
        const long here = count - at < LANES ? count - at : LANES;
        for (long i = 0; i < here; ++i) v[i] = from[at + i];
        transpose(v);
        for (int step = LANES / 2; step; step /= 2)
            for (int i = 0; i < step; ++i) v[i] += v[i + step];
        memcpy(to + at, v, here * sizeof(float));
    }
}

// ---- the convolution: B channels of a 2x2 block of places at a time

constexpr int MOST = PRUNERY_VECTOR_REGISTERS == 32 ? 6 : 3;  // 4 * MOST sums, 4 inputs and MOST weights share the registers

// Channels are cut into blocks of at most MOST, as even as can be: block i begins at i * channels / blocks.
inline int blocks_of(int channels) { return (channels + MOST - 1) / MOST; }

template <class Do, int... B>
inline void with_size(int size, Do& act, std::integer_sequence<int, B...>) {
    (void)((size == B + 1 && (act(std::integral_constant<int, B + 1>()), true)) || ...);
}

// act(constant B, first channel) for every block.
template <class Do>
inline void each_block(int channels, Do act) {
    const int blocks = blocks_of(channels);
    for (int i = 0; i < blocks; ++i) {
        const int first = i * channels / blocks, size = (i + 1) * channels / blocks - first;
        auto sized = [&](auto constant) { act(constant, first); };
        with_size(size, sized, std::make_integer_sequence<int, MOST>());
    }
}

// For each block of channels its weights [in][ky][kx][channel of the block].
void pack(const Extents& e, const float* weights, float* to) {
    each_block(e.outputs, [&](auto B, int first) {
        for (long tap = 0; tap < e.taps; ++tap)
            for (int b = 0; b < B; ++b) *to++ = weights[(first + b) * e.taps + tap];
    });
}

// The same with inputs and outputs exchanged and the kernel turned round: what carries gradients back.
void pack_turned(const Extents& e, const float* weights, float* to) {
    const int area = e.kernel * e.kernel;
    each_block(e.channels, [&](auto B, int first) {
        for (int o = 0; o < e.outputs; ++o)
            for (int tap = area - 1; tap >= 0; --tap)
                for (int b = 0; b < B; ++b) *to++ = weights[o * e.taps + (first + b) * area + tap];
    });
}

// Which taps count: rows [y0, y1) and columns [x0, x1) of a square kernel, over a number of channels.
struct Window {
    int channels, kernel, y0, y1, x0, x1;
    long plane, pitch;
};

// sum[b][2 * i + j] += the taps of place (i, j), which lies i rows below and j columns right of `from`.
template <int B>
inline void convolve(Vec (&sum)[B][4], const Vec* from, const float* weights, const Window& w) {
    for (int channel = 0; channel < w.channels; ++channel) {
        for (int ky = w.y0; ky < w.y1; ++ky) {
            const Vec* row = from + channel * w.plane + ky * w.pitch + w.x0;
            const float* weight = weights + ((channel * w.kernel + ky) * w.kernel + w.x0) * B;
            for (int kx = w.x0; kx < w.x1; ++kx, ++row, weight += B) {
                const Vec in[4] = {row[0], row[1], row[w.pitch], row[w.pitch + 1]};
#pragma GCC unroll 6
                for (int b = 0; b < B; ++b) {
                    const float scale = weight[b];
#pragma GCC unroll 4
                    for (int i = 0; i < 4; ++i) sum[b][i] += in[i] * scale;
                }
            }
        }
    }
}

// ---- forward

constexpr int DEAD = 4;  // the code of a window without a positive value; others say which of its places is the maximum

inline Codes codes(Ints v) { return __builtin_convertvector(v, Codes); }

// As torch does it: the first of equal maxima wins, a NaN wins over all, and ReLU has no gradient at zero.
inline void finish(Vec best, Ints which, Vec* y, Codes* code) {
    const Ints dead = best <= 0;
    *y = dead ? Vec{} : best;
    *code = codes(dead ? Ints{} + DEAD : which);
}

template <int B, int POOL>
void forward_block(const Extents& e, const Vec* in, const float* weights, const float* bias, Vec* y, Codes* code) {
    const Window window{e.channels, e.kernel, 0, e.kernel, 0, e.kernel, e.in_plane, e.in_pitch};
    const long plane = long(e.out_h) * e.out_w;
    const int step = 2 / POOL;
    for (int oy = 0; oy < e.out_h; oy += step) {
        for (int ox = 0; ox < e.out_w; ox += step) {
            Vec sum[B][4];
#pragma GCC unroll 6
            for (int b = 0; b < B; ++b)
#pragma GCC unroll 4
                for (int i = 0; i < 4; ++i) sum[b][i] = Vec{} + (bias ? bias[b] : 0.0f);
            convolve(sum, in + oy * POOL * e.in_pitch + ox * POOL, weights, window);
            const long at = long(oy) * e.out_w + ox;
#pragma GCC unroll 6
            for (int b = 0; b < B; ++b) {
                if (POOL == 2) {
                    Vec best = sum[b][0];
                    Ints which{};
#pragma GCC unroll 3
                    for (int i = 1; i < 4; ++i) {
                        const Ints better = (sum[b][i] > best) | (sum[b][i] != sum[b][i]);
                        best = better ? sum[b][i] : best;
                        which = better ? Ints{} + i : which;
                    }
                    finish(best, which, y + b * plane + at, code + b * plane + at);
                } else {
#pragma GCC unroll 4
                    for (int i = 0; i < 4; ++i) {
                        if (oy + i / 2 >= e.out_h || ox + i % 2 >= e.out_w) continue;
                        const long place = b * plane + at + i / 2 * e.out_w + i % 2;
                        finish(sum[b][i], Ints{}, y + place, code + place);
                    }
                }
            }
        }
    }
}

void forward_group(const Extents& e, const float* x, const float* packed, const float* bias, float* y, char* saved, Vec* scratch, int group) {
    const int present = e.present(group);
    Vec* in = reinterpret_cast<Vec*>(saved + group * e.saved_bytes());
    Codes* code = reinterpret_cast<Codes*>(in + e.in_vectors);
    load_padded(e, x + group * LANES * e.image_size(), present, in);
    each_block(e.outputs, [&](auto B, int first) {
        const long skip = long(first) * e.out_h * e.out_w;
        const auto block = e.pool == 2 ? forward_block<B, 2> : forward_block<B, 1>;
        block(e, in, packed + first * e.taps, bias ? bias + first : nullptr, scratch + skip, code + skip);
    });
    from_lanes(scratch, y + group * LANES * e.out_vectors, present, e.out_vectors);
}

// ---- backward

// The gradient of the convolution's result, with a frame of zeros: each window's goes to its maximum. Also the bias's.
template <int POOL>
void spread(const Extents& e, const Vec* dy, const Codes* code, Vec* grad, Vec* dbias) {
    const size_t row = e.grad_pitch * sizeof(Vec);
    const int covered = e.out_h * POOL, beyond = e.conv_w - e.out_w * POOL + 1;  // an odd last row or column got no window
    for (int o = 0; o < e.outputs; ++o) {
        Vec* frame = grad + o * e.grad_plane;
        memset(frame, 0, row);
        memset(frame + (covered + 1) * e.grad_pitch, 0, (e.conv_h + 1 - covered) * row);
        for (int y = 1; y <= covered; ++y) {
            frame[y * e.grad_pitch] = Vec{};
            for (int x = 1; x <= beyond; ++x) frame[(y + 1) * e.grad_pitch - x] = Vec{};
        }
        Vec total{};
        for (int oy = 0; oy < e.out_h; ++oy) {
            Vec* to = grad + o * e.grad_plane + (oy * POOL + 1) * e.grad_pitch + 1;
            for (int ox = 0; ox < e.out_w; ++ox, to += POOL) {
                const Ints which = __builtin_convertvector(*code++, Ints);
                const Vec given = *dy++;
                total += which == DEAD ? Vec{} : given;
#pragma GCC unroll 4
                for (int i = 0; i < POOL * POOL; ++i) to[i / POOL * e.grad_pitch + i % POOL] = which == i ? given : Vec{};
            }
        }
        dbias[o] = total;
    }
}

// dweights[b][t] += over rows x cols places, gradient b times input t.
template <int B, int T>
void correlate(Vec* dweights, const Vec* grad, const Vec* in, const long* offset, const Extents& e, int rows) {
    Vec sum[B][T];
#pragma GCC unroll 6
    for (int b = 0; b < B; ++b)
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) sum[b][t] = dweights[b * e.taps + t];
    for (int y = 0; y < rows; ++y) {
        const Vec* d = grad + y * e.grad_pitch;
        const Vec* tap[T];
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) tap[t] = in + offset[t] + y * e.in_pitch;
        for (long x = 0; x < e.conv_w; ++x, ++d) {
            Vec g[B];
#pragma GCC unroll 6
            for (int b = 0; b < B; ++b) g[b] = d[b * e.grad_plane];
#pragma GCC unroll 4
            for (int t = 0; t < T; ++t) {
                const Vec value = tap[t][x];
#pragma GCC unroll 6
                for (int b = 0; b < B; ++b) sum[b][t] += g[b] * value;
            }
        }
    }
#pragma GCC unroll 6
    for (int b = 0; b < B; ++b)
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) dweights[b * e.taps + t] = sum[b][t];
}

// Where the taps lie in the input, one after the other; divisions would take as long as the sums.
struct Tap {
    const Extents& e;
    long channel = 0;
    int y = 0, x = 0;

    long operator()() {
        const long offset = channel * e.in_plane + y * e.in_pitch + x;
        if (++x == e.kernel) x = 0, ++y;
        if (y == e.kernel) y = 0, ++channel;
        return offset;
    }
};

// Strips of rows whose gradients stay in the first-level cache while all taps pass over them.
template <int B>
void weights_block(const Extents& e, const Vec* grad, const Vec* in, Vec* dweights) {
    constexpr int T = 4;
    const int strip = 16384 / (B * e.conv_w * int(sizeof(Vec))) + 1;
    grad += e.grad_pitch + 1;
    for (int y = 0; y < e.conv_h; y += strip) {
        const int rows = e.conv_h - y < strip ? e.conv_h - y : strip;
        const Vec *g = grad + y * e.grad_pitch, *x = in + y * e.in_pitch;
        Tap next{e};
        for (long tap = 0; tap < e.taps; tap += T) {
            long offset[T];
            const int here = e.taps - tap < T ? e.taps - tap : T;
            for (int t = 0; t < here; ++t) offset[t] = next();
            if (here == T) correlate<B, T>(dweights + tap, g, x, offset, e, rows);
            else for (int t = 0; t < here; ++t) correlate<B, 1>(dweights + tap + t, g, x, offset + t, e, rows);
        }
    }
}

// Taps t of place `at` and of its neighbour that meet the gradient: at - reach <= result < extent.
inline void meet(int at, int kernel, int extent, int* from, int* to) {
    *from = kernel - 2 - at > 0 ? kernel - 2 - at : 0;
    *to = extent + kernel - 1 - at < kernel ? extent + kernel - 1 - at : kernel;
    if (*to < *from) *to = *from;
}

template <int B>
void input_block(const Extents& e, const Vec* grad, const float* weights, Vec* dx) {
    Window w{e.outputs, e.kernel, 0, 0, 0, 0, e.grad_plane, e.grad_pitch};
    const long plane = long(e.height) * e.width;
    const int back = e.kernel - 1;
    for (int y = 0; y < e.height; y += 2) {
        meet(y + e.padding, e.kernel, e.conv_h, &w.y0, &w.y1);
        for (int x = 0; x < e.width; x += 2) {
            meet(x + e.padding, e.kernel, e.conv_w, &w.x0, &w.x1);
            Vec sum[B][4] = {};
            convolve(sum, grad + (y + e.padding - back + 1) * e.grad_pitch + x + e.padding - back + 1, weights, w);
#pragma GCC unroll 6
            for (int b = 0; b < B; ++b)
#pragma GCC unroll 4
                for (int i = 0; i < 4; ++i)
                    if (y + i / 2 < e.height && x + i % 2 < e.width) dx[b * plane + (y + i / 2) * e.width + x + i % 2] = sum[b][i];
        }
    }
}

struct Backward {
    const float* dy;
    const float* turned;
    const char* saved;
    float* partial;
    float* dx;
};

void backward_group(const Extents& e, const Backward& b, Vec* scratch, int group) {
    const int present = e.present(group);
    const Vec* in = reinterpret_cast<const Vec*>(b.saved + group * e.saved_bytes());
    const Codes* code = reinterpret_cast<const Codes*>(in + e.in_vectors);
    Vec *dy = scratch, *grad = dy + e.out_vectors, *sums = grad + e.outputs * e.grad_plane, *dx = sums + e.sums();
    Vec* next = dy;
    to_lanes(b.dy + group * LANES * e.out_vectors, present, e.out_vectors, [&](Vec v) { *next++ = v; });
    (e.pool == 2 ? spread<2> : spread<1>)(e, dy, code, grad, sums + e.outputs * e.taps);
    memset(sums, 0, e.outputs * e.taps * sizeof(Vec));
    each_block(e.outputs, [&](auto B, int first) { weights_block<B>(e, grad + first * e.grad_plane, in, sums + first * e.taps); });
    sum_lanes(sums, b.partial + group * e.sums(), e.sums());
    if (!b.dx) return;
    const long plane = long(e.height) * e.width, per_channel = long(e.outputs) * e.kernel * e.kernel;
    each_block(e.channels, [&](auto B, int first) { input_block<B>(e, grad, b.turned + first * per_channel, dx + first * plane); });
    from_lanes(dx, b.dx + group * LANES * e.image_size(), present, e.image_size());
}

// ---- sharing out

// A team's members all call work(data), which returns when nothing is left to do. The signature is GOMP_parallel's: the caller may
// bring the OpenMP run-time whose threads torch's operators use. They spin for a while after each operator, so that a second pool would find
// no free core; without one (null), the pool below is used.
typedef void (*Team)(void (*work)(void*), void* data, unsigned threads, unsigned flags);

// Sleeping threads, made when first wanted. A job does not wait for those that wake too late to find work, so a busy machine costs nothing.
struct Pool {
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t wake = PTHREAD_COND_INITIALIZER, done = PTHREAD_COND_INITIALIZER;
    void (*work)(void*) = nullptr;
    void* data = nullptr;
    unsigned threads = 0, wanted = 0, working = 0;
    bool busy = false;
};
Pool pool;

void* member(void*) {
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        while (!pool.wanted) pthread_cond_wait(&pool.wake, &pool.lock);
        --pool.wanted;
        ++pool.working;
        pthread_mutex_unlock(&pool.lock);
        pool.work(pool.data);
        pthread_mutex_lock(&pool.lock);
        if (!--pool.working) pthread_cond_signal(&pool.done);
    }
}

bool hire() {
    static const int registered = pthread_atfork(nullptr, nullptr, [] { new (&pool) Pool; });  // threads do not survive a fork
    (void)registered;
    pthread_t thread;
    if (pthread_create(&thread, nullptr, member, nullptr)) return false;
    pthread_detach(thread);
    return ++pool.threads;
}

void own_team(void (*work)(void*), void* data, unsigned threads, unsigned) {
    pthread_mutex_lock(&pool.lock);
    const bool mine = !pool.busy;  // otherwise another Python thread is at it: do this job alone
    if (mine) {
        while (pool.threads < threads - 1 && hire()) {
        }
        pool.busy = true;
        pool.work = work;
        pool.data = data;
        pool.wanted = threads - 1 < pool.threads ? threads - 1 : pool.threads;
        if (pool.wanted == 1) pthread_cond_signal(&pool.wake);
        else pthread_cond_broadcast(&pool.wake);
    }
    pthread_mutex_unlock(&pool.lock);
    work(data);
    if (!mine) return;
    pthread_mutex_lock(&pool.lock);
    pool.wanted = 0;
    while (pool.working) pthread_cond_wait(&pool.done, &pool.lock);
    pool.busy = false;
    pthread_mutex_unlock(&pool.lock);
}

template <class Do>
struct Job {
    Do act;
    int groups;
    std::atomic<int> next_group{0}, next_member{0};

    static void work(void* data) {
        Job& job = *static_cast<Job*>(data);
        const int member = job.next_member++;
        for (int group; (group = job.next_group++) < job.groups;) job.act(group, member);
    }
};

template <class Do>
void share(int groups, int threads, Team team, Do act) {
    Job<Do> job{act, groups};
    const int members = groups < threads ? groups : threads;
    if (members > 1) (team ? team : own_team)(Job<Do>::work, &job, members, 0);
    else Job<Do>::work(&job);
}

}  // namespace

PRUNERY_EXPORT int prunery_convpool_lanes() { return LANES; }

// Bytes to bring: what forward leaves for backward, and the scratch of each.
PRUNERY_EXPORT void prunery_convpool_sizes(const Shape* shape, int threads, int64_t* sizes) {
    const Extents e(*shape);
    sizes[0] = e.groups * e.saved_bytes();
    sizes[1] = e.packed_bytes() + threads * e.out_vectors * long(sizeof(Vec));
    sizes[2] = e.packed_bytes() + e.partial_bytes() + threads * e.backward_vectors() * long(sizeof(Vec));
}

// `bias` may be null.
PRUNERY_EXPORT void prunery_convpool_forward(const Shape* shape, int threads, Team team, const float* x, const float* weights,
                                             const float* bias, float* y, char* saved, char* scratch) {
    const Extents e(*shape);
    float* packed = reinterpret_cast<float*>(scratch);
    Vec* room = reinterpret_cast<Vec*>(scratch + e.packed_bytes());
    pack(e, weights, packed);
    share(e.groups, threads, team, [&](int group, int member) {
        forward_group(e, x, packed, bias, y, saved, room + member * e.out_vectors, group);
    });
}

// `dbias` and `dx` may be null: then they are not wanted.
PRUNERY_EXPORT void prunery_convpool_backward(const Shape* shape, int threads, Team team, const float* dy, const float* weights,
                                              const char* saved, float* dweights, float* dbias, float* dx, char* scratch) {
    const Extents e(*shape);
    float* turned = reinterpret_cast<float*>(scratch);
    float* partial = reinterpret_cast<float*>(scratch + e.packed_bytes());
    Vec* room = reinterpret_cast<Vec*>(scratch + e.packed_bytes() + e.partial_bytes());
    if (dx) pack_turned(e, weights, turned);
    const Backward call{dy, turned, saved, partial, dx};
    share(e.groups, threads, team, [&](int group, int member) { backward_group(e, call, room + member * e.backward_vectors(), group); });
    for (int group = 1; group < e.groups; ++group)
        for (long i = 0; i < e.sums(); ++i) partial[i] += partial[group * e.sums() + i];
    memcpy(dweights, partial, e.outputs * e.taps * sizeof(float));
    if (dbias) memcpy(dbias, partial + e.outputs * e.taps, e.outputs * sizeof(float));
}
