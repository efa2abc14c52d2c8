// Bytes -> Graph. The file may come from a stranger: whatever it could get wrong is refused here, in one line that says what was seen and
// what was expected, and nothing behind this file looks twice. docs/format.md is the law; engine/file.py and engine/check.py say the same in
// Python, in the same words.
//
// Order matters: a field is compared with its limit before it is multiplied, a place with the file before it is read, `start` before `index`.
// Sums and products saturate, so that none of them can wrap round into something harmless.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <sstream>

#include "engine.h"
#include "records.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the packed file is little-endian, and is used where it lies"
#endif

namespace {

// ---- CRC-32: sixteen bytes at a time, each through a table of its own

struct Tables {
    uint32_t of[16][256];
};

constexpr Tables tables() {
    Tables t{};
    for (uint32_t byte = 0; byte < 256; ++byte) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
        t.of[0][byte] = crc;
    }
    for (int behind = 1; behind < 16; ++behind)
        for (int byte = 0; byte < 256; ++byte) {
            const uint32_t crc = t.of[behind - 1][byte];
            t.of[behind][byte] = crc >> 8 ^ t.of[0][crc & 255];
        }
    return t;
}

constexpr Tables CRC = tables();

inline uint32_t four(uint32_t word, int behind) {
    return CRC.of[behind + 3][word & 255] ^ CRC.of[behind + 2][word >> 8 & 255] ^ CRC.of[behind + 1][word >> 16 & 255] ^ CRC.of[behind][word >> 24];
}

}  // namespace

PRUNERY_EXPORT uint32_t prunery_engine_crc32(const uint8_t* bytes, uint64_t size) {
    uint32_t crc = ~0u;
    for (; size >= 16; bytes += 16, size -= 16) {
        uint32_t word[4];
        memcpy(word, bytes, sizeof word);
        crc = four(word[0] ^ crc, 12) ^ four(word[1], 8) ^ four(word[2], 4) ^ four(word[3], 0);
    }
    for (; size; ++bytes, --size) crc = crc >> 8 ^ CRC.of[0][(crc ^ *bytes) & 255];
    return ~crc;
}

namespace prunery::engine {
namespace {

constexpr uint64_t ALIGNMENT = 64;
constexpr uint64_t MOST_TENSORS = 1 << 13, MOST_EXTENT = 1 << 20, MOST_WINDOW = 255;
constexpr uint64_t MOST_NUMBERS = 1 << 28;         // of one tensor, and of one input with room for windows
constexpr uint64_t ALL_NUMBERS = 1 << 30;          // of all of these together
constexpr uint64_t ALL_WEIGHTS = 1 << 30;          // places of all matrices together, kept or not
constexpr uint64_t ALL_WORK = uint64_t(1) << 42;   // multiply-adds of one image, as if nothing were pruned
constexpr uint64_t MOST_BYTES_POOLED = 1 << 23;    // pixels of a plane, so that their sum fits in 31 bits
constexpr uint64_t MOST_ROW = (1u << 30) / 255;    // sum of a row's |w|: 255 * it + 2^30 stays below 2^31
constexpr float LEAST_SCALE = 0x1p-40f, MOST_SCALE = 0x1p24f;  // products and ratios of three of them, times 2^31, are finite

constexpr const char* KINDS[] = {"",    "conv",     "linear", "max_pool", "avg_pool", "global_pool", "add",      "mul",
                                 "activate", "affine", "concat", "gather",   "flatten",  "softmax",     "quantize", "dequantize"};

template <class T>
T load(const uint8_t* at) {
    T value;
    memcpy(&value, at, sizeof value);
    return value;
}

// ---- words

template <class... Parts>
std::string say(const Parts&... parts) {
    std::ostringstream out;
    (out << ... << parts);
    return out.str();
}

std::string shape(uint64_t channels, uint64_t rows, uint64_t columns) { return say(channels, " x ", rows, " x ", columns); }
std::string shape(const Tensor& t) { return shape(t.channels, t.rows, t.columns); }
const char* word(Type type) { return type == Type::F32 ? "float32" : "bytes"; }

// At most 60 bytes of a name, cut between characters.
std::string clipped(const std::string& name) {
    if (name.size() <= 60) return name;
    size_t end = 57;
    while (end && (name[end] & 0xc0) == 0x80) --end;
    return name.substr(0, end) + "...";
}

// Whom a refusal is about: the file itself, "tensor 5" or "operation 3 layer1.conv1 (conv)". Only a refusal makes words of it.
struct Subject {
    const char* what = "";
    uint64_t number = 0;
    const std::string* name = nullptr;  // of an operation, once it is known
    const char* kind = "";

    [[noreturn]] void refuse(const std::string& seen, const std::string& expected) const {
        std::string where;
        if (*what) where = say(what, " ", number, name && !name->empty() ? " " : "", name ? clipped(*name) : "");
        if (*kind) where += say(" (", kind, ")");
        throw Refused(where + (*what ? ": " : "") + seen + "; expected " + expected);
    }
};

// Well-formed UTF-8 (nothing overlong, no surrogates) of which a terminal makes one line: no control characters, no separators of lines.
bool is_text(const uint8_t* at, uint64_t count) {
    constexpr uint32_t LEAST[] = {0x20, 0xa0, 0x800, 0x10000};
    for (uint64_t i = 0; i < count;) {
        const uint32_t lead = at[i++];
        const int more = lead < 0x80 ? 0 : lead >> 5 == 6 ? 1 : lead >> 4 == 14 ? 2 : lead >> 3 == 30 ? 3 : -1;
        if (more < 0 || uint64_t(more) > count - i) return false;
        uint32_t code = more ? lead & (0x3f >> more) : lead;
        for (int k = 0; k < more; ++k) {
            if ((at[i] & 0xc0) != 0x80) return false;
            code = code << 6 | (at[i++] & 0x3f);
        }
        if (code < LEAST[more] || code > 0x10ffff || code >> 11 == 0x1b || code == 0x7f || code == 0x2028 || code == 0x2029) return false;
    }
    return true;
}

// ---- arithmetic and arrays

uint64_t times(uint64_t a, uint64_t b) {
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

uint64_t plus(uint64_t a, uint64_t b) { return a > UINT64_MAX - b ? UINT64_MAX : a + b; }

bool zeros(const uint8_t* at, uint64_t count) {
    uint8_t any = 0;
    for (uint64_t i = 0; i < count; ++i) any |= at[i];
    return !any;
}

// Written without an early end, so that they become a few vector instructions.
bool finite(const float* values, uint64_t count) {
    uint32_t bad = 0;
    for (uint64_t i = 0; i < count; ++i) {
        uint32_t bits;
        memcpy(&bits, values + i, sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

bool finite(const uint16_t* halves, uint64_t count) {
    uint32_t bad = 0;
    for (uint64_t i = 0; i < count; ++i) bad |= (halves[i] & 0x7c00) == 0x7c00;
    return !bad;
}

template <class I>
bool rises(const I* index, uint64_t count) {
    uint32_t falls = 0;
    for (uint64_t i = 1; i < count; ++i) falls |= index[i] <= index[i - 1];
    return !falls;
}

bool below(const uint32_t* index, uint64_t count, uint32_t end) {
    uint32_t bad = 0;
    for (uint64_t i = 0; i < count; ++i) bad |= index[i] >= end;
    return !bad;
}

uint64_t sum_of_sizes(const int8_t* bytes, uint64_t count) {
    uint64_t sum = 0;
    for (uint64_t done = 0; done < count;) {
        const uint64_t end = count - done < 65536 ? count : done + 65536;
        uint32_t part = 0;
        for (; done < end; ++done) part += uint32_t(bytes[done] < 0 ? -bytes[done] : bytes[done]);
        sum += part;
    }
    return sum;
}

// ---- the file as a whole

class File : Subject {
  public:
    Header header;

    File(const uint8_t* bytes, uint64_t size) : bytes_(bytes), size_(size) {
        if (size < sizeof(Header)) refuse(say("the file has ", size, " bytes"), "at least 64");
        if (reinterpret_cast<uintptr_t>(bytes) % sizeof(float)) refuse("the file lies at an odd address in memory", "a multiple of 4");
        header = load<Header>(bytes);
        check_header();
        tensors_at_ = sizeof(Header);
        ops_at_ = tensors_at_ + header.tensors * sizeof(TensorRecord);
        inputs_at_ = ops_at_ + header.ops * sizeof(OpRecord);
        names_at_ = inputs_at_ + header.inputs * sizeof(uint32_t);
        about_at_ = names_at_ + header.names;
        const uint64_t end = about_at_ + header.about;  // five sums of 32-bit numbers times at most 192: nothing wraps
        arrays_at_ = (end + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        if (arrays_at_ > size) refuse(say("the tables need ", arrays_at_, " bytes"), say("at most the ", size, " of the file"));
        if (!is_text(bytes + about_at_, header.about)) refuse("what it says about itself is damaged", "UTF-8 without control characters");
        if (!zeros(bytes + end, arrays_at_ - end)) refuse("the bytes between tables and arrays are not zero", "zeros");
    }

    TensorRecord tensor(uint32_t number) const { return load<TensorRecord>(bytes_ + tensors_at_ + number * sizeof(TensorRecord)); }
    OpRecord op(uint32_t number) const { return load<OpRecord>(bytes_ + ops_at_ + number * sizeof(OpRecord)); }
    uint32_t input(uint32_t place) const { return load<uint32_t>(bytes_ + inputs_at_ + place * sizeof(uint32_t)); }
    const uint8_t* names() const { return bytes_ + names_at_; }

    // An array that the file must have, be it empty.
    template <class T>
    const T* array(const Subject& subject, const char* what, uint64_t place, uint64_t count) const {
        const uint64_t length = times(count, sizeof(T));
        if (place % ALIGNMENT) subject.refuse(say(what, " at ", place), "a multiple of 64");
        if (place < arrays_at_ || place > size_ || length > size_ - place)
            subject.refuse(say(what, " at ", place, " with ", length, " bytes"), say("a place between ", arrays_at_, " and ", size_));
        return reinterpret_cast<const T*>(bytes_ + place);
    }

  private:
    const uint8_t* bytes_;
    uint64_t size_, tensors_at_, ops_at_, inputs_at_, names_at_, about_at_, arrays_at_;

    void check_header() const {
        if (memcmp(header.magic, "\x93PRUNERY", 8)) refuse("the file does not begin like a packed network", "\\x93PRUNERY");
        if (header.version != 1) refuse(say("the file has version ", header.version), "1");
        if (header.size != size_) refuse(say("the file has ", size_, " bytes"), say(header.size, ", as its header says"));
        const uint32_t crc = prunery_engine_crc32(bytes_ + 16, size_ - 16);
        if (crc != header.crc) refuse(say("the file is damaged: its checksum is ", crc), say(header.crc, ", as its header says"));
        if (!zeros(header.reserved, sizeof header.reserved)) refuse("reserved bytes of the header are not zero", "zeros");
        if (header.tensors < 2 || header.tensors > MOST_TENSORS) refuse(say("the file has ", header.tensors, " tensors"), "2 to 8192");
        if (header.ops != header.tensors - 1)
            refuse(say("the file has ", header.ops, " operations"), say(header.tensors - 1, ", one for each tensor but the input"));
        if (header.input >= header.tensors) refuse(say("the input is tensor ", header.input), say("less than ", header.tensors));
        if (header.output >= header.tensors) refuse(say("the output is tensor ", header.output), say("less than ", header.tensors));
    }
};

Tensor read_tensor(const File& file, uint32_t number) {
    const Subject subject{"tensor", number};
    const TensorRecord r = file.tensor(number);
    auto fits = [](uint32_t extent) { return extent >= 1 && extent <= MOST_EXTENT; };
    if (!fits(r.channels) || !fits(r.rows) || !fits(r.columns) || uint64_t(r.channels) * r.rows * r.columns > MOST_NUMBERS)
        subject.refuse(shape(r.channels, r.rows, r.columns), "1 to 2^20 each, and at most 2^28 numbers");
    if (r.type > 1) subject.refuse(say("type ", r.type), "0 or 1");
    if (r.type == 0 && !(r.scale == 0 && !std::signbit(r.scale) && r.zero == 0))
        subject.refuse(say("scale ", r.scale, ", zero ", r.zero), "0 and 0 for float32");
    if (r.type == 1 && !(r.scale >= LEAST_SCALE && r.scale <= MOST_SCALE)) subject.refuse(say("scale ", r.scale), "2^-40 to 2^24 for bytes");
    if (r.zero > 255) subject.refuse(say("zero ", r.zero), "0 to 255");
    if (!zeros(r.reserved, sizeof r.reserved)) subject.refuse("reserved bytes are not zero", "zeros");
    Tensor t;
    t.channels = int(r.channels), t.rows = int(r.rows), t.columns = int(r.columns);
    t.type = Type(r.type), t.scale = r.scale, t.zero = int(r.zero);
    return t;
}

// ---- operations

// What the operations so far have used up.
struct Used {
    uint64_t inputs = 0, names = 0, numbers = 0, weights = 0, work = 0;
    std::vector<uint8_t> written, read;
};

class OpReader : Subject {
  public:
    OpReader(const File& file, const Graph& graph, Used& used, uint32_t number)
        : Subject{"operation", number}, file_(file), graph_(graph), used_(used), r_(file.op(number)) {
        read_kind_and_name();
        read_edges();
        read_settings();
        read_weights();
        check_types();
        check_shapes();
        count_work();
    }
    Op op;

  private:
    const File& file_;
    const Graph& graph_;
    Used& used_;
    const OpRecord r_;

    bool is(Kind kind) const { return op.kind == kind; }
    bool is_pool() const { return is(Kind::MAX_POOL) || is(Kind::AVG_POOL); }
    bool has_window() const { return is(Kind::CONV) || is_pool(); }
    bool has_matrix() const { return is(Kind::CONV) || is(Kind::LINEAR); }
    bool has_weights() const { return has_matrix() || is(Kind::AFFINE); }
    const Tensor& in(size_t i) const { return graph_.tensors[op.inputs[i]]; }
    const Tensor& out() const { return graph_.tensors[op.output]; }

    void read_kind_and_name() {
        if (r_.kind < 1 || r_.kind > uint32_t(Kind::DEQUANTIZE)) refuse(say("kind ", r_.kind), "1 to 15");
        op.kind = Kind(r_.kind);
        if (r_.name != used_.names) refuse(say("its name begins at ", r_.name), say(used_.names, ", where the one before ends"));
        used_.names += r_.name_length;
        if (used_.names > file_.header.names)
            refuse(say("its name ends at ", used_.names), say("at most ", file_.header.names, ", the bytes of names"));
        if (!is_text(file_.names() + r_.name, r_.name_length)) refuse("its name is damaged", "UTF-8 without control characters");
        op.name.assign(reinterpret_cast<const char*>(file_.names()) + r_.name, r_.name_length);
        name = &op.name, kind = KINDS[r_.kind];
        if (r_.reserved || !zeros(r_.also_reserved, sizeof r_.also_reserved)) refuse("reserved bytes are not zero", "zeros");
    }

    void read_edges() {
        const bool two = is(Kind::ADD) || is(Kind::MUL);
        if (is(Kind::CONCAT) ? r_.inputs < 2 : two ? r_.inputs != 2 : r_.inputs != 1 && !(has_matrix() && r_.inputs == 2))
            refuse(say(r_.inputs, " inputs"), is(Kind::CONCAT) ? "2 or more" : two ? "2" : has_matrix() ? "1 or 2" : "1");
        if (r_.first_input != used_.inputs) refuse(say("its inputs begin at ", r_.first_input), say(used_.inputs, ", where those before end"));
        used_.inputs += r_.inputs;
        if (used_.inputs > file_.header.inputs)
            refuse(say("its inputs end at ", used_.inputs), say("at most ", file_.header.inputs, ", the length of their list"));
        op.inputs.reserve(r_.inputs);
        for (uint32_t i = 0; i < r_.inputs; ++i) {
            const uint32_t t = file_.input(r_.first_input + i);
            if (t >= graph_.tensors.size() || !used_.written[t]) refuse(say("it reads tensor ", t), "one that is written before");
            used_.read[t] = 1;
            op.inputs.push_back(int(t));
        }
        if (r_.output >= graph_.tensors.size() || used_.written[r_.output])
            refuse(say("it writes tensor ", r_.output), "one that is not written yet");
        used_.written[r_.output] = 1;
        op.output = int(r_.output);
    }

    void read_settings() {
        const bool active = has_weights() || is(Kind::ADD) || is(Kind::MUL) || is(Kind::ACTIVATE);
        if (r_.activation > (active ? uint32_t(Activation::ELU) : 0)) refuse(say("activation ", r_.activation), active ? "0 to 10" : "0");
        op.activation = Activation(r_.activation);
        const bool sloped = op.activation == Activation::LEAKY_RELU || op.activation == Activation::ELU;
        if (sloped ? !std::isfinite(r_.slope) : r_.slope != 0 || std::signbit(r_.slope))
            refuse(say("slope ", r_.slope), sloped ? "a finite number" : "0");
        op.slope = r_.slope;
        read_window();
        if (is(Kind::CONV) ? r_.groups < 1 || r_.groups > MOST_EXTENT : r_.groups != 1)
            refuse(say(r_.groups, " groups"), is(Kind::CONV) ? "1 to 2^20" : "1");
        op.groups = int(r_.groups);
        if (r_.count_padding > is(Kind::AVG_POOL)) refuse(say("counting of padding is ", r_.count_padding), is(Kind::AVG_POOL) ? "0 or 1" : "0");
        op.count_padding = r_.count_padding;
    }

    void read_window() {
        const uint32_t most = has_window() ? MOST_WINDOW : 1;
        auto pair = [&](const char* what, const uint32_t (&value)[2], uint32_t limit, int& down, int& across) {
            if (value[0] < 1 || value[0] > limit || value[1] < 1 || value[1] > limit)
                refuse(say(what, " ", value[0], " x ", value[1]), limit == 1 ? "1 x 1" : "1 to 255");
            down = int(value[0]), across = int(value[1]);
        };
        pair("kernel", r_.kernel, most, op.kernel_h, op.kernel_w);
        pair("stride", r_.stride, most, op.stride_h, op.stride_w);
        pair("dilation", r_.dilation, is(Kind::AVG_POOL) ? 1 : most, op.dilation_h, op.dilation_w);
        int* const padding[] = {&op.pad_top, &op.pad_left, &op.pad_bottom, &op.pad_right};
        for (int side = 0; side < 4; ++side) {
            const uint32_t extent = r_.dilation[side % 2] * (r_.kernel[side % 2] - 1) + 1;
            if (r_.padding[side] >= extent) refuse(say("padding ", r_.padding[side]), say("less than the window's extent, ", extent));
            *padding[side] = int(r_.padding[side]);
        }
    }

    // ---- weights

    void read_weights() {
        if (has_weights()) {
            check_matrix();
            read_values();
            read_bias();
        } else {
            for (uint64_t field : {r_.outputs, r_.columns, r_.encoding, r_.values, r_.bits}) absent("matrix", field);
            for (uint64_t field : {r_.kept, r_.start_at, r_.index_at, r_.values_at, r_.scales_at}) absent("matrix", field);
            absent("bias", r_.bias_at);
        }
        if (is(Kind::GATHER)) {
            op.index = file_.array<uint32_t>(*this, "index of channels", r_.gather_at, uint64_t(out().channels));
            if (!below(op.index, uint64_t(out().channels), uint32_t(in(0).channels)))
                refuse("the index of channels goes beyond the input", say("less than ", in(0).channels));
        } else {
            absent("index of channels", r_.gather_at);
        }
    }

    void absent(const char* what, uint64_t field) const {
        if (field) refuse(say(what, ": ", field), "0, since there is none");
    }

    void check_matrix() {
        const uint64_t all = times(r_.outputs, r_.columns);
        if (!all) refuse(say("a matrix of ", r_.outputs, " x ", r_.columns), "at least 1 x 1");
        used_.weights = plus(used_.weights, all);
        if (used_.weights > ALL_WEIGHTS) refuse(say("a matrix of ", r_.outputs, " x ", r_.columns), "at most 2^30 places in all matrices");
        const bool plain = is(Kind::AFFINE);
        if (r_.encoding < 1 || r_.encoding > (plain ? 1 : 2)) refuse(say("encoding ", r_.encoding), plain ? "1" : "1 or 2");
        if (r_.values > (plain ? 0 : 2)) refuse(say("values ", r_.values), plain ? "0" : "0, 1 or 2");
        if (r_.encoding == 1 ? r_.kept != all : r_.kept > all)
            refuse(say(r_.kept, " values"), say(r_.encoding == 1 ? "" : "at most ", all, ", the places of the matrix"));
        const bool narrow = r_.columns <= 65536;
        if (r_.encoding == 1 ? r_.bits != 0 : r_.bits != 32 && !(r_.bits == 16 && narrow))
            refuse(say(r_.bits, " bits of an index"), r_.encoding == 1 ? "0" : narrow ? "16 or 32" : "32");
        op.weights.outputs = int(r_.outputs), op.weights.inputs = int(r_.columns), op.weights.kept = long(r_.kept);
    }

    void read_values() {
        if (r_.encoding == 2) {
            read_places();
        } else {
            absent("start of rows", r_.start_at);
            absent("index", r_.index_at);
        }
        Weights& w = op.weights;
        if (r_.values == 2) {
            w.bytes = file_.array<int8_t>(*this, "values", r_.values_at, r_.kept);
            w.scales = file_.array<float>(*this, "scales", r_.scales_at, r_.outputs);
            check_scales();
            check_rows();
            return;
        }
        absent("scales", r_.scales_at);
        if (r_.values == 1)
            w.halves = file_.array<uint16_t>(*this, "values", r_.values_at, r_.kept);
        else
            w.floats = file_.array<float>(*this, "values", r_.values_at, r_.kept);
        if (w.halves ? !finite(w.halves, r_.kept) : !finite(w.floats, r_.kept)) refuse("a weight is infinite or not a number", "finite numbers");
    }

    void read_places() {
        Weights& w = op.weights;
        w.start = file_.array<uint32_t>(*this, "start of rows", r_.start_at, uint64_t(r_.outputs) + 1);
        if (w.start[0] != 0) refuse(say("the first row starts at ", w.start[0]), "0");
        for (uint32_t o = 0; o < r_.outputs; ++o)
            if (w.start[o] > w.start[o + 1]) refuse(say("row ", o, " ends at ", w.start[o + 1]), say("at least ", w.start[o], ", its start"));
        if (w.start[r_.outputs] != r_.kept) refuse(say("the last row ends at ", w.start[r_.outputs]), say(r_.kept, ", the number of values"));
        if (r_.bits == 16)
            check_index(w.narrow = file_.array<uint16_t>(*this, "index", r_.index_at, r_.kept));
        else
            check_index(w.wide = file_.array<uint32_t>(*this, "index", r_.index_at, r_.kept));
    }

    template <class I>
    void check_index(const I* index) const {
        const uint32_t* start = op.weights.start;
        for (uint32_t o = 0; o < r_.outputs; ++o) {
            const uint64_t first = start[o], end = start[o + 1];
            if (first == end) continue;
            if (!rises(index + first, end - first)) refuse(say("the index of row ", o, " does not rise"), "places in rising order");
            if (index[end - 1] >= r_.columns) refuse(say("row ", o, " has a weight at ", index[end - 1]), say("less than ", r_.columns));
        }
    }

    void check_scales() const {
        for (uint32_t o = 0; o < r_.outputs; ++o) {
            const float scale = op.weights.scales[o];
            if (!(scale >= LEAST_SCALE && scale <= MOST_SCALE)) refuse(say("the scale of row ", o, " is ", scale), "2^-40 to 2^24");
        }
    }

    // What an accumulator of 32 bits can hold, whatever the input.
    void check_rows() const {
        const Weights& w = op.weights;
        for (uint64_t o = 0; o < r_.outputs; ++o) {
            const uint64_t first = w.sparse() ? w.start[o] : o * r_.columns, end = w.sparse() ? w.start[o + 1] : first + r_.columns;
            const uint64_t sum = sum_of_sizes(w.bytes + first, end - first);
            if (sum > MOST_ROW) refuse(say("the weights of row ", o, " add up to ", sum), say("at most ", MOST_ROW, ", for 32 bits"));
        }
    }

    void read_bias() {
        if (!r_.bias_at) {
            if (is(Kind::AFFINE)) refuse("no bias", "one");
            return;
        }
        op.bias = file_.array<float>(*this, "bias", r_.bias_at, r_.outputs);
        if (!finite(op.bias, r_.outputs)) refuse("a bias is infinite or not a number", "finite numbers");
    }

    // ---- types

    void check_types() const {
        const Type from = in(0).type, to = out().type;
        for (size_t i = 1; i < op.inputs.size(); ++i)
            if (in(i).type != from) refuse(say("inputs of ", word(from), " and ", word(in(i).type)), "one type");
        auto expect_from = [&](Type type) {
            if (from != type) refuse(say("an input of ", word(from)), word(type));
        };
        auto expect_to = [&](Type type) {
            if (to != type) refuse(say("an output of ", word(to)), word(type));
        };
        switch (op.kind) {
            case Kind::MUL:
            case Kind::ACTIVATE:
            case Kind::AFFINE:
            case Kind::SOFTMAX:
            case Kind::QUANTIZE: expect_from(Type::F32); break;
            case Kind::DEQUANTIZE: expect_from(Type::U8); break;
            default: break;
        }
        if (is(Kind::QUANTIZE))
            expect_to(Type::U8);
        else if (is(Kind::DEQUANTIZE))
            expect_to(Type::F32);
        else if (!((is(Kind::CONV) || is(Kind::LINEAR) || is(Kind::GLOBAL_POOL)) && from == Type::U8))
            expect_to(from);
        if (from == Type::U8) check_bytes();
        if (from == Type::F32 && op.weights.bytes) refuse("weights of i8 for an input of float32", "f32 or f16");
    }

    void check_bytes() const {
        if (has_matrix() && !op.weights.bytes) refuse("weights of floats for an input of bytes", "i8");
        if (out().type == Type::U8 && op.activation > Activation::RELU6) refuse(say("activation ", r_.activation), "0, 1 or 2 for bytes");
        if (out().type == Type::F32 && has_matrix() && op.inputs.size() > 1) refuse("a residual of bytes", "none where the output is float32");
        if (is(Kind::GLOBAL_POOL) && uint64_t(in(0).rows) * in(0).columns > MOST_BYTES_POOLED)
            refuse(say("a mean of ", in(0).rows, " x ", in(0).columns, " bytes"), "at most 2^23");
        if (!is(Kind::MAX_POOL) && !is(Kind::CONCAT) && !is(Kind::GATHER) && !is(Kind::FLATTEN)) return;
        for (size_t i = 0; i < op.inputs.size(); ++i)
            if (in(i).scale != out().scale || in(i).zero != out().zero)
                refuse(say("scale and zero ", in(i).scale, " and ", in(i).zero, " become ", out().scale, " and ", out().zero), "the same");
    }

    // ---- shapes

    void expect(const char* what, const Tensor& seen, uint64_t channels, uint64_t rows, uint64_t columns) const {
        if (uint64_t(seen.channels) != channels || uint64_t(seen.rows) != rows || uint64_t(seen.columns) != columns)
            refuse(say("the ", what, " is ", shape(seen)), shape(channels, rows, columns));
    }
    void expect_like(const char* what, const Tensor& seen, const Tensor& t) const { expect(what, seen, t.channels, t.rows, t.columns); }
    void expect_vector(const char* what, const Tensor& seen) const { expect(what, seen, seen.channels, 1, 1); }

    void check_shapes() {
        const Tensor &x = in(0), &y = out();
        switch (op.kind) {
            case Kind::CONV: check_conv(); break;
            case Kind::LINEAR:
                expect_vector("input", x);
                expect("output", y, r_.outputs, 1, 1);
                expect_matrix(x.channels);
                break;
            case Kind::MAX_POOL:
            case Kind::AVG_POOL: check_pool(); break;
            case Kind::GLOBAL_POOL: expect("output", y, x.channels, 1, 1); break;
            case Kind::MUL:
                if (in(1).rows == 1 && in(1).columns == 1)
                    expect("second input", in(1), x.channels, 1, 1);
                else
                    expect_like("second input", in(1), x);
                expect_like("output", y, x);
                break;
            case Kind::AFFINE:
                if (r_.outputs != uint32_t(x.channels)) refuse(say("weights for ", r_.outputs, " channels"), say(x.channels));
                expect_matrix(1);
                expect_like("output", y, x);
                break;
            case Kind::CONCAT: check_concat(); break;
            case Kind::GATHER: expect("output", y, y.channels, x.rows, x.columns); break;
            case Kind::FLATTEN: expect("output", y, uint64_t(x.numbers()), 1, 1); break;
            case Kind::SOFTMAX:
                expect_vector("input", x);
                expect_like("output", y, x);
                break;
            case Kind::ADD:
                expect_like("second input", in(1), x);
                expect_like("output", y, x);
                break;
            case Kind::ACTIVATE:
            case Kind::QUANTIZE:
            case Kind::DEQUANTIZE: expect_like("output", y, x); break;
        }
        if (has_matrix() && op.inputs.size() == 2) expect_like("residual", in(1), y);
        if (has_window()) check_room();
    }

    void expect_matrix(uint64_t columns) const {
        if (r_.columns != columns) refuse(say("weights for ", r_.columns, " inputs"), say(columns));
    }

    void check_concat() const {
        uint64_t channels = 0;
        for (size_t i = 0; i < op.inputs.size(); ++i) {
            expect(i ? "next input" : "input", in(i), in(i).channels, in(0).rows, in(0).columns);
            channels += uint64_t(in(i).channels);
        }
        expect("output", out(), channels, in(0).rows, in(0).columns);
    }

    int extent_h() const { return op.dilation_h * (op.kernel_h - 1) + 1; }
    int extent_w() const { return op.dilation_w * (op.kernel_w - 1) + 1; }

    void check_conv() const {
        const Tensor& x = in(0);
        if (x.channels % op.groups || r_.outputs % r_.groups)
            refuse(say(op.groups, " groups of ", x.channels, " channels and ", r_.outputs, " outputs"), "a divisor of both");
        expect_matrix(uint64_t(x.channels / op.groups) * r_.kernel[0] * r_.kernel[1]);
        const long down = long(x.rows) + op.pad_top + op.pad_bottom - extent_h(), across = long(x.columns) + op.pad_left + op.pad_right - extent_w();
        if (down < 0 || across < 0)
            refuse(say("a window of ", extent_h(), " x ", extent_w(), " over ", shape(x)), "one that fits into the picture and its padding");
        expect("output", out(), r_.outputs, uint64_t(down / op.stride_h + 1), uint64_t(across / op.stride_w + 1));
    }

    // Every window holds a pixel: it begins before the picture's end, ends behind its beginning, and does not step over it.
    void check_pool() const {
        const Tensor &x = in(0), &y = out();
        if (op.dilation_h > x.rows || op.dilation_w > x.columns)
            refuse(say("dilation ", op.dilation_h, " x ", op.dilation_w, " over ", shape(x)), "at most its rows and columns");
        if (y.channels != x.channels) refuse(say("the output is ", shape(y)), say(x.channels, " channels"));
        check_pooled("rows", y.rows, x.rows, op.pad_top, op.pad_bottom, extent_h(), op.stride_h);
        check_pooled("columns", y.columns, x.columns, op.pad_left, op.pad_right, extent_w(), op.stride_w);
    }

    void check_pooled(const char* what, long seen, long size, long before, long behind, long extent, long stride) const {
        const long span = size + before + behind - extent;
        if (span <= -stride) refuse(say("a window of ", extent, " over ", size, " ", what), "one that fits into the picture and its padding");
        const long whole = span < 0 ? 0 : span / stride + 1;      // windows that fit
        const long cut = (span + stride - 1) / stride + 1;        // and those with one that sticks out
        const bool begins_inside = (cut - 1) * stride < size + before;
        if (seen == whole || (seen == cut && begins_inside)) return;
        refuse(say("the output has ", seen, " ", what), whole == 0 ? say(cut) : begins_inside && cut != whole ? say(whole, " or ", cut) : say(whole));
    }

    // ---- limits

    // Who cuts a picture into blocks keeps with each the neighbours that its windows reach, and whole steps of the stride.
    void check_room() {
        const Tensor& x = in(0);
        const uint64_t rows = uint64_t(x.rows) + 4 * uint64_t(std::max(extent_h(), op.stride_h) - 1);
        const uint64_t columns = uint64_t(x.columns) + 4 * uint64_t(std::max(extent_w(), op.stride_w) - 1);
        const uint64_t numbers = times(times(rows, columns), uint64_t(x.channels));
        if (numbers > MOST_NUMBERS) refuse(say("the input with room for windows is ", shape(x.channels, rows, columns)), "at most 2^28 numbers");
        used_.numbers = plus(used_.numbers, numbers);
        if (used_.numbers > ALL_NUMBERS) refuse("too many numbers", "at most 2^30 in all tensors and inputs of windows");
    }

    void count_work() {
        const uint64_t pixels = uint64_t(out().rows) * uint64_t(out().columns), numbers = uint64_t(out().numbers());
        const uint64_t work = has_matrix()              ? times(pixels, times(r_.outputs, r_.columns))
                              : is(Kind::GLOBAL_POOL) ? uint64_t(in(0).numbers())
                                                        : times(numbers, uint64_t(r_.kernel[0]) * r_.kernel[1]);
        used_.work = plus(used_.work, work);
        if (used_.work > ALL_WORK) refuse("too much to compute", "at most 2^42 multiply-adds for an image");
    }
};

Graph read_graph(const File& file) {
    const Subject subject{};
    const Header& h = file.header;
    Graph graph;
    Used used;
    graph.tensors.reserve(h.tensors);
    for (uint32_t t = 0; t < h.tensors; ++t) {
        graph.tensors.push_back(read_tensor(file, t));
        used.numbers += uint64_t(graph.tensors.back().numbers());
        if (used.numbers > ALL_NUMBERS) subject.refuse(say("tensor ", t, ": too many numbers"), "at most 2^30 in all tensors and inputs of windows");
    }
    graph.input = int(h.input), graph.output = int(h.output);
    used.written.assign(h.tensors, 0), used.read.assign(h.tensors, 0);
    used.written[h.input] = 1;
    graph.ops.reserve(h.ops);
    for (uint32_t o = 0; o < h.ops; ++o) graph.ops.push_back(std::move(OpReader(file, graph, used, o).op));
    if (used.inputs != h.inputs) subject.refuse(say("the list of inputs has ", h.inputs), say(used.inputs, ", as operations read"));
    if (used.names != h.names) subject.refuse(say("there are ", h.names, " bytes of names"), say(used.names, ", as operations need"));
    for (uint32_t t = 0; t < h.tensors; ++t)
        if (!used.read[t] && t != h.output) subject.refuse(say("tensor ", t, " is never read"), "every tensor but the output to be read");
    return graph;
}

}  // namespace

float half_to_float(uint16_t half) {
    const uint32_t rest = half & 0x7fff;
    // Subnormal halves go through an integer, since a process may have told its processor to take subnormal floats for zeros.
    float size = float(rest) * 0x1p-24f;
    if (rest >= 0x0400) {
        const uint32_t bits = rest >= 0x7c00 ? 0x7f800000u | rest << 13 : (rest << 13) + (112u << 23);
        memcpy(&size, &bits, sizeof size);
    }
    return half & 0x8000 ? -size : size;
}

float Weights::value(long k) const { return floats ? floats[k] : half_to_float(halves[k]); }

Graph read(const uint8_t* bytes, size_t size) { return read_graph(File(bytes, size)); }

}  // namespace prunery::engine

// For Python: 0 when the reader accepts the bytes; otherwise the refusal is in `message`, which has room for so many bytes.
PRUNERY_EXPORT int prunery_engine_check(const uint8_t* bytes, uint64_t size, char* message, int room) {
    try {
        prunery::engine::read(bytes, size);
        return 0;
    } catch (const std::exception& error) {
        if (room > 0) snprintf(message, size_t(room), "%s", error.what());
        return 1;
    }
}
