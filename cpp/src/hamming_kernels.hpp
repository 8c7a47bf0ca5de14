// The innermost loop of the search: distances of a few queries to a few candidates. Inside the library only.
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
    Kernel bits256_mid;   // the same where 5 columns decide nearly always
    Kernel bits256_near;  // the same where 3 columns do
};

// The radius up to which a kernel is the faster one, on uniform codes.
inline constexpr int kMid = 61, kNear = 33;

std::vector<Kernels> kernels();  // those that this processor can run, slowest first

}  // namespace hpcscale
