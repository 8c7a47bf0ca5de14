// What the header of a baseline JPEG says, and its one scan. Inside the library only.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace hpcscale {

using Bytes = std::span<const std::uint8_t>;

// A Huffman table as the file states it (ITU-T T.81, B.2.4.2).
struct HuffmanCode {
    std::array<std::uint8_t, 17> counts{};  // of each length, from 1 to 16 bits
    std::array<std::uint8_t, 256> symbols{};
    bool operator==(const HuffmanCode&) const = default;
};

struct JpegComponent {
    std::size_t down, across;  // blocks in a minimum coded unit (MCU)
    HuffmanCode first, rest;   // of DC and AC coefficients
};

// Zigzag order: place 8 * v + u of coefficient k, v being the frequency along columns.
inline constexpr std::array<std::uint8_t, 64> kZigzag = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

struct JpegFile {
    std::size_t height, width;
    std::vector<JpegComponent> components;  // the first is luma, or grey, at full resolution
    std::array<std::uint16_t, 64> steps;    // quantisation of the first, in zigzag order
    Bytes scan;                             // from its first byte on, to the end of the file
};

// Nothing, if it is another kind of JPEG than nearly all photographs are (8 bits, sequential, Huffman; grey
// or YCbCr, all in one scan; no restart markers), or is damaged there.
std::optional<JpegFile> read_jpeg_file(Bytes jpeg);

}  // namespace hpcscale
