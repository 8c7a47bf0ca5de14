// The innermost loop of the search: distances between some queries and some candidates. Inside the library
// only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace hpcscale {

// Codes by columns: 32-bit word w of code k at words[w * stride + k].
struct Columns {
    const std::uint32_t* words;
    std::size_t stride;
};

struct Hit {
    std::uint32_t query, candidate, distance;  // counted from the start of the ranges
};

// Append all pairs within `radius` of queries [0, queries) and candidates [0, candidates).
using Kernel = void (*)(const Columns& a, std::size_t queries, const Columns& b, std::size_t candidates,
                        int radius, std::vector<Hit>& hits);

struct Kernels {
    std::string_view name;
    Kernel bits64;        // 2 columns
    Kernel bits256;       // 8 columns
    Kernel bits256_mid;   // the same, faster where the first 5 columns nearly always decide
    Kernel bits256_near;  // the same, faster where the first 3 do
};

// The largest radius for which bits256_mid and bits256_near are the fastest, measured on uniform codes.
inline constexpr int kMid = 61, kNear = 33;

std::vector<Kernels> kernels();  // those that this processor can run, slowest first

}  // namespace hpcscale
