// Exact search for similar codes: all pairs that differ in at most `radius` bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

namespace hpcscale {

// Codes end to end, `words` 64-bit words each: 1 (pHash, dHash) or 4 (PDQ). At most 2^32 - 1 codes.
struct Codes {
    std::span<const std::uint64_t> values;
    std::size_t words;
    std::size_t count() const { return values.size() / words; }
};

struct Pair {
    std::int64_t i, j, distance;
};

// Receives pairs as they are found, in no order. Called from any thread, but never by two at once. May throw:
// the search then stops and throws the same.
using Found = std::function<void(std::span<const Pair>)>;
// Receives the share of the work that is done, 0 to 1, at most a few times a second, in the thread that
// called the search. May throw, with the same effect.
using Progress = std::function<void(double)>;

// How to search. The pairs do not depend on it.
//
// Scan (`chunks` = 0): compute every distance. Where the radius is small against 256, the first 96 bits
// decide nearly all of them.
//
// Multi-index hashing (`chunks` > 0): cut the bits into m chunks. Give every chunk c a radius r_c, so that
// the sum of all (r_c + 1) is radius + 1: two codes within the radius are then within r_c bits in at least
// one chunk c. So for every chunk, sort the codes by its bits into buckets, and compare only codes of buckets
// that lie within r_c bits of each other. A pair that several chunks find counts for the first of them.
// Chunks with the larger radius get more bits.
//
// The planner (`chunks` < 0) samples real pairs, estimates from them how many candidates several m would
// have, and takes the scan where that is cheaper. Its choice is never much slower than the scan: a large
// bucket of equal codes is cut into blocks that threads share, and costs no more per distance than the scan.
struct How {
    int threads = 1;
    int chunks = -1;                           // m; 0: scan; -1: the planner decides
    std::string_view variant = {};             // one of hamming_variants(); empty: the fastest
    std::size_t block = std::size_t{1} << 20;  // codes of `b` that a scan turns into columns at a time
};

// All (i, j, distance) where a[i] and b[j] differ in at most `radius` bits, each pair once. Memory besides
// the codes: a scan takes 32 bytes per code of `a` and 40 MB, hashing 36 bytes per code of both; pairs take
// at most 40 MB a thread. Throws std::invalid_argument if the two sides differ in words, if words are not 1
// or 4, or if this processor or these codes do not allow `how`.
void search(const Codes& a, const Codes& b, int radius, const How& how, const Found& found,
            const Progress& progress = {});

// All (i, j, distance) with i < j within one set, each once.
void self_join(const Codes& a, int radius, const How& how, const Found& found, const Progress& progress = {});

// What the planner chooses: m, or 0 for a scan.
int plan(const Codes& a, const Codes& b, int radius);
int plan(const Codes& a, int radius);

// The m chunks of codes of `bits` bits, for tests. Throws std::invalid_argument unless
// 1 <= m <= radius + 1 and m <= bits.
struct Chunk {
    std::size_t first, bits;
    int radius;
};
std::vector<Chunk> chunks(std::size_t bits, int radius, int m);

std::vector<std::string_view> hamming_variants();  // those that this processor can run, slowest first

}  // namespace hpcscale
