// The widest vector of floats that the instruction set of this build has: the one type that kernels are written in.

#pragma once

#if defined(__AVX512F__)
#define PRUNERY_VECTOR_BYTES 64
#elif defined(__AVX__)
#define PRUNERY_VECTOR_BYTES 32
#else
#define PRUNERY_VECTOR_BYTES 16  // SSE2, NEON, or what the compiler makes of it
#endif

// How many vectors fit in registers: what a kernel may keep in flight.
#if defined(__AVX512F__) || defined(__aarch64__)
#define PRUNERY_VECTOR_REGISTERS 32
#else
#define PRUNERY_VECTOR_REGISTERS 16
#endif

#define PRUNERY_EXPORT extern "C" __attribute__((visibility("default")))

namespace prunery {

typedef float Vec __attribute__((vector_size(PRUNERY_VECTOR_BYTES)));
constexpr int LANES = PRUNERY_VECTOR_BYTES / sizeof(float);

inline Vec splat(float value) { return Vec{} + value; }

}  // namespace prunery
