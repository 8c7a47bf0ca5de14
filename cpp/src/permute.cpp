#include "hpcscale/permute.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <stdexcept>
#include <string>

namespace hpcscale {
namespace {

// Four rounds of random functions suffice for large domains (Luby and Rackoff 1988). Data sets of a few
// samples have halves of one or two bits and need more.
constexpr std::size_t rounds = 10;
constexpr std::uint64_t golden = 0x9E3779B97F4A7C15;

// A bijection of words; every output bit depends on every input bit.
std::uint64_t mix(std::uint64_t word) {
    word ^= word >> 30;
    word *= 0xBF58476D1CE4E5B9;
    word ^= word >> 27;
    word *= 0x94D049BB133111EB;
    return word ^ word >> 31;
}

// A bijection of [0, 2^bits): each round adds (xor) a hash of one half to the other half, in turn. Done in
// the opposite order, the same rounds lead back.
class Feistel {
  public:
    explicit Feistel(std::uint64_t samples)
        : bits_(std::max(2, static_cast<int>(std::bit_width(samples - 1)))),
          low_mask_((std::uint64_t{1} << bits_ / 2) - 1),
          high_mask_((std::uint64_t{1} << (bits_ - bits_ / 2)) - 1) {}

    void use(std::uint64_t key) {
        for (auto& each : keys_) each = mix(key += golden);
    }

    std::uint64_t forth(std::uint64_t value) const {
        std::uint64_t low = value & low_mask_, high = value >> bits_ / 2;
        for (std::size_t turn = 0; turn < rounds; turn += 2) {
            high ^= mix(low + keys_[turn]) & high_mask_;
            low ^= mix(high + keys_[turn + 1]) & low_mask_;
        }
        return high << bits_ / 2 | low;
    }

    std::uint64_t back(std::uint64_t value) const {
        std::uint64_t low = value & low_mask_, high = value >> bits_ / 2;
        for (std::size_t turn = rounds; turn > 0; turn -= 2) {
            low ^= mix(high + keys_[turn - 1]) & low_mask_;
            high ^= mix(low + keys_[turn - 2]) & high_mask_;
        }
        return high << bits_ / 2 | low;
    }

  private:
    int bits_;
    std::uint64_t low_mask_, high_mask_;
    std::array<std::uint64_t, rounds> keys_{};
};

void check(std::size_t found, std::size_t wanted, const char* name) {
    if (found == wanted) return;
    throw std::invalid_argument(std::string(name) + ": needs " + std::to_string(wanted) +
                                " for as many indices, found " + std::to_string(found));
}

}  // namespace

void permute(std::span<const std::int64_t> indices, const Bijection& bijection, std::span<std::int64_t> out) {
    const auto& [samples, keys, ends, back] = bijection;
    if (keys.size() != 1) check(keys.size(), indices.size(), "keys");
    if (!ends.empty()) check(ends.size(), indices.size(), "ends");
    check(out.size(), indices.size(), "out");
    Feistel network(static_cast<std::uint64_t>(samples));
    if (keys.size() == 1) network.use(keys[0]);
    for (std::size_t i = 0; i < indices.size(); ++i) {
        const std::int64_t end = ends.empty() ? samples : ends[i];
        if (end > samples) {
            throw std::invalid_argument("ends: " + std::to_string(end) + " is above " +
                                        std::to_string(samples));
        }
        if (indices[i] < 0 || indices[i] >= end) {
            throw std::invalid_argument("index " + std::to_string(indices[i]) + " outside 0.." +
                                        std::to_string(end - 1));
        }
        if (keys.size() != 1) network.use(keys[i]);
        auto value = static_cast<std::uint64_t>(indices[i]);
        // A cycle that starts inside the range comes back into it. At least half of the domain lies inside if
        // there are no ends.
        do {
            value = back ? network.back(value) : network.forth(value);
        } while (value >= static_cast<std::uint64_t>(end));
        out[i] = static_cast<std::int64_t>(value);
    }
}

}  // namespace hpcscale
