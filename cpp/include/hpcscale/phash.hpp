// Perceptual hashes: pictures that look alike get codes that differ in few bits.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace hpcscale {

// --- PDQ (Meta, 2019): 256 bits and a quality from 0 to 100
//
// clang-format off
// 1. Luma as float. RGB becomes (299 R + 587 G + 114 B) / 1000, rounded once.
// 2. Blur: a box filter along the rows and one along the columns, and both once more (a tent filter in all).
//    A box is ceil(size / 128) wide and cut at the borders; its mean is a running sum over its pixels, divided
//    by their number.
// 3. Keep the pixel at floor((k + 0.5) * size / 64) for every k < 64 in both directions: 64 x 64.
// 4. Quality: |difference| of neighbours, each in whole percent of 255 (rounded towards zero); their sum over
//    90, at most 100.
// 5. Code: the frequencies 1..16 x 1..16 of the DCT-II of the 64 x 64; bit 16 * i + j is set where frequency
//    (i, j) is above the 128th smallest.
// clang-format on
//
// Codes equal Meta's bit for bit, whatever the instruction set: every float operation has the order and
// rounding of Meta's implementation, because in flat or regular pictures rounding alone decides the bits.
// Also as in Meta's, `pdq` skips step 2 where height and width are both 64, and `pdq_dihedral` does not. A
// picture with a side below 5 has code 0 and quality 0.
//
// Bit 255 is the highest bit of code[0]. Meta's text form is therefore the words of the code in order, each
// as 16 hexadecimal digits. Meta advises to compare only pictures of quality above 49, and to call them alike
// if they differ in at most 31 bits.
using Code256 = std::array<std::uint64_t, 4>;

struct Pdq {
    Code256 code;
    int quality;
};

// The codes of a picture turned and mirrored, all from one transform: only signs and places of its
// frequencies change. In the order of pdqhash.compute_dihedral: the picture; turned by 90, 180 and 270
// degrees anticlockwise; mirrored top to bottom; left to right; at the main diagonal (transposed); at the
// other diagonal.
struct PdqDihedral {
    std::array<Code256, 8> codes;
    int quality;
};

// pixels: height * width bytes of luma, or height * width * 3 of RGB, row after row. Throws
// std::invalid_argument if the size does not fit.
Pdq pdq(std::span<const std::uint8_t> pixels, std::size_t height, std::size_t width);
PdqDihedral pdq_dihedral(std::span<const std::uint8_t> pixels, std::size_t height, std::size_t width);

// PDQ of a JPEG file, from the first 15 coefficients (zigzag order) of each block of its luma, in a fraction
// of the time that decoding takes: Huffman codes are read, and what is not kept is skipped. The blur all but
// removes higher frequencies. It is the same linear function, computed from coefficients; what differs is
// that pixels are neither rounded nor cut at 0 and 255. On 450 photographs at most 6 bits differ from Meta's
// code.
//
// Nothing, where it is left to the caller to decode the picture: a side below 257 (a box of one or two
// pixels, which keeps high frequencies); more than 52.4 million pixels; progressive, arithmetic, more than 8
// bits, restart markers, several scans, RGB or CMYK; any damage.
std::optional<Pdq> pdq_jpeg(std::span<const std::uint8_t> jpeg);

// For tests and benchmarks: the variants that this processor can run, slowest first, and PDQ by one of them.
std::vector<std::string_view> pdq_variants();
Pdq pdq_by(std::string_view variant, std::span<const std::uint8_t> pixels, std::size_t height,
           std::size_t width);

// --- 64 bits, as the Python package imagehash computes them from the same grey pixels
//
// Both shrink the picture as Pillow 13 does: Lanczos (a = 3, stretched by the scale), coefficients rounded to
// 22 bits behind the point, results rounded to bytes after each direction. The width shrinks first, unless
// the height loses more than twice as many pixels. (Before version 13, Pillow always began with the width:
// its codes of such tall pictures differ from these in a few bits.)
//
// clang-format off
// phash: 32 x 32 pixels, DCT-II; bit (i, j) of 8 x 8 is set where frequency (i, j) is above the median of the
//        lowest 64.
// dhash: 8 rows of 9 pixels; bit (i, j) is set where pixel (i, j + 1) is brighter than pixel (i, j).
// clang-format on
// Bit (0, 0) is the highest, so that imagehash's text form is the code as 16 hexadecimal digits.
//
// grey: height * width bytes. Throws std::invalid_argument if the size does not fit or is 0.
std::uint64_t phash(std::span<const std::uint8_t> grey, std::size_t height, std::size_t width);
std::uint64_t dhash(std::span<const std::uint8_t> grey, std::size_t height, std::size_t width);

}  // namespace hpcscale
