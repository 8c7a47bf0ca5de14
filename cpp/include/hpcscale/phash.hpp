// Perceptual hashes: pictures that look alike get codes that differ in few bits.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace hpcscale {

// --- PDQ (Meta, 2019): 256 bits and a quality from 0 to 100
//
// 1. Luma as float; of RGB (299 R + 587 G + 114 B) / 1000, rounded once.
// 2. Blur: twice a box filter along the rows, then one along the columns; a box is ceil(size / 128) wide, cut
// at
//    the borders, and its mean is a running sum divided by the number of its pixels (a tent filter in all).
// 3. The pixel at floor((k + 0.5) * size / 64) of every k < 64 in both directions: 64 x 64.
// 4. Quality: the sum of |difference| of neighbours, each in whole percent of 255 (towards zero), over 90, at
// most 100.
// 5. The frequencies 1..16 x 1..16 of the DCT-II of the 64 x 64, bit 16 * i + j set where frequency (i, j) is
// above
//    the 128th smallest.
//
// Every float operation has the order and rounding of Meta's implementation, because in flat or regular
// pictures the bits hang on nothing but rounding: codes equal Meta's bit for bit, whatever the instruction
// set. (Where height and width are both 64, `pdq` skips step 2 and `pdq_dihedral` does not, as there.) A
// picture with a side below 5 has code 0 and quality 0.
//
// Bit 255 is the highest bit of code[0], so that the code's words as 16 hexadecimal digits each, one behind
// the other, are Meta's text form. Meta's advice: compare only pictures of quality above 49, and call them
// alike from 31 bits down.
using Code256 = std::array<std::uint64_t, 4>;

struct Pdq {
    Code256 code;
    int quality;
};

// All from one transform, by signs and transposition of its frequencies, in the order of
// pdqhash.compute_dihedral: the picture; turned by 90, 180 and 270 degrees anticlockwise; mirrored top to
// bottom; left to right; at the main diagonal (transposed); at the other diagonal.
struct PdqDihedral {
    std::array<Code256, 8> codes;
    int quality;
};

// pixels: height * width bytes of luma, or height * width * 3 of RGB, rows one behind the other. Throws
// std::invalid_argument if the size does not fit.
Pdq pdq(std::span<const std::uint8_t> pixels, std::size_t height, std::size_t width);
PdqDihedral pdq_dihedral(std::span<const std::uint8_t> pixels, std::size_t height, std::size_t width);

// For tests and benchmarks: the variants that this processor can run, slowest first, and PDQ by one of them.
std::vector<std::string_view> pdq_variants();
Pdq pdq_by(std::string_view variant, std::span<const std::uint8_t> pixels, std::size_t height,
           std::size_t width);

// --- 64 bits, as the Python package imagehash computes them from the same grey pixels
//
// Both shrink the picture as Pillow 13 does: Lanczos (a = 3, stretched by the scale), coefficients rounded to
// 22 bits behind the point, results rounded to bytes after either direction. The width shrinks first, but the
// height where it loses more than twice as many pixels (before version 13, Pillow always began with the
// width: codes of such tall pictures then differ in a few bits).
//
// phash: 32 x 32 pixels, DCT-II, bit (i, j) set where the frequency of (i, j) < (8, 8) is above the median of
// the 64. dhash: 8 rows of 9 pixels, bit (i, j) set where pixel (i, j + 1) is brighter than (i, j). Bit (0,
// 0) is the highest, so that 16 hexadecimal digits are imagehash's text form.
//
// grey: height * width bytes. Throws std::invalid_argument if the size does not fit or is 0.
std::uint64_t phash(std::span<const std::uint8_t> grey, std::size_t height, std::size_t width);
std::uint64_t dhash(std::span<const std::uint8_t> grey, std::size_t height, std::size_t width);

}  // namespace hpcscale
