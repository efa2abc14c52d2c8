// What the parts of a convolution cost, in nanoseconds on one core: measured once per instruction set, never while a program runs, so
// that the same file gets the same kernels everywhere.

#pragma once

namespace prunery::engine {

// A kernel of conv.cpp: tiles of h x w output vectors, bundles of `size` outputs, `channels` of input in a pass.
namespace conv_testing {
struct Choice {
    bool dense = false;
    int h = 0, w = 0, size = 1, channels = 0;
};
extern Choice forced;  // where h is set, conv() obeys; for tests alone
}  // namespace conv_testing

namespace cost {

constexpr double FMA = 0.31;           // sparse: a multiply-add of vectors, one operand in the first-level cache
constexpr double FAR = 0.2;            // more for one whose operand is not
constexpr double NEAR_BYTES = 24 << 10;  // of the input that stays there
constexpr double WEIGHT = 0.3;         // an offset and a weight, once for each tile
constexpr double LOAD = 0.3, STORE = 0.6;  // of a vector of sums, between passes
constexpr double BUNDLE = 6;           // its beginning and end, a mispredicted branch among them
constexpr double LINE = 0.5;           // a line of input, brought near for a tile
constexpr double STREAM_BYTE = 0.01;   // of weights
constexpr double UNEVEN = 0.1;         // zeros that fill up a bundle, as a share of the square root of an output's weights
constexpr double DENSE_FMA = 0.29, DENSE_STEP = 1.2, DENSE_WEIGHT = 0.1;

}  // namespace cost
}  // namespace prunery::engine
