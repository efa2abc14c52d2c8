// Throws spoilt files at the reader, and what it accepts at the kernels: built with -fsanitize=address,undefined, so that one step out of bounds
// ends the campaign. With -DPRUNERY_FUZZ_RUN it is linked with all of the engine and runs accepted files; without, with reader.cpp alone.
//
//   fuzz FOLDER ITERATIONS [SEED [FIRST]]
//
// FOLDER holds sound files (tests/engine/nets.py makes them). Iteration i depends on SEED and i only: `fuzz FOLDER 1 SEED i` repeats it. When
// something is wrong, the file at fault is left in crash.prunery; Ctrl-C ends a campaign with its counts. Many mutations are noise, mostly in
// the tables, for the reader; others change sizes, windows, types and weights and then make the rest of the file fit, for the kernels. The
// checksum is always repaired.

#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>

#include "../engine.h"
#include "../records.h"

PRUNERY_EXPORT uint32_t prunery_engine_crc32(const uint8_t* bytes, uint64_t size);

// Whatever is found ends in SIGABRT, so that the file at fault can be kept. Short histories of blocks of memory, since iterations are many.
extern "C" const char* __asan_default_options() { return "abort_on_error=1:malloc_context_size=4:quarantine_size_mb=16"; }
extern "C" const char* __ubsan_default_options() { return "abort_on_error=1:print_stacktrace=1"; }

namespace prunery::engine {
namespace {

using Bytes = std::vector<uint8_t>;

struct Random {
    uint64_t state;
    uint64_t next() {  // splitmix64
        uint64_t z = state += 0x9e3779b97f4a7c15;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        return z ^ z >> 31;
    }
    uint32_t below(uint32_t end) { return uint32_t((next() >> 32) * end >> 32); }
    uint32_t from(uint32_t least, uint32_t most) { return least + below(most - least + 1); }
    bool one_in(uint32_t many) { return below(many) == 0; }
    float number() { return float(int64_t(next() >> 40)) * 0x1p-23f - 1; }  // -1 to 1
};

// ---- noise

// What fields compare themselves with, and where sums turn round; the last row is infinite, not a number, -128 and -1.
constexpr uint32_t NUMBERS[] = {
    0,   1,   2,   3,   4,   5,   7,   8,   15,       16,       17,           31,       32,       63,       64,         127,        128,
    192, 254, 255, 256, 257, 1u << 15, 65535, 65536, 1u << 20, (1u << 20) + 1, 1u << 24, 1u << 28, 1u << 30, 0x7fffffff, 1u << 31,
    0x7f800000, 0x7fc00000, 0xffffff80, 0xffffffff,
};

template <class T>
T load(const Bytes& bytes, size_t at) {
    T value;
    memcpy(&value, bytes.data() + at, sizeof value);
    return value;
}

template <class T>
void store(Bytes& bytes, size_t at, const T& value) {
    memcpy(bytes.data() + at, &value, sizeof value);
}

size_t end_of_tables(const Bytes& bytes) {
    const Header h = load<Header>(bytes, 0);
    return std::min(bytes.size(), sizeof h + h.tensors * sizeof(TensorRecord) + h.ops * sizeof(OpRecord) + h.inputs * 4ul + h.names + h.about);
}

void noise(Bytes& bytes, Random& random) {
    for (uint32_t times = random.from(1, 3); times; --times) {
        const size_t tables = end_of_tables(bytes), within = random.one_in(4) ? bytes.size() : tables;
        const size_t at = 16 + random.below(uint32_t(within - 16)), word = std::min(at / 4 * 4, bytes.size() - 4);
        switch (random.below(9)) {
            case 0: bytes[at] ^= uint8_t(1 << random.below(8)); break;
            case 1: bytes[at] = uint8_t(random.next()); break;
            case 2:
            case 3: store(bytes, word, NUMBERS[random.below(sizeof NUMBERS / sizeof *NUMBERS)]); break;
            case 4: store(bytes, word, load<uint32_t>(bytes, word) + random.from(0, 8) - 4); break;
            case 5: store(bytes, word, load<uint32_t>(bytes, 16 + random.below(uint32_t(tables - 16)) / 4 * 4)); break;
            case 6: store(bytes, word, load<uint32_t>(bytes, word) ^ 1u << random.below(32)); break;
            case 7:
                if (random.one_in(4)) bytes.resize(std::max<size_t>(tables, bytes.size() - std::min<size_t>(bytes.size() - 64, random.below(300))));
                break;
            default:
                if (random.one_in(4)) bytes.resize(bytes.size() + random.below(200), uint8_t(random.next()));
        }
    }
}

// ---- changes that keep a file whole

// A file whose tables can be changed and to which arrays can be added.
class Mutant {
  public:
    Mutant(Bytes& bytes, Random& random) : bytes(bytes), random(random), header(load<Header>(bytes, 0)) {
        ops_at = sizeof header + header.tensors * sizeof(TensorRecord);
        inputs_at = ops_at + header.ops * sizeof(OpRecord);
        for (uint32_t t = 0; t < header.tensors; ++t) tensors.push_back(load<TensorRecord>(bytes, sizeof header + t * sizeof(TensorRecord)));
        for (uint32_t o = 0; o < header.ops; ++o) ops.push_back(load<OpRecord>(bytes, ops_at + o * sizeof(OpRecord)));
    }

    void change() {
        for (uint32_t times = random.from(1, 4); times; --times)
            random.one_in(3) ? change(tensors[header.input]) : change(ops[random.below(header.ops)]);
        for (OpRecord& op : ops) fit(op);
        for (uint32_t t = 0; t < header.tensors; ++t) store(bytes, sizeof header + t * sizeof(TensorRecord), tensors[t]);
        for (uint32_t o = 0; o < header.ops; ++o) store(bytes, ops_at + o * sizeof(OpRecord), ops[o]);
    }

  private:
    Bytes& bytes;
    Random& random;
    Header header;
    size_t ops_at, inputs_at;
    std::vector<TensorRecord> tensors;
    std::vector<OpRecord> ops;

    static bool is(const OpRecord& op, Kind kind) { return op.kind == uint32_t(kind); }
    static bool has_matrix(const OpRecord& op) { return is(op, Kind::CONV) || is(op, Kind::LINEAR); }
    static bool is_pool(const OpRecord& op) { return is(op, Kind::MAX_POOL) || is(op, Kind::AVG_POOL); }
    TensorRecord& input(const OpRecord& op, uint32_t i) {
        return tensors[load<uint32_t>(bytes, inputs_at + 4 * (op.first_input + i)) % header.tensors];
    }

    void change(TensorRecord& t) {
        const bool vector = t.rows == 1 && t.columns == 1;
        switch (random.below(4)) {
            case 0: t.channels = random.from(1, vector ? 300 : 20); break;
            case 1: t.rows = random.from(1, vector ? 1 : 40); break;
            case 2: t.columns = random.from(1, vector ? 1 : 40); break;
            default:
                if (!vector) t.rows = random.from(1, 5), t.columns = random.from(1, 5);
        }
    }

    void change(OpRecord& op) {
        const bool window = is(op, Kind::CONV) || is_pool(op);
        const uint32_t axis = random.below(2);
        switch (random.below(window ? 12 : 5)) {
            case 0: change_type(op); break;
            case 1:
                op.activation = random.below(11);
                op.slope = op.activation == uint32_t(Activation::LEAKY_RELU) || op.activation == uint32_t(Activation::ELU) ? random.number() : 0;
                break;
            case 2:
            case 3:
                if (has_matrix(op)) op.outputs = random.from(1, 40), op.encoding = 0;
                break;
            case 4: op.encoding = 0; break;
            case 5:
            case 6: op.kernel[axis] = random.from(1, random.one_in(5) ? 11 : 5); break;
            case 7: op.stride[axis] = random.from(1, random.one_in(5) ? 9 : 3); break;
            case 8: op.dilation[axis] = random.one_in(2) ? random.from(1, 4) : 1; break;
            case 9:
                if (is(op, Kind::CONV)) op.groups = random.one_in(2) ? 0 : random.from(1, 4);
                break;
            case 10:
                if (is(op, Kind::AVG_POOL)) op.count_padding ^= 1;
                break;
            default: op.padding[random.below(4)] = random.from(0, 6);
        }
    }

    // What the output of a quantised operation means; of a float one nothing.
    void change_type(OpRecord& op) {
        TensorRecord& y = tensors[op.output % header.tensors];
        if (y.type == 0) return;
        const int exponent = random.one_in(4) ? int(random.below(62)) - 39 : int(random.below(20)) - 12;  // as far as a reader allows, or as usual
        y.scale = std::ldexp(1 + random.number() / 2, exponent);
        y.zero = random.one_in(3) ? 0 : random.below(256);
    }

    void fit(OpRecord& op) {
        if (op.output >= header.tensors || !op.inputs || op.kind > uint32_t(Kind::DEQUANTIZE)) return;
        const TensorRecord x = input(op, 0);
        TensorRecord y = tensors[op.output];
        if (has_matrix(op) && op.inputs == 2) fit_residual(op, x);
        y.channels = x.channels, y.rows = x.rows, y.columns = x.columns;
        switch (Kind(op.kind)) {
            case Kind::CONV:
                if (op.groups == 0) op.groups = op.outputs = x.channels, op.encoding = 0;  // each channel on its own
                if (x.channels % op.groups || op.outputs % op.groups) op.groups = 1;
                y.channels = op.outputs;
                fit_windows(op, x, y);
                fit_matrix(op, x.channels / op.groups * op.kernel[0] * op.kernel[1]);
                break;
            case Kind::MAX_POOL:
            case Kind::AVG_POOL:
                if (is(op, Kind::AVG_POOL)) op.dilation[0] = op.dilation[1] = 1;
                fit_windows(op, x, y);
                break;
            case Kind::LINEAR:
                y.channels = op.outputs;
                fit_matrix(op, x.channels);
                break;
            case Kind::GLOBAL_POOL: y.rows = y.columns = 1; break;
            case Kind::AFFINE:
                op.outputs = x.channels;
                fit_matrix(op, 1);
                break;
            case Kind::CONCAT:
                y.channels = 0;
                for (uint32_t i = 0; i < op.inputs; ++i) y.channels += input(op, i).channels;
                break;
            case Kind::GATHER: fit_index(op, x, y); break;
            case Kind::FLATTEN: y.channels *= y.rows * y.columns, y.rows = y.columns = 1; break;
            default: break;
        }
        if (is(op, Kind::MAX_POOL) || is(op, Kind::CONCAT) || is(op, Kind::GATHER) || is(op, Kind::FLATTEN)) y.scale = x.scale, y.zero = x.zero;
        if (y.type == 1 && op.activation > 2) op.activation = 0, op.slope = 0;
        tensors[op.output] = y;
    }

    // A convolution with a residual keeps the size of its picture.
    void fit_residual(OpRecord& op, const TensorRecord& x) {
        const TensorRecord& residual = input(op, 1);
        if (op.outputs != residual.channels) op.outputs = residual.channels, op.encoding = 0;
        if (residual.rows != x.rows || residual.columns != x.columns) return;
        for (int axis = 0; axis < 2; ++axis) {
            const uint32_t reach = op.dilation[axis] * (op.kernel[axis] - 1);
            op.stride[axis] = 1;
            op.padding[axis] = std::min(op.padding[axis], reach);
            op.padding[axis + 2] = reach - op.padding[axis];
        }
    }

    void fit_windows(OpRecord& op, const TensorRecord& x, TensorRecord& y) {
        const uint32_t size[] = {x.rows, x.columns};
        uint32_t* const out[] = {&y.rows, &y.columns};
        for (int axis = 0; axis < 2; ++axis) {
            if (is_pool(op)) op.dilation[axis] = std::min(op.dilation[axis], size[axis]);
            const auto extent = [&] { return op.dilation[axis] * (op.kernel[axis] - 1) + 1; };
            uint32_t &before = op.padding[axis], &behind = op.padding[axis + 2];
            while (op.kernel[axis] > 1 && size[axis] + 2 * (extent() - 1) < extent()) --op.kernel[axis];
            before = std::min(before, extent() - 1), behind = std::min(behind, extent() - 1);
            while (size[axis] + before + behind < extent()) before < extent() - 1 ? ++before : ++behind;
            const uint32_t span = size[axis] + before + behind - extent(), whole = span / op.stride[axis] + 1;
            const uint32_t cut = (span + op.stride[axis] - 1) / op.stride[axis] + 1;
            const bool sticks_out = is_pool(op) && (cut - 1) * op.stride[axis] < size[axis] + before && random.one_in(2);
            *out[axis] = sticks_out ? cut : whole;
        }
    }

    void fit_index(OpRecord& op, const TensorRecord& x, TensorRecord& y) {
        y.channels = random.one_in(4) ? random.from(1, 20) : y.channels ? tensors[op.output].channels : 1;
        std::vector<uint32_t> index(y.channels);
        for (uint32_t& channel : index) channel = random.below(x.channels);
        op.gather_at = append(index);
    }

    // New weights where the old ones do not fit: dense or sparse, of any density and encoding.
    void fit_matrix(OpRecord& op, uint32_t columns) {
        if (op.columns == columns && op.encoding) return;
        if (uint64_t(op.outputs) * columns > 1 << 16) return;  // too large to be worth it
        op.columns = columns;
        const bool bytes = op.values == 2;
        if (!bytes) op.values = is(op, Kind::AFFINE) ? 0 : random.below(2);
        op.encoding = is(op, Kind::AFFINE) ? 1 : random.from(1, 2);
        const uint32_t kept_of_8 = op.encoding == 1 ? 8 : random.below(9);
        std::vector<uint32_t> start(1), wide;
        for (uint32_t o = 0; o < op.outputs; ++o) {
            for (uint32_t i = 0; i < columns; ++i)
                if (random.below(8) < kept_of_8) wide.push_back(i);
            start.push_back(uint32_t(wide.size()));
        }
        op.kept = wide.size();
        op.start_at = op.index_at = op.bits = 0;
        if (op.encoding == 2) fit_places(op, start, wide);
        fit_values(op);
        std::vector<float> scales(op.outputs), bias(op.outputs);
        for (float& v : scales) v = std::ldexp(1 + random.number() / 2, -8);
        for (float& v : bias) v = random.number();
        op.scales_at = bytes ? append(scales) : 0;
        op.bias_at = random.one_in(4) && !is(op, Kind::AFFINE) ? 0 : append(bias);
    }

    void fit_places(OpRecord& op, const std::vector<uint32_t>& start, const std::vector<uint32_t>& wide) {
        op.bits = op.columns > 65536 || random.one_in(4) ? 32 : 16;
        op.start_at = append(start);
        op.index_at = op.bits == 32 ? append(wide) : append(std::vector<uint16_t>(wide.begin(), wide.end()));
    }

    void fit_values(OpRecord& op) {
        std::vector<int8_t> bytes(op.kept);
        std::vector<uint16_t> halves(op.kept);
        std::vector<float> floats(op.kept);
        for (int8_t& v : bytes) v = int8_t(random.next());
        for (uint16_t& v : halves) v = uint16_t(random.next() & 0xb7ff);  // below 1
        for (float& v : floats) v = random.number();
        op.values_at = op.values == 2 ? append(bytes) : op.values == 1 ? append(halves) : append(floats);
    }

    template <class T>
    uint64_t append(const std::vector<T>& array) {
        bytes.resize((bytes.size() + 63) / 64 * 64);
        const size_t place = bytes.size();
        bytes.resize(place + array.size() * sizeof(T));
        if (!array.empty()) memcpy(bytes.data() + place, array.data(), array.size() * sizeof(T));
        return place;
    }
};

void seal(Bytes& bytes, Random& random) {
    if (bytes.size() < sizeof(Header)) return;
    if (!random.one_in(64)) store(bytes, 16, uint64_t(bytes.size()));
    store(bytes, 12, prunery_engine_crc32(bytes.data() + 16, bytes.size() - 16));
}

// ---- what is done with a file

struct Count {
    long accepted = 0, refused = 0, ran = 0, large = 0, unplanned = 0;
    std::map<std::string, long> kernels, reasons;
};

// Memory of exactly this size, so that whoever leaves it is caught.
struct Block {
    uint8_t* bytes = nullptr;
    explicit Block(size_t size) {
        void* found = nullptr;
        if (posix_memalign(&found, 64, std::max<size_t>(size, 1))) abort();
        bytes = static_cast<uint8_t*>(found);
    }
    ~Block() { free(bytes); }
    Block(const Block&) = delete;
};

const Bytes* at_fault = nullptr;
long iteration = 0;
volatile sig_atomic_t interrupted = 0;

void leave_behind() {
    fprintf(stderr, "\niteration %ld; its file is in crash.prunery\n", iteration);
    FILE* file = at_fault ? fopen("crash.prunery", "wb") : nullptr;
    if (!file) return;
    fwrite(at_fault->data(), 1, at_fault->size(), file);
    fclose(file);
}

[[noreturn]] void give_up(const char* why) {
    fprintf(stderr, "%s\n", why);
    leave_behind();
    _exit(1);
}

#ifdef PRUNERY_FUZZ_RUN

constexpr bool RUNS = true;

// Small enough to be run thousands of times.
bool is_small(const Graph& graph) {
    double numbers = 0, work = 0;
    for (const Tensor& t : graph.tensors) numbers += double(t.numbers());
    for (const Op& op : graph.ops) {
        const Tensor &x = graph.tensors[op.inputs[0]], &y = graph.tensors[op.output];
        const double area = double(op.kernel_h) * op.kernel_w, matrix = double(op.weights.outputs) * op.weights.inputs;
        const double reach_h = op.dilation_h * op.kernel_h * 2 + op.stride_h, reach_w = op.dilation_w * op.kernel_w * 2 + op.stride_w;
        numbers += x.channels * ((x.rows + 4 * reach_h) * (x.columns + 4 * reach_w)) * (area > 1 || op.stride_h * op.stride_w > 1);
        work += matrix > 0 ? double(y.rows) * y.columns * matrix : double(y.numbers()) * area;
        numbers += matrix;
    }
    return numbers < 1e6 && work < 3e6;
}

void fill(uint8_t* to, const Tensor& t, int images, Random& random) {
    for (long i = 0; i < t.numbers() * images; ++i) {
        const float value = random.number() * 3;
        if (t.type == Type::U8) to[i] = uint8_t(random.next());
        else memcpy(to + 4 * i, &value, 4);
    }
}

long bytes_of(const Tensor& t) { return t.numbers() * (t.type == Type::F32 ? 4 : 1); }

// `parts` threads, one after the other: each does what it would do beside the others.
Bytes outputs(const Plan& plan, const uint8_t* images, int parts) {
    const Block arena(size_t(plan.arena));
    memset(arena.bytes, 0, size_t(plan.arena));
    const Memory memory{reinterpret_cast<char*>(arena.bytes)};
    memcpy(memory.at(plan.input), images, size_t(bytes_of(plan.input.tensor) * plan.images));
    for (const StepPtr& step : plan.steps)
        for (int part = 0; part < parts; ++part) step->run(memory, part, parts);
    const uint8_t* const from = reinterpret_cast<uint8_t*>(memory.at(plan.output));
    return Bytes(from, from + bytes_of(plan.output.tensor) * plan.images);
}

// Whether all paths give about the same, where nothing overflows. Bytes may round to a neighbour behind sums of floats.
bool close(const uint8_t* a, const uint8_t* b, const Tensor& t) {
    double most = 0, apart = 0;
    for (long i = 0; i < t.numbers(); ++i) {
        float x = a[t.type == Type::U8 ? i : 0], y = b[t.type == Type::U8 ? i : 0];
        if (t.type == Type::F32) memcpy(&x, a + 4 * i, 4), memcpy(&y, b + 4 * i, 4);
        if (!std::isfinite(x) || !std::isfinite(y)) return true;
        most = std::max(most, double(std::fabs(x)));
        apart = std::max(apart, double(std::fabs(x - y)));
    }
    return apart <= 1e-3 * most + 1e-20;
}

void run(const Graph& graph, Random random, Count& count) {
    std::unique_ptr<Plan> one, many;
    try {
        one = plan(graph, false), many = plan(graph, true);
    } catch (const Refused& refusal) {
        ++count.unplanned;
        ++count.reasons[refusal.what()];
        return;
    }
    for (const auto* p : {&one, &many})
        for (const StepPtr& step : (*p)->steps) ++count.kernels[step->kernel];
    const Tensor &in = graph.tensors[graph.input], &out = graph.tensors[graph.output];
    const Block images(size_t(bytes_of(in)) * LANES);
    fill(images.bytes, in, LANES, random);
    const Bytes all = outputs(*many, images.bytes, 1), shared = outputs(*many, images.bytes, 3);
    if (all != shared) give_up("three threads give something else than one");
    for (int image : {0, LANES - 1}) {
        const uint8_t* const x = images.bytes + image * bytes_of(in);
        const Bytes alone = outputs(*one, x, 1);
        if (alone != outputs(*one, x, 2)) give_up("two threads give something else than one, for one image");
        if (!close(alone.data(), all.data() + image * bytes_of(out), out)) give_up("one image gives something else alone than among others");
    }
    ++count.ran;
}

#else

constexpr bool RUNS = false;
bool is_small(const Graph&) { return false; }
void run(const Graph&, const Random&, Count&) {}

#endif

void try_out(const Bytes& bytes, const Random& random, Count& count) {
    const Block exact(bytes.size());
    memcpy(exact.bytes, bytes.data(), bytes.size());
    Graph graph;
    try {
        graph = read(exact.bytes, bytes.size());
    } catch (const Refused& refusal) {
        if (strchr(refusal.what(), '\n')) give_up("a refusal of more than one line");
        ++count.refused;
        return;
    }
    ++count.accepted;
    is_small(graph) ? run(graph, random, count) : void(++count.large);
}

std::vector<Bytes> seeds(const char* folder) {
    std::vector<std::string> names;
    DIR* const found = opendir(folder);
    if (!found) return {};
    while (const dirent* entry = readdir(found))
        if (entry->d_name[0] != '.') names.push_back(std::string(folder) + "/" + entry->d_name);
    closedir(found);
    std::sort(names.begin(), names.end());
    std::vector<Bytes> files;
    for (const std::string& name : names) {
        FILE* const file = fopen(name.c_str(), "rb");
        if (!file) continue;
        Bytes bytes(1 << 20);
        bytes.resize(fread(bytes.data(), 1, bytes.size(), file));
        fclose(file);
        files.push_back(std::move(bytes));
    }
    return files;
}

double now() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

int campaign(const std::vector<Bytes>& files, long first, long iterations, uint64_t seed) {
    Count count;
    for (const Bytes& file : files) {
        at_fault = &file;
        try_out(file, Random{seed}, count);
        if (count.refused) give_up("a seed is refused");
    }
    const double start = now();
    Bytes bytes;
    at_fault = &bytes;
    for (iteration = first; iteration < first + iterations && !interrupted; ++iteration) {
        Random random{seed * 0x9e3779b97f4a7c15 + uint64_t(iteration)};
        random.next();
        bytes = files[random.below(uint32_t(files.size()))];
        const bool whole = random.one_in(RUNS ? 2 : 4);
        if (whole) Mutant(bytes, random).change();
        if (!whole || random.one_in(2)) noise(bytes, random);
        seal(bytes, random);
        try_out(bytes, random, count);
    }
    const double seconds = now() - start;
    for (const auto& [reason, times] : count.reasons) printf("no plan  %6ld  %s\n", times, reason.c_str());
    for (const auto& [kernel, times] : count.kernels) printf("kernel   %6ld  %s\n", times, kernel.c_str());
    printf("%ld mutations in %.1f s: %ld accepted, %ld refused, %ld ran, %ld too large to run, %ld without a plan\n", iteration - first, seconds,
           count.accepted, count.refused, count.ran, count.large, count.unplanned);
    return 0;
}

}  // namespace
}  // namespace prunery::engine

int main(int count, char** words) {
    const auto files = count < 3 ? std::vector<prunery::engine::Bytes>() : prunery::engine::seeds(words[1]);
    if (files.empty()) {
        fprintf(stderr, "use: %s FOLDER ITERATIONS [SEED [FIRST]], where the folder holds packed files\n", words[0]);
        return 2;
    }
    signal(SIGINT, [](int) { prunery::engine::interrupted = 1; });
    signal(SIGABRT, [](int) { prunery::engine::leave_behind(), _exit(1); });
    return prunery::engine::campaign(files, count > 4 ? atol(words[4]) : 0, atol(words[2]), count > 3 ? strtoul(words[3], nullptr, 10) : 0);
}
