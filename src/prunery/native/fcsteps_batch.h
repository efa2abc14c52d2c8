// From images anywhere in memory to a batch with its samples in the lanes of vectors.

#pragma once

#include "fcsteps_sparse.h"

namespace prunery {

// Inputs are pixel * scale + shift. A shift lights every pixel of every sample; but what it adds is the same for all samples, so it is
// kept out of their lanes, in a vector of its own at the end of each row: there x is the shift, y gathers what all samples share, and dy is
// the sum of the samples' dy.
struct Pixels {
    std::vector<float> scale, shift;
    bool shifted = false;
    std::vector<int32_t> read;    // those that the first layer reads
    std::vector<uint8_t> in_tile;  // whether there are any in each tile of them

    Pixels(int inputs, const float* scales, const float* shifts) : scale(scales, scales + inputs), shift(shifts, shifts + inputs) {
        for (float s : shift) shifted |= s != 0;
    }
    int count() const { return int(scale.size()); }

    void choose(const std::vector<uint8_t>& reads) {
        in_tile.assign((count() + TILE - 1) / TILE, 0);
        for (int i = 0; i < count(); ++i) {
            if (!reads[i]) continue;
            read.push_back(i);
            in_tile[i / TILE] = 1;
        }
    }
};

struct Images {
    const uint8_t* pixels;
    const int32_t* labels;
    int size;  // pixels of one
    const uint8_t* at(int index) const { return pixels + long(index) * size; }

    // Images that will be wanted soon, on their way to the cache; -1 is none.
    void prefetch(const int32_t* index, int most) const {
        for (int s = 0; s < most && index[s] >= 0; ++s)
            for (int i = 0; i < size; i += 64) __builtin_prefetch(at(index[s]) + i, 0, 1);
    }
};

class Batch {
    std::vector<uint8_t> bytes, black;  // pixels [pixel][lane]; an image of zeros

  public:
    int lanes, groups = 0, present = 0;  // groups of LANES samples
    std::vector<Ints> labels;            // -1 where there is no sample
    Rows x;

    Batch(int samples, const Pixels& pixels) : lanes(whole(samples, TILE)) {
        bytes.resize(whole(pixels.count(), TILE) * lanes);
        black.resize(pixels.count());
        labels.resize(lanes / LANES);
        x.resize(pixels.count(), lanes / LANES + pixels.shifted);
        for (int i = 0; i < pixels.count() && pixels.shifted; ++i) x.row(i)[x.stride - 1] = splat(pixels.shift[i]);
    }

    // The samples `index`, of which there are `most` or the first that are not negative.
    void enter(const Pixels& pixels, const Images& images, const int32_t* index, int most) {
        for (present = 0; present < most && index[present] >= 0;) ++present;
        groups = (present + LANES - 1) / LANES;
        for (int s = 0; s < groups * LANES; s += TILE) {
            const uint8_t* image[TILE];
            for (int i = 0; i < TILE; ++i) {
                const bool there = s + i < present;
                image[i] = there ? images.at(index[s + i]) : black.data();
                labels[(s + i) / LANES][(s + i) % LANES] = there ? images.labels[index[s + i]] : -1;
            }
            turn(pixels, image, s);
        }
        light(pixels);
    }

  private:
    void turn(const Pixels& pixels, const uint8_t* const* image, int s) {
        for (int first = 0; first < pixels.count(); first += TILE) {
            if (!pixels.in_tile[first / TILE]) continue;
            if (first + TILE <= pixels.count()) turn_tile<true>(image, first, TILE, s);
            else turn_tile<false>(image, first, pixels.count() - first, s);
        }
    }

    template <bool WHOLE>
    void turn_tile(const uint8_t* const* image, int first, int here, int s) {
        Row v[TILE] = {};
        for (int i = 0; i < TILE; ++i) memcpy(&v[i], image[i] + first, WHOLE ? TILE : here);
        transpose(v);
        for (int i = 0; i < TILE; ++i) memcpy(bytes.data() + (first + i) * lanes + s, &v[i], TILE);
    }

    // Bytes to rows of inputs, and which of their vectors are lit.
    void light(const Pixels& pixels) {
        for (int i : pixels.read) {
            const uint8_t* from = bytes.data() + long(i) * lanes;
            uint16_t* which = x.which.data() + i * x.stride;
            Vec* row = x.row(i);
            int lit = 0;
            for (int g = 0; g < groups; ++g) {
                row[g] = to_floats(from + g * LANES) * pixels.scale[i];
                which[lit] = g;
                lit += any_byte(from + g * LANES);  // a branch would be guessed wrong half of the time
            }
            if (pixels.shift[i] != 0) which[lit++] = x.stride - 1;
            x.lit[i] = lit;
        }
    }
};

}  // namespace prunery
