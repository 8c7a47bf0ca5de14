// From decoded pictures to what a model reads, in one pass over the memory.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace hpcscale {

// Of red, green and blue.
struct Channels {
    std::array<float, 3> mean;
    std::array<float, 3> scale;  // 1 / deviation
};

// Pixels lie end to end, each of 3 channels (NHWC):
//
//   out[i] = (in[i] - mean[i % 3]) * scale[i % 3]
//
// This rounds once after each of the two operations, which no processor can join: every variant gives the
// same bits. With mean and deviation 127.5 the difference is exact, 0 becomes -1 and 255 becomes 1.
//
// out: as many floats as `pixels` has bytes; it must not overlap them. Throws std::invalid_argument where
// sizes do not fit. The speed is that of the memory, 5 bytes per value: whole cache lines of `out` are
// written past the cache.
void normalize(std::span<const std::uint8_t> pixels, const Channels& channels, std::span<float> out);

// For tests and benchmarks: the same by a named variant; `normalize` takes the last of normalize_variants().
std::vector<std::string_view> normalize_variants();  // those that this processor can run, slowest first
void normalize_by(std::string_view variant, std::span<const std::uint8_t> pixels, const Channels& channels,
                  std::span<float> out);

}  // namespace hpcscale
