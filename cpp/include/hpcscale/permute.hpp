// Which sample when: a keyed bijection of [0, samples), evaluated where it is needed.
//
// In: indices and keys. Out: what the bijection makes of them, or what it is made of. A Feistel network over
// as many bits as hold all samples is walked along its cycles until it falls inside the range (Black and
// Rogaway 2002, "Ciphers with arbitrary finite domains"). Its round function is the finaliser of SplitMix64
// (Steele, Lea, Flood 2014). Whoever changes it changes every recipe's result.
#pragma once

#include <cstdint>
#include <span>

namespace hpcscale {

struct Bijection {
    std::int64_t samples;
    std::span<const std::uint64_t> keys;  // one for all indices, or one for each
    // None, or for each index the end of a range of its own, at most `samples`: [0, end) is then mapped to
    // itself.
    std::span<const std::int64_t> ends;
    bool back;  // the inverse
};

// out[i] is what becomes of indices[i]. Throws std::invalid_argument where lengths do not fit, and where an
// index is outside its range. Time O(indices), whatever the number of samples.
void permute(std::span<const std::int64_t> indices, const Bijection& bijection, std::span<std::int64_t> out);

}  // namespace hpcscale
