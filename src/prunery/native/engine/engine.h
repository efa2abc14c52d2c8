// The engine, as its parts see each other. docs/engine.md tells the design; docs/format.md the file, byte by byte.
//
//   reader.cpp     bytes -> Graph: everything that a stranger's file could get wrong is refused here
//   plan.cpp       Graph -> Plan: where each tensor lies, which step computes it
//   conv.cpp, depthwise.cpp, linear.cpp, int8.cpp, simple.cpp     one family of kernels each: an Op and places -> a Step
//   run.cpp        threads, memory, and the C functions that Python calls
//
// A tensor has channels, rows and columns; batches are made of images, one plan run for each (or for LANES of them at once). In memory it is
//   PLAIN   channels x rows x columns numbers, one after the other: vectors, inputs and outputs;
//   LANES   for each channel a grid of vectors. A lane of a vector is either one of grid_h x grid_w blocks into which the picture is cut
//           (one image), or one of LANES images. Vector (y, x) of a plane holds pixel (y, x) of every block, so that all taps of a convolution
//           are aligned loads. Around the grid lies a halo: rows and columns that belong to neighbouring blocks, or zeros outside of the picture
//           (the zero point where the tensor is quantised). It is filled by a step of its own before an operation that reads it.
// Quantised tensors (U8) keep four channels in the four bytes of each lane: a plane is then a quad of channels.

#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "../vector.h"

namespace prunery::engine {

// What a reader of the file would be told: no traceback, one line.
struct Refused : std::runtime_error {
    using std::runtime_error::runtime_error;
};

enum class Type : uint32_t { F32 = 0, U8 = 1 };

enum class Kind : uint32_t {
    CONV = 1,     // x [, residual]: weights, bias, then + residual, then activation
    LINEAR,       // the same for vectors
    MAX_POOL,     // padding counts as minus infinity
    AVG_POOL,     // count_padding says whether padding counts as pixels
    GLOBAL_POOL,  // the mean of each channel -> a vector
    ADD,          // a, b of one shape, then activation
    MUL,          // a, b of one shape, or b a vector of a's channels; then activation
    ACTIVATE,     // an activation alone
    AFFINE,       // x * weights[c] + bias[c], then activation: a BatchNorm with nothing to fold it into
    CONCAT,       // channels of many inputs, one after the other
    GATHER,       // channel c of the output is channel index[c] of the input: split, chunk, shuffle
    FLATTEN,      // channels x rows x columns -> a vector of as many channels
    SOFTMAX,      // over the channels of a vector
    QUANTIZE,     // F32 -> U8
    DEQUANTIZE,   // U8 -> F32
};

enum class Activation : uint32_t { NONE = 0, RELU, RELU6, HARD_SWISH, HARD_SIGMOID, SILU, SIGMOID, GELU, TANH, LEAKY_RELU, ELU };

struct Tensor {
    int channels = 0, rows = 0, columns = 0;
    Type type = Type::F32;
    float scale = 0;  // U8: value = scale * (byte - zero)
    int zero = 0;
    long numbers() const { return long(channels) * rows * columns; }
};

// A matrix of `outputs` rows and `inputs` columns: for convolutions, inputs = channels of the group x kernel rows x kernel columns. It is
// sparse where `start` is set: row o keeps places index[start[o]] .. index[start[o + 1] - 1], which rise; else `values` is all of it.
// The file's bytes, checked by the reader; nothing is copied.
struct Weights {
    int outputs = 0, inputs = 0;
    long kept = 0;                  // numbers in values
    const uint32_t* start = nullptr;  // outputs + 1
    const uint16_t* narrow = nullptr;  // index in 16 bits, or
    const uint32_t* wide = nullptr;    // in 32
    const float* floats = nullptr;     // values, or
    const uint16_t* halves = nullptr;  // IEEE half precision, or
    const int8_t* bytes = nullptr;     // quantised: value = scales[o] * byte
    const float* scales = nullptr;     // outputs, with bytes

    bool sparse() const { return start != nullptr; }
    long index(long k) const { return narrow ? narrow[k] : wide[k]; }
    float value(long k) const;  // of floats and halves
    double density() const { return outputs && inputs ? double(kept) / (double(outputs) * inputs) : 0; }
};

float half_to_float(uint16_t half);

struct Op {
    Kind kind{};
    std::string name;         // the module's path, for people
    std::vector<int> inputs;  // tensors
    int output = 0;
    int kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1, dilation_h = 1, dilation_w = 1, groups = 1;
    int pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
    bool count_padding = false;
    Activation activation = Activation::NONE;
    float slope = 0;  // LEAKY_RELU, ELU
    Weights weights;                // CONV, LINEAR; AFFINE: outputs x 1, dense
    const float* bias = nullptr;    // CONV, LINEAR, AFFINE: outputs numbers, or none
    const uint32_t* index = nullptr;  // GATHER: output channels, each below the input's
};

struct Graph {
    std::vector<Tensor> tensors;
    std::vector<Op> ops;  // each reads tensors that are inputs or come from earlier ones; each tensor is written once
    int input = 0, output = 0;
};

// Throws Refused. The bytes must stay where they are as long as the graph is used.
Graph read(const uint8_t* bytes, size_t size);

// ---- layouts

// How the lanes of a vector are used: grid_h * grid_w blocks of one image, or images = LANES.
struct Lanes {
    int grid_h = 1, grid_w = 1, images = LANES;
};

struct Halo {
    int top = 0, left = 0, bottom = 0, right = 0;
};

enum class Form { PLAIN, LANED };

// Where a tensor lies in a run's memory.
struct Place {
    Form form = Form::PLAIN;
    Tensor tensor;
    Lanes lanes;                // LANED
    int planes = 0;             // channels, or quads of them
    int block_h = 0, block_w = 0;  // vectors in a plane, without halo
    Halo halo;
    long row = 0, plane = 0;    // bytes from one to the next, halo included
    long offset = 0;            // of the first number; of vector (0, 0) of plane 0, not of its halo
    long bytes = 0;             // all of it
};

constexpr long VECTOR = PRUNERY_VECTOR_BYTES;
constexpr long GUARD = 2 * VECTOR;  // there is as much readable memory before and behind every tensor

// Row `y` of the block in lane row `g` is row g * block_h + y of the picture: a convolution with a stride needs input blocks of stride * output
// block rows, and the planner sees to that. Pixels beyond the picture's edge hold anything, until a halo is filled: then they hold zeros.

// ---- steps

// The memory of one run.
struct Memory {
    char* arena;
    char* at(const Place& p) const { return arena + p.offset; }
};

// One pass over one tensor, shared by `parts` threads that each do their part; all of them are done before the next step begins.
struct Step {
    std::string name, kernel, why;  // of explain: the module, the kernel's short name, why it was chosen
    double density = 1;             // of weights
    double multiply_adds = 0;       // that are carried out, for one image
    double predicted_ns = 0;        // for one run on one thread
    long own_bytes = 0;             // of weights as this plan holds them
    virtual ~Step() = default;
    virtual void run(const Memory& memory, int part, int parts) const = 0;
};
using StepPtr = std::unique_ptr<Step>;

// The share of `count` things that falls to a part: [first, last).
struct Share {
    long first, last;
    Share(long count, int part, int parts) : first(count * part / parts), last(count * (part + 1) / parts) {}
};

// Factories: weights are packed here, once. `residual` may be null. Places are final.
StepPtr conv(const Op& op, const Place& in, const Place& out, const Place* residual);        // F32, LANED; picks sparse or dense
StepPtr depthwise(const Op& op, const Place& in, const Place& out, const Place* residual);   // F32, LANED; groups = channels = outputs
StepPtr linear(const Op& op, const Place& in, const Place& out, const Place* residual);      // F32, PLAIN
StepPtr conv_int8(const Op& op, const Place& in, const Place& out, const Place* residual);   // U8, LANED; a LINEAR of many images too; out U8 or F32
StepPtr linear_int8(const Op& op, const Place& in, const Place& out, const Place* residual);  // U8, PLAIN; out U8 or F32
StepPtr simple(const Op& op, const std::vector<const Place*>& in, const Place& out);         // everything else, F32
StepPtr simple_int8(const Op& op, const std::vector<const Place*>& in, const Place& out);    // everything else with a U8 input or output
StepPtr halo(const std::string& name, const Place& place, uint32_t fill);  // lanes of the halo that lie outside of the picture, and what
                                                                           // lies beyond the edge, become `fill`
StepPtr relayout(const std::string& name, const Place& in, const Place& out);                // between any two forms

// The halo that an operation wants around its input, given the blocks of input and output.
inline Halo halo_of(const Op& op, int in_h, int in_w, int out_h, int out_w) {
    const int bottom = (out_h - 1) * op.stride_h + (op.kernel_h - 1) * op.dilation_h - op.pad_top - (in_h - 1);
    const int right = (out_w - 1) * op.stride_w + (op.kernel_w - 1) * op.dilation_w - op.pad_left - (in_w - 1);
    return {op.pad_top, op.pad_left, bottom > 0 ? bottom : 0, right > 0 ? right : 0};
}

// The same where the input's blocks are stride * the output's.
inline Halo halo_of(const Op& op) { return halo_of(op, op.stride_h, op.stride_w, 1, 1); }

// Whether a window of the operation sees anything outside of the picture.
inline bool crosses_edge(const Op& op, const Tensor& in, const Tensor& out) {
    const long reach_h = (op.kernel_h - 1) * op.dilation_h, reach_w = (op.kernel_w - 1) * op.dilation_w;
    return op.pad_top || op.pad_left || (out.rows - 1L) * op.stride_h - op.pad_top + reach_h >= in.rows ||
           (out.columns - 1L) * op.stride_w - op.pad_left + reach_w >= in.columns;
}

// ---- activations, one definition for all kernels: activation.h

// ---- plans

struct Plan {
    Lanes lanes;
    int images = 1;              // that one run computes
    Place input, output;         // PLAIN, images of them one after the other
    std::vector<StepPtr> steps;
    long arena = 0;              // bytes of a run's memory
};

// `many`: LANES images in the lanes; otherwise one image, cut into blocks. Throws Refused for what no kernel can do. Null where a run would need
// more than `most` bytes, before any weights are laid out.
std::unique_ptr<Plan> plan(const Graph& graph, bool many, long most = std::numeric_limits<long>::max());

}  // namespace prunery::engine
