// Codes by columns, as the kernels read them, sorted by the key of a chunk. Inside the library only.
#pragma once

#include <algorithm>
#include <vector>

#include "hamming_chunks.hpp"
#include "hamming_kernels.hpp"
#include "threads.hpp"

namespace hpcscale {

// Ranges of about equal size for for_each.
struct Slices {
    std::size_t count, parts;
    std::size_t begin(std::size_t part) const { return count * part / parts; }
};

struct Side {
    std::size_t count = 0, width = 0;   // codes, 32-bit words of a code
    std::vector<std::uint32_t> words;   // columns
    std::vector<std::uint32_t> ids;     // of the codes, in this order; empty: they are in order
    std::vector<std::uint32_t> starts;  // of the buckets, and the end of the last
    Columns from(std::size_t position) const { return {words.data() + position, count}; }
    std::size_t id(std::size_t position) const { return ids.empty() ? position : ids[position]; }
};

// Codes [first, first + side.count), or those of side.ids; column w is 32-bit word w + turn, cyclically.
void fill_columns(const Codes& codes, std::size_t first, std::size_t turn, int threads, Side& side);

// All codes, by the key of the chunk. A counting sort; every thread counts and places its own slice, so that
// the order does not depend on chance.
void sort_by_key(const Codes& codes, const Chunk& chunk, int threads, Side& side);

}  // namespace hpcscale
