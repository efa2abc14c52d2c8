// Graph -> Plan: the form and place of every tensor, and the steps in order.
//
// All operations on pictures want their input in lanes, and operations on vectors want them plain; where the two meet, a relayout copies.
// Tensors that meet in an operation without a stride must be cut into blocks of one size, so they make a family; an operation with a
// stride wants blocks of stride * its output's. A family's blocks are made larger for that when it costs little, else a relayout comes in.

#include "engine.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace prunery::engine {

namespace {

constexpr double LARGER = 1.16;          // by which a family's vectors may grow to spare a relayout
constexpr long MOST_MEMORY = 1L << 33;  // bytes of one run: blocks that overlap can be far larger than the pictures that they are cut from

Lanes lanes_of(bool many) {
    if (many) return {};
    return LANES == 16 ? Lanes{4, 4, 1} : LANES == 8 ? Lanes{2, 4, 1} : Lanes{2, 2, 1};
}

int ceil_div(int a, int b) { return (a + b - 1) / b; }
long round_up(long a, long b) { return (a + b - 1) / b * b; }

bool windowed(Kind k) { return k == Kind::CONV || k == Kind::MAX_POOL || k == Kind::AVG_POOL; }
bool vectored(Kind k) { return k == Kind::LINEAR || k == Kind::SOFTMAX; }
bool has_residual(const Op& op) { return (op.kind == Kind::CONV || op.kind == Kind::LINEAR) && op.inputs.size() == 2; }
bool strided(const Op& op) { return windowed(op.kind) && (op.stride_h > 1 || op.stride_w > 1); }
bool is_vector(const Tensor& t) { return t.rows == 1 && t.columns == 1; }

struct Blocks {
    int h = 0, w = 0;
    bool operator==(const Blocks& o) const { return h == o.h && w == o.w; }
    double area() const { return double(h) * w; }
};

class Planner {
  public:
    Planner(const Graph& graph, bool many) : graph(graph), many(many), made(new Plan) {
        made->lanes = lanes_of(many);
        made->images = many ? LANES : 1;
    }

    std::unique_ptr<Plan> operator()(long most) {
        choose_forms();
        choose_blocks();
        emit();
        give_memory();
        if (made->arena > most) return nullptr;
        build();
        return std::move(made);
    }

  private:
    // A tensor as one place: the graph's tensors first, then copies in another form.
    struct Slot {
        Place place;
        int first = -1, last = -1;  // the steps that use it
        long filled = -1;           // what its halo was filled with
    };
    // A step before memory is given out.
    struct Wanted {
        const Op* op = nullptr;  // none: a relayout of in[0], or where `fill` says so a halo of `out`
        std::vector<int> in;
        int out = 0;
        long fill = -1;
        std::string name;
    };

    const Graph& graph;
    bool many;
    std::unique_ptr<Plan> made;
    std::vector<Slot> slots;
    std::vector<Wanted> wanted;
    std::vector<int> family, alias;  // alias: where the numbers of a tensor are, if not in its own slot
    std::vector<Blocks> blocks;
    std::map<std::pair<int, std::pair<int, int>>, int> copies;  // of a slot, in lanes of such blocks (0, 0: plain)

    const Tensor& tensor(int t) const { return graph.tensors[t]; }
    bool laned(int t) const { return slots[t].place.form == Form::LANED; }

    // ---- forms

    void choose_forms() {
        slots.resize(graph.tensors.size());
        for (size_t t = 0; t < slots.size(); ++t) slots[t].place.tensor = tensor(t);
        for (const Op& op : graph.ops) slots[op.output].place.form = form_of(op);
    }

    Form form_of(const Op& op) const {
        if (many || windowed(op.kind)) return Form::LANED;
        if (vectored(op.kind) || op.kind == Kind::GLOBAL_POOL || op.kind == Kind::FLATTEN) return Form::PLAIN;
        const bool any = std::any_of(op.inputs.begin(), op.inputs.end(), [&](int t) { return laned(t); });
        return any || !is_vector(tensor(op.output)) ? Form::LANED : Form::PLAIN;
    }

    // The form in which an operation reads its input number i.
    Form reads(const Op& op, size_t i) const {
        if (many || windowed(op.kind)) return Form::LANED;
        if (vectored(op.kind)) return Form::PLAIN;
        if (op.kind == Kind::GLOBAL_POOL) return Form::LANED;
        if (op.kind == Kind::FLATTEN) return slots[op.inputs[0]].place.form;
        if (op.kind == Kind::MUL && i == 1 && is_vector(tensor(op.inputs[1])) && !is_vector(tensor(op.inputs[0]))) return Form::PLAIN;
        return slots[op.output].place.form;
    }

    // ---- blocks

    int root(int t) {
        while (family[t] != t) t = family[t] = family[family[t]];
        return t;
    }

    void join(int a, int b) { family[root(a)] = root(b); }

    bool in_family(const Op& op, size_t i) const {
        if (!laned(op.output) || !laned(op.inputs[i]) || reads(op, i) != Form::LANED || op.kind == Kind::FLATTEN) return false;
        if (op.kind == Kind::GLOBAL_POOL) return false;
        if (op.kind == Kind::MUL && is_vector(tensor(op.inputs[i])) != is_vector(tensor(op.output))) return false;
        return !(strided(op) && i == 0);
    }

    void choose_blocks() {
        family.resize(slots.size());
        std::iota(family.begin(), family.end(), 0);
        blocks.resize(slots.size());
        if (many) return;
        for (const Op& op : graph.ops)
            for (size_t i = 0; i < op.inputs.size(); ++i)
                if (in_family(op, i)) join(op.inputs[i], op.output);
        for (size_t t = 0; t < slots.size(); ++t) {
            Blocks& b = blocks[root(t)];
            const Blocks own = natural(t);
            b = {std::max(b.h, own.h), std::max(b.w, own.w)};
        }
        for (const Op& op : graph.ops)
            if (windowed(op.kind)) cover(op);
        enlarge();
    }

    // stride * the output's blocks must cover the whole input.
    void cover(const Op& op) {
        const Blocks in = natural(op.inputs[0]);
        Blocks& b = blocks[root(op.output)];
        b = {std::max(b.h, ceil_div(in.h, op.stride_h)), std::max(b.w, ceil_div(in.w, op.stride_w))};
    }

    Blocks natural(int t) const {
        const Lanes l = made->lanes;
        return {ceil_div(tensor(t).rows, l.grid_h), ceil_div(tensor(t).columns, l.grid_w)};
    }

    // From the last operation to the first, so that an output's blocks are settled before its input's.
    void enlarge() {
        std::vector<bool> settled(slots.size(), false);
        for (auto op = graph.ops.rbegin(); op != graph.ops.rend(); ++op) {
            if (!strided(*op)) continue;
            settled[root(op->output)] = true;
            const int f = root(op->inputs[0]);
            const Blocks want = wants(*op, 0), now = blocks[f];
            if (settled[f] || want.h < now.h || want.w < now.w || want.area() > LARGER * now.area()) continue;
            blocks[f] = want;
        }
    }

    Blocks block(int t) { return many ? Blocks{tensor(t).rows, tensor(t).columns} : blocks[root(t)]; }

    // The blocks in which an operation reads its input number i, in lanes.
    Blocks wants(const Op& op, size_t i) {
        const Blocks out = block(op.output);
        if (many || op.kind == Kind::GLOBAL_POOL || is_vector(tensor(op.inputs[i])) != is_vector(tensor(op.output)))
            if (!windowed(op.kind) || many) return block(op.inputs[i]);
        return i == 0 && windowed(op.kind) ? Blocks{out.h * op.stride_h, out.w * op.stride_w} : out;
    }

    // ---- steps

    void emit() {
        alias.resize(slots.size());
        std::iota(alias.begin(), alias.end(), 0);
        for (size_t t = 0; t < slots.size(); ++t) {
            if (!laned(t)) continue;
            const Blocks b = block(t);
            slots[t].place.block_h = b.h;
            slots[t].place.block_w = b.w;
        }
        for (const Op& op : graph.ops) emit(op);
        finish();
    }

    void emit(const Op& op) {
        if (op.kind == Kind::FLATTEN && !many) return flatten(op);
        std::vector<int> in;
        for (size_t i = 0; i < op.inputs.size(); ++i) {
            const bool as_plain = reads(op, i) == Form::PLAIN;
            in.push_back(as_plain ? plain(op.inputs[i], op.name) : in_lanes(op.inputs[i], wants(op, i), op.name));
        }
        if (windowed(op.kind)) surround(op, in[0]);
        wanted.push_back({&op, in, op.output, -1, op.name});
    }

    // A vector of the same numbers: another name for the place, or a copy out of the lanes. A picture that lies plain, the network's input,
    // keeps its shape under its other name, which linear layers do not look at; for any other reader it is copied.
    void flatten(const Op& op) {
        const int from = alias[op.inputs[0]];
        if (laned(from) || !(is_vector(slots[from].place.tensor) || only_linear(op.output))) wanted.push_back({nullptr, {from}, op.output, -1, op.name});
        else alias[op.output] = from;
    }

    bool only_linear(int t) const {
        return std::all_of(graph.ops.begin(), graph.ops.end(), [&](const Op& op) {
            return op.kind == Kind::LINEAR || std::find(op.inputs.begin(), op.inputs.end(), t) == op.inputs.end();
        });
    }

    int plain(int t, const std::string& name) { return laned(alias[t]) ? copied(alias[t], {}, name) : alias[t]; }

    int in_lanes(int t, Blocks b, const std::string& name) {
        const Place& p = slots[alias[t]].place;
        return p.form == Form::LANED && Blocks{p.block_h, p.block_w} == b ? alias[t] : copied(alias[t], b, name);
    }

    int copied(int from, Blocks b, const std::string& name) {
        const auto key = std::make_pair(from, std::make_pair(b.h, b.w));
        if (const auto found = copies.find(key); found != copies.end()) return found->second;
        Slot copy;
        copy.place.tensor = slots[from].place.tensor;
        copy.place.form = b.h ? Form::LANED : Form::PLAIN;
        copy.place.block_h = b.h;
        copy.place.block_w = b.w;
        slots.push_back(copy);
        const int to = slots.size() - 1;
        wanted.push_back({nullptr, {from}, to, -1, name});
        return copies[key] = to;
    }

    // Room for the halo that an operation wants, and a step that fills it.
    void surround(const Op& op, int slot) {
        Slot& s = slots[slot];
        const Blocks out = block(op.output);
        const Halo h = halo_of(op, s.place.block_h, s.place.block_w, out.h, out.w);
        Halo& has = s.place.halo;
        has = {std::max(has.top, h.top), std::max(has.left, h.left), std::max(has.bottom, h.bottom), std::max(has.right, h.right)};
        const bool inside = !many && (h.top || h.left || h.bottom || h.right);
        const long fill = filling(op, s.place.tensor);
        if (!inside && !crosses_edge(op, s.place.tensor, tensor(op.output))) return;
        // A later operation may want a wider halo than this one's: it is filled as wide as it is in the end, so once is enough.
        if (s.filled != fill) wanted.push_back({nullptr, {}, slot, fill, op.name});
        s.filled = fill;
    }

    static long filling(const Op& op, const Tensor& t) {
        if (t.type == Type::U8) return op.kind == Kind::MAX_POOL ? 0 : 0x01010101L * t.zero;
        return op.kind == Kind::MAX_POOL ? 0xff800000L : 0;
    }

    // The network's output leaves as plain numbers.
    void finish() {
        const int in = graph.input, out = graph.output;
        if (many || laned(alias[out])) {
            Slot s;
            s.place.tensor = tensor(out);
            slots.push_back(s);
            wanted.push_back({nullptr, {alias[out]}, int(slots.size()) - 1, -1, "output"});
            output = slots.size() - 1;
        } else output = alias[out];
        input = in;
    }
    int input = 0, output = 0;

    // ---- memory

    void shape(Place& p, int images) const {
        const Tensor& t = p.tensor;
        const long size = t.type == Type::F32 ? 4 : 1;
        if (p.form == Form::PLAIN) {
            p.planes = t.channels;
            p.row = t.columns * size;
            p.plane = t.rows * p.row;
            p.bytes = round_up(t.numbers() * size * images, VECTOR);
            return;
        }
        p.lanes = made->lanes;
        p.planes = t.type == Type::F32 ? t.channels : ceil_div(t.channels, 4);
        p.row = (p.halo.left + p.block_w + p.halo.right) * VECTOR;
        p.plane = (p.halo.top + p.block_h + p.halo.bottom) * p.row;
        // Planes a power of two apart would meet in the same few sets of the first-level cache.
        if (p.plane % 4096 == 0) p.plane += VECTOR;
        p.bytes = p.planes * p.plane;
    }

    static long interior(const Place& p) { return p.form == Form::PLAIN ? 0 : p.halo.top * p.row + p.halo.left * VECTOR; }

    void use(int slot, int step) {
        Slot& s = slots[slot];
        if (s.first < 0) s.first = step;
        s.last = step;
    }

    void give_memory() {
        const int end = wanted.size();
        use(input, 0);
        for (int i = 0; i < end; ++i) {
            for (int slot : wanted[i].in) use(slot, i);
            use(wanted[i].out, i);
        }
        use(output, end);
        for (size_t i = 0; i < slots.size(); ++i) shape(slots[i].place, made->images);
        std::vector<int> order;
        for (size_t i = 0; i < slots.size(); ++i)
            if (slots[i].first >= 0) order.push_back(i);
        // The largest first: each gets the lowest gap between those that live at the same time.
        std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return slots[a].place.bytes > slots[b].place.bytes; });
        std::vector<int> placed;
        for (int slot : order) {
            slots[slot].place.offset = gap(slot, placed);
            placed.push_back(slot);
        }
        for (int slot : order) slots[slot].place.offset += GUARD + interior(slots[slot].place);
        made->arena = round_up(made->arena + 2 * GUARD, VECTOR);
        if (made->arena > MOST_MEMORY)
            throw Refused("one run needs " + std::to_string(made->arena) + " bytes of memory; expected at most 2^33");
    }

    long gap(int slot, const std::vector<int>& placed) {
        const Slot& s = slots[slot];
        std::vector<std::pair<long, long>> taken;
        for (int other : placed) {
            const Slot& o = slots[other];
            if (o.first <= s.last && s.first <= o.last) taken.push_back({o.place.offset, o.place.offset + o.place.bytes});
        }
        std::sort(taken.begin(), taken.end());
        long at = 0;
        for (const auto& [from, to] : taken) {
            if (at + s.place.bytes <= from) break;
            at = std::max(at, to);
        }
        made->arena = std::max(made->arena, at + s.place.bytes);
        return at;
    }

    // ---- steps, with their weights packed

    void build() {
        made->input = slots[input].place;
        made->output = slots[output].place;
        for (const Wanted& w : wanted) made->steps.push_back(step(w));
    }

    StepPtr step(const Wanted& w) const {
        const Place& out = slots[w.out].place;
        StepPtr s;
        if (w.fill >= 0) s = halo(w.name, out, uint32_t(w.fill));
        else if (!w.op) s = relayout(w.name, slots[w.in[0]].place, out);
        else s = step(*w.op, w.in, out);
        s->name = w.name;
        return s;
    }

    StepPtr step(const Op& op, const std::vector<int>& in, const Place& out) const {
        std::vector<const Place*> places;
        for (int slot : in) places.push_back(&slots[slot].place);
        const Place& x = *places[0];
        const Place* residual = has_residual(op) ? places[1] : nullptr;
        const bool bytes = x.tensor.type == Type::U8 || out.tensor.type == Type::U8;
        if (op.kind == Kind::CONV || (op.kind == Kind::LINEAR && many)) {
            if (bytes) return conv_int8(op, x, out, residual);
            const bool each = op.groups > 1 && op.groups == x.tensor.channels && op.groups == out.tensor.channels;
            return each ? depthwise(op, x, out, residual) : conv(op, x, out, residual);
        }
        if (op.kind == Kind::LINEAR) return bytes ? linear_int8(op, x, out, residual) : linear(op, x, out, residual);
        return bytes ? simple_int8(op, places, out) : simple(op, places, out);
    }
};

}  // namespace

std::unique_ptr<Plan> plan(const Graph& graph, bool many, long most) { return Planner(graph, many)(most); }

}  // namespace prunery::engine
