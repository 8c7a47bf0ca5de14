// Pillow's resampling of bytes: coefficients rounded to 22 bits behind the point, results rounded to bytes
// after each direction. Inside the library only.
//
// Pillow's own gives the same bytes, but hashing a JPEG would then cost half as much again, decoding
// included: benchmarks/records/2026-11-28-resample.md. And here only what a crop shows is computed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace hpcscale {

struct Filter {
    double support;  // of one output element where nothing shrinks
    double (*weight)(double x);
};
extern const Filter kLanczos;   // a = 3
extern const Filter kBilinear;  // a triangle

// Outputs [from, to) of `in` elements resized to `out`.
struct Scale {
    std::size_t in, out, from, to;
};

// For every output element of a scale: the first input element, and the coefficients of the following ones.
struct Taps {
    std::vector<std::size_t> first, count;
    std::size_t stride;
    std::vector<std::int32_t> coefficients;  // output, tap
    std::size_t begin() const { return first.front(); }
    std::size_t end() const { return first.back() + count.back(); }  // of the inputs that are read
};
Taps make_taps(const Scale& scale, const Filter& filter);

// Whether Pillow 13 begins with the height: where it loses more than twice as many pixels as the width.
bool down_first(std::size_t height, std::size_t width, std::size_t rows, std::size_t columns);

// A row of pixels to `by`'s outputs. row: the pixels from number `base` on.
using Across = void (*)(const std::uint8_t* row, std::size_t base, const Taps& by, std::uint8_t* out);
// Output `o` of each column. rows: of `width` bytes, without gaps, from number `base` on.
using Down = void (*)(const std::uint8_t* rows, std::size_t base, std::size_t width, const Taps& by,
                      std::size_t o, std::uint8_t* out);

struct Resampling {
    Across grey, rgb;
    Down down;
};
const Resampling& resampling();  // the fastest variant that this processor can run

}  // namespace hpcscale
