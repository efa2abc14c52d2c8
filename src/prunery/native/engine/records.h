// The packed file's records, field by field as docs/format.md lists them.

#pragma once

#include <cstdint>

namespace prunery::engine {

struct Header {
    uint8_t magic[8];
    uint32_t version, crc;
    uint64_t size;
    uint32_t tensors, ops, inputs, names, about, input, output;
    uint8_t reserved[12];
};
static_assert(sizeof(Header) == 64, "as in docs/format.md");

struct TensorRecord {
    uint32_t channels, rows, columns, type;
    float scale;
    uint32_t zero;
    uint8_t reserved[8];
};
static_assert(sizeof(TensorRecord) == 32, "as in docs/format.md");

struct OpRecord {
    uint32_t kind, activation;
    float slope;
    uint32_t output, first_input, inputs, name, name_length;
    uint32_t kernel[2], stride[2], dilation[2], groups, count_padding, padding[4];
    uint32_t outputs, columns, encoding, values, bits, reserved;
    uint64_t kept, start_at, index_at, values_at, scales_at, bias_at, gather_at;
    uint8_t also_reserved[32];
};
static_assert(sizeof(OpRecord) == 192, "as in docs/format.md");

}  // namespace prunery::engine
