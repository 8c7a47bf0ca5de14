// The steps of PDQ on vectors. Inside the library only; phash.hpp says what they compute.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "hpcscale/phash.hpp"

namespace hpcscale {

inline constexpr std::size_t kSmall = 64;  // the shrunk picture is 64 x 64
inline constexpr std::size_t kBand = 16;   // frequencies kept in either direction

using Small = float[kSmall][kSmall];
using Band = float[kBand][kBand];

// A row of pixels to `width` floats of luma.
using Row = void (*)(const std::uint8_t* pixels, std::size_t width, float* out);

struct Pixels {
    const std::uint8_t* first;
    std::size_t row_bytes, height, width;  // rows are `row_bytes` apart
    Row to_luma;
};

struct PdqKernels {
    std::string_view name;
    Row grey_row, rgb_row;
    void (*shrink)(const Pixels& pixels, Small& out);  // blur, and keep 64 x 64; height and width at least 5
    void (*frequencies)(const Small& small, Band& out);
    int (*quality)(const Small& small);
};

// Code and quality of what is left of a picture.
Pdq pdq_of(const Small& small);

std::vector<PdqKernels> pdq_kernels();  // those that this processor can run, slowest first

}  // namespace hpcscale
