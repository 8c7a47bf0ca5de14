#include "hamming_chunks.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <stdexcept>
#include <string>

namespace hpcscale {
namespace {

constexpr std::size_t kKeyBits = 24;  // of a chunk at most: 2^24 buckets
constexpr double kMasks = 8192;       // neighbours of a bucket at most

double ball(std::size_t bits, int radius) {  // how many values of `bits` bits lie within `radius` of one
    double sum = 0, term = 1;
    for (int k = 0; k <= radius; ++k) {
        sum += term;
        term = term * static_cast<double>(bits - std::min<std::size_t>(bits, k)) / (k + 1);
    }
    return sum;
}

// --- the planner: costs in units of one distance of a scan

// Shares of sampled pairs that lie within the radius of each chunk.
struct Sample {
    std::vector<std::array<std::uint64_t, 4>> different;
    Sample(const Codes& a, const Codes& b, bool self) {
        constexpr std::size_t kSample = 256;
        std::uint64_t state = 88172645463325252u;
        const auto draw = [&state](std::size_t n) {
            state ^= state << 13, state ^= state >> 7, state ^= state << 17;
            return static_cast<std::size_t>(state % n);
        };
        std::vector<std::size_t> x(kSample), y(kSample);
        for (auto& k : x) k = draw(a.count());
        for (auto& k : y) k = draw(b.count());
        for (const std::size_t i : x) {
            for (std::size_t n = 0; n < kSample / 2; ++n) {
                const std::size_t j = y[n];
                if (self && i == j) continue;
                auto& each = different.emplace_back();
                for (std::size_t w = 0; w < a.words; ++w) {
                    each[w] = a.values[i * a.words + w] ^ b.values[j * b.words + w];
                }
            }
        }
    }
    double share(const Chunk& chunk) const {
        std::size_t within = 0;
        for (const auto& each : different) within += std::popcount(key(each.data(), chunk)) <= chunk.radius;
        return static_cast<double>(within) / static_cast<double>(std::max<std::size_t>(different.size(), 1));
    }
};

constexpr double kSort = 250;    // to sort and gather one code
constexpr double kProbe = 60;    // to look at one neighbour of a bucket
constexpr double kMiss = 300;    // the same, if few queries meet more buckets than a core's cache holds
constexpr double kCached = 18;   // bits of a chunk whose buckets the cache does hold
constexpr double kEmpty = 8;     // lanes that stay empty per query and bucket
constexpr double kSearch = 1e9;  // a scan below this is not worth a plan

}  // namespace

std::vector<Chunk> chunks(std::size_t bits, int radius, int m) {
    if (m < 1 || m > radius + 1 || static_cast<std::size_t>(m) > bits) {
        throw std::invalid_argument("search: " + std::to_string(m) + " chunks of " + std::to_string(bits) +
                                    " bits do not go with radius " + std::to_string(radius));
    }
    // Over all chunks, the sum of (radius + 1) is the whole radius + 1. What does not divide evenly goes to
    // the first `wide` chunks, one more each. They also get more bits, so that in every chunk about the same
    // share of all values are neighbours.
    const int low = (radius + 1) / m - 1;
    const auto wide = static_cast<std::size_t>((radius + 1) % m), n = static_cast<std::size_t>(m);
    const std::size_t mean = bits / n;
    const double ratio = std::log2(ball(mean, low + 1) / ball(mean, low));
    std::size_t more = wide == 0 ? 0 : static_cast<std::size_t>(std::lround(ratio));
    while (more > 0 && wide * more + n > bits) --more;
    const std::size_t rest = bits - wide * more;
    std::vector<Chunk> result;
    std::size_t first = 0;
    for (std::size_t c = 0; c < n; ++c) {
        const std::size_t width = rest * (c + 1) / n - rest * c / n + (c < wide ? more : 0);
        result.push_back({first, std::min(width, kKeyBits), low + (c < wide ? 1 : 0)});
        first += width;
    }
    return result;
}

// Fewer bits lose no pair: codes within r bits in a chunk are within r bits in any part of it.
std::vector<Chunk> fitting_chunks(const Codes& a, const Codes& b, int radius, int m) {
    const auto most = static_cast<std::size_t>(std::bit_width(std::max(a.count(), b.count()))) + 1;
    std::vector<Chunk> all = chunks(64 * a.words, radius, m);
    for (Chunk& chunk : all) chunk.bits = std::min(chunk.bits, most);
    return all;
}

std::vector<std::uint32_t> masks(const Chunk& chunk) {
    std::vector<std::uint32_t> all = {0};
    std::size_t from = 0;  // the first mask with one bit less
    for (int r = 0; r < chunk.radius; ++r) {
        const std::size_t to = all.size();
        for (std::size_t k = from; k < to; ++k) {
            for (auto bit = static_cast<std::size_t>(std::bit_width(all[k])); bit < chunk.bits; ++bit) {
                all.push_back(all[k] | (1u << bit));
            }
        }
        from = to;
    }
    return all;
}

int plan(const Codes& a, const Codes& b, bool self, int radius) {
    const auto na = static_cast<double>(a.count()), nb = static_cast<double>(b.count());
    double least = self ? na * nb / 2 : na * nb;
    if (least < kSearch) return 0;
    const Sample sample(a, b, self);
    const double half = self ? 0.5 : 1.0;
    int best = 0;
    for (int m = 1; m <= std::min<int>(radius + 1, static_cast<int>(a.words * 8)); ++m) {
        const std::vector<Chunk> parts = fitting_chunks(a, b, radius, m);
        double cost = 0;
        for (const Chunk& chunk : parts) {
            const double around = ball(chunk.bits, chunk.radius);
            if (around > kMasks) cost = INFINITY;
            const double buckets = std::exp2(static_cast<double>(chunk.bits));
            const double occupied = buckets * -std::expm1(-na / buckets);
            const bool cold = !self && static_cast<double>(chunk.bits) > kCached && na < buckets / 16;
            cost += (self ? na : na + nb) * kSort + buckets * 4;
            cost += half * around * occupied * (cold ? kMiss : kProbe);
            cost += half * na * around * -std::expm1(-nb / buckets) * kEmpty;
            if (cost >= least) break;
        }
        for (const Chunk& chunk : parts) {
            if (cost >= least) break;
            cost += half * na * nb * sample.share(chunk);
        }
        if (cost < least) {
            least = cost;
            best = m;
        }
    }
    return best;
}

int plan(const Codes& a, const Codes& b, int radius) { return plan(a, b, false, radius); }
int plan(const Codes& a, int radius) { return plan(a, a, true, radius); }

}  // namespace hpcscale
