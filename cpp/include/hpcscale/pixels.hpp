// From decoded pictures to what a model reads: mirror and normalise in one pass over the memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace hpcscale {

// Pictures lie end to end, as rows of pixels of 3 channels (NHWC), without gaps.
//
//   out[i][y][x][c] = (2 * in[i][y][mirror[i] ? width - 1 - x : x][c] - 255) * (1 / 255)
//
// This is value / 127.5 - 1: 0 becomes -1 and 255 becomes 1, exactly. Written this way it rounds only once
// (2 * value - 255 is exact), so every variant gives the same bits, even where a processor multiplies and
// adds in one instruction.
//
// pixels: n * height * width * 3 bytes. mirror: n bytes; where one is not 0, left and right are exchanged.
// out: as many floats as pixels; it must not overlap them. Throws std::invalid_argument where the sizes do
// not fit. The speed is that of the memory, 5 bytes per value: whole cache lines of `out` are written past
// the cache.
void normalize(std::span<const std::uint8_t> pixels, std::span<const std::uint8_t> mirror, std::size_t height,
               std::size_t width, std::span<float> out);

// For tests and benchmarks: the same by a named variant; `normalize` takes the last of normalize_variants().
std::vector<std::string_view> normalize_variants();  // those that this processor can run, slowest first
void normalize_by(std::string_view variant, std::span<const std::uint8_t> pixels,
                  std::span<const std::uint8_t> mirror, std::size_t height, std::size_t width,
                  std::span<float> out);

}  // namespace hpcscale
