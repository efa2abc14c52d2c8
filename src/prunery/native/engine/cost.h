// What the parts of a convolution cost, in nanoseconds on one core. Fitted to some thousand timings of each instruction set's kernels on a Zen 4
// core, once; nothing is timed while a program runs, so that a file gets the same kernels every time.

#pragma once

#include "../vector.h"

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

constexpr int CACHE_LINE = 64;
constexpr double NEAREST_BYTES = 32 << 10;  // of input under a tile: more do not stay in the first-level cache
constexpr double NEAR_BYTES = 700e3;        // of input and output: more do not stay in the second-level cache
constexpr double UNEVEN = 0.29;             // zeros that fill up a bundle: a share of the spread of its outputs' numbers of weights

struct Costs {
    double fma;              // sparse: a multiply-add of vectors, one operand in the first-level cache
    double weight, of_four;  // an offset and a weight, once for each tile: alone, or where bundles are of four or eight
    double sum;              // a vector of sums, taken up and put down in a pass
    double bundle;           // its beginning and end, once for each tile
    double line;             // a vector of input, brought near for a tile
    double far;              // one that has gone when it is wanted again
    double vast;             // a vector of input or output, where these do not stay in the second-level cache
    double dense_fma;        // a multiply-add of vectors in registers
    double activation;       // a vector, other than by a ReLU
};

#if PRUNERY_VECTOR_BYTES == 64
constexpr double LOAD_OF_ONE = 0.5;  // a number's, spread to all lanes, as a share of a vector's
constexpr Costs COSTS{0.311, 0.224, 0.063, 0.56, 0.36, 0.24, 0.087, 0.14, 0.272, 1.9};
#elif PRUNERY_VECTOR_BYTES == 32
constexpr double LOAD_OF_ONE = 1;
constexpr Costs COSTS{0.167, 0.19, 0.066, 0.338, 0.56, 0.172, 0.08, 0.1, 0.1405, 1.4};
#else
constexpr double LOAD_OF_ONE = 1;
constexpr Costs COSTS{0.2, 0.117, 0.086, 0.3, 0.52, 0.196, 0.089, 0.114, 0.205, 2.9};
#endif

}  // namespace cost
}  // namespace prunery::engine
