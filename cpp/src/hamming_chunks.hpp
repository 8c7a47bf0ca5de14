// Chunks of multi-index hashing and the planner. Inside the library only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "hpcscale/hamming.hpp"

namespace hpcscale {

// The bits of the chunk as a number: the bucket.
inline std::uint32_t key(const std::uint64_t* code, const Chunk& chunk) {
    const std::size_t word = chunk.first / 64, shift = chunk.first % 64;
    std::uint64_t bits = code[word] >> shift;
    if (shift + chunk.bits > 64) bits |= code[word + 1] << (64 - shift);
    return static_cast<std::uint32_t>(bits & ((std::uint64_t{1} << chunk.bits) - 1));
}

// `chunks`, with fewer bits for small sets: more than two buckets per code would only stay empty.
std::vector<Chunk> fitting_chunks(const Codes& a, const Codes& b, int radius, int m);

// All masks with at most chunk.radius of chunk.bits bits set, 0 first. The neighbours of bucket k are k ^
// mask.
std::vector<std::uint32_t> masks(const Chunk& chunk);

int plan(const Codes& a, const Codes& b, bool self, int radius);

}  // namespace hpcscale
