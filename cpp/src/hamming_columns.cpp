#include "hamming_columns.hpp"

#include <utility>

namespace hpcscale {

void fill_columns(const Codes& codes, std::size_t first, std::size_t turn, int threads, Side& side) {
    side.width = 2 * codes.words;
    side.words.resize(side.width * side.count);
    const Slices slices{side.count, side.count / 65536 + 1};
    for_each(slices.parts, threads, [&](int, std::size_t part) {
        constexpr std::size_t kAhead = 16;  // codes handled in the time of one random read of memory
        const std::size_t end = slices.begin(part + 1);
        for (std::size_t k = slices.begin(part); k < end; ++k) {
            if (!side.ids.empty() && k + kAhead < end) {
                __builtin_prefetch(codes.values.data() + side.ids[k + kAhead] * codes.words);
            }
            const std::uint64_t* const code = codes.values.data() + (first + side.id(k)) * codes.words;
            for (std::size_t w = 0; w < side.width; ++w) {
                const std::size_t from = (w + turn) % side.width;
                side.words[w * side.count + k] =
                    static_cast<std::uint32_t>(code[from / 2] >> (32 * (from % 2)));
            }
        }
    });
}

void sort_by_key(const Codes& codes, const Chunk& chunk, int threads, Side& side) {
    const std::size_t buckets = std::size_t{1} << chunk.bits;
    side.count = codes.count();
    side.ids.resize(side.count);
    side.starts.assign(buckets + 1, 0);
    const Slices slices{side.count, static_cast<std::size_t>(threads)};
    std::vector<std::vector<std::uint32_t>> counts(slices.parts);
    for_each(slices.parts, threads, [&](int, std::size_t part) {
        counts[part].assign(buckets, 0);
        for (std::size_t k = slices.begin(part); k < slices.begin(part + 1); ++k) {
            ++counts[part][key(codes.values.data() + k * codes.words, chunk)];
        }
    });
    std::uint32_t sum = 0;
    for (std::size_t bucket = 0; bucket < buckets; ++bucket) {
        side.starts[bucket] = sum;
        for (auto& count : counts) sum += std::exchange(count[bucket], sum);
    }
    side.starts[buckets] = sum;
    for_each(slices.parts, threads, [&](int, std::size_t part) {
        for (std::size_t k = slices.begin(part); k < slices.begin(part + 1); ++k) {
            const std::uint32_t bucket = key(codes.values.data() + k * codes.words, chunk);
            side.ids[counts[part][bucket]++] = static_cast<std::uint32_t>(k);
        }
    });
    // The key's own words come last: they say least about a candidate.
    fill_columns(codes, 0, (chunk.first + chunk.bits - 1) / 32 + 1, threads, side);
}

}  // namespace hpcscale
