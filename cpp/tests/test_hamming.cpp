#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <numeric>
#include <random>
#include <stdexcept>
#include <tuple>

#include "hpcscale/hamming.hpp"

namespace hpcscale {
namespace {

using Triples = std::vector<std::tuple<std::int64_t, std::int64_t, std::int64_t>>;
using Words = std::vector<std::uint64_t>;

// Codes around a few centres, each at most `most` bits away, so that pairs lie on both sides of any radius.
Words near(std::size_t count, std::size_t words, std::size_t most, std::uint64_t seed) {
    std::mt19937_64 random(seed), centres(7);
    Words centre(3 * words), codes(count * words);
    for (auto& word : centre) word = centres();
    for (std::size_t k = 0; k < count; ++k) {
        std::copy_n(&centre[random() % 3 * words], words, &codes[k * words]);
        for (std::size_t flips = random() % (most + 1); flips > 0; --flips) {
            const std::uint64_t bit = random() % (64 * words);
            codes[k * words + bit / 64] ^= std::uint64_t{1} << (bit % 64);
        }
    }
    return codes;
}

Triples slow(const Words& a, const Words& b, std::size_t words, bool self, int radius) {
    Triples all;
    for (std::size_t i = 0; i < a.size() / words; ++i) {
        for (std::size_t j = self ? i + 1 : 0; j < b.size() / words; ++j) {
            int distance = 0;
            for (std::size_t w = 0; w < words; ++w)
                distance += std::popcount(a[i * words + w] ^ b[j * words + w]);
            if (distance <= radius) all.emplace_back(i, j, distance);
        }
    }
    return all;
}

Triples fast(const Words& a, const Words& b, std::size_t words, bool self, int radius, const How& how) {
    Triples all;
    const Found found = [&](std::span<const Pair> pairs) {
        for (const Pair& pair : pairs) all.emplace_back(pair.i, pair.j, pair.distance);
    };
    if (self) {
        self_join({a, words}, radius, how, found);
    } else {
        search({a, words}, {b, words}, radius, how, found);
    }
    std::sort(all.begin(), all.end());
    return all;
}

struct Case {
    std::size_t words, na, nb;
    int radius;
    std::vector<int> chunks;
};

TEST(Hamming, EveryVariantPlanAndThreadCountFindsTheSamePairs) {
    const std::vector<Case> cases = {
        {4, 0, 5, 31, {0, 16}},
        {4, 1, 0, 31, {0}},
        {4, 1, 1, 31, {0, 16}},
        {4, 63, 64, 31, {0, 32}},
        {4, 64, 65, 36, {0, 20}},
        {4, 65, 63, 37, {0, 17}},
        {4, 600, 90, 31, {0, 16, 23, 32}},
        {4, 40, 30, 0, {0, 1}},
        {4, 50, 60, 256, {0}},
        {4, 66, 65, 61, {0}},
        {4, 65, 66, 62, {0, 32}},
        {1, 0, 0, 4, {0}},
        {1, 63, 65, 10, {0, 5, 11}},
        {1, 64, 64, 0, {0, 1}},
        {1, 700, 520, 7, {0, 4, 8}},
        {1, 33, 90, 64, {0}},
        {1, 65, 1, 31, {0, 8}},
    };
    for (const Case& c : cases) {
        const Words a = near(c.na, c.words, 40, 1), b = near(c.nb, c.words, 40, 2);
        const Triples two = slow(a, b, c.words, false, c.radius), one = slow(a, a, c.words, true, c.radius);
        for (const auto variant : hamming_variants()) {
            for (const int chunks : c.chunks) {
                for (const int threads : {1, 2, 3}) {
                    const How how{threads, chunks, variant};
                    ASSERT_EQ(fast(a, b, c.words, false, c.radius, how), two)
                        << variant << " chunks " << chunks << " threads " << threads << " radius "
                        << c.radius;
                    ASSERT_EQ(fast(a, {}, c.words, true, c.radius, how), one)
                        << variant << " chunks " << chunks << " threads " << threads << " radius "
                        << c.radius;
                }
            }
        }
    }
}

// The worst case for chunks: distances of exactly the radius and of one more, spread over the chunks as
// evenly as possible.
TEST(Hamming, RadiusIsInclusiveWhereverTheBitsLie) {
    const int radius = 31;
    Words codes(4, 0x5555aaaa12345678u);
    std::mt19937_64 random(3);
    for (int k = 0; k < 400; ++k) {
        std::array<int, 256> order;
        std::iota(order.begin(), order.end(), 0);
        std::shuffle(order.begin(), order.end(), random);
        Words code(codes.begin(), codes.begin() + 4);
        for (int flip = 0; flip < radius + k % 2; ++flip) {
            const int bit = k < 200 ? (flip * 8 + k % 8) % 256 : order[static_cast<std::size_t>(flip)];
            code[static_cast<std::size_t>(bit / 64)] ^= std::uint64_t{1} << (bit % 64);
        }
        codes.insert(codes.end(), code.begin(), code.end());
    }
    const Triples expected = slow(codes, codes, 4, true, radius);
    EXPECT_GE(expected.size(), 200u);
    for (const int chunks : {0, 13, 16, 20, 31, 32}) {
        EXPECT_EQ(fast(codes, {}, 4, true, radius, {.threads = 2, .chunks = chunks}), expected) << chunks;
    }
}

// A scan takes the second set in blocks of 2^20.
TEST(Hamming, ScanOfSeveralBlocks) {
    const std::size_t block = std::size_t{1} << 20;
    Words many(block + 77);
    std::mt19937_64 random(6);
    for (auto& word : many) word = random();
    const Words few = {many[5], many[block - 1], ~many[block], many[block + 76] ^ 3};
    const Triples expected = {{0, 5, 0}, {1, block - 1, 0}, {3, block + 76, 2}};
    EXPECT_EQ(fast(few, many, 1, false, 2, {.threads = 2, .chunks = 0}), expected);
}

// The same for a set with itself, with blocks smaller than a task's queries, as large, and larger: tasks
// begin within a block, before it and behind it.
TEST(Hamming, SelfJoinOfSeveralBlocks) {
    const Words codes = near(1700, 1, 40, 9);
    const Triples expected = slow(codes, codes, 1, true, 5);
    EXPECT_TRUE(std::any_of(expected.begin(), expected.end(), [](const auto& pair) {
        return std::get<0>(pair) >= 1536;  // both behind the last full block of 512
    }));
    for (const std::size_t block : {1, 300, 512, 1000, 1699, 1700, 4096}) {
        for (const int threads : {1, 3}) {
            const How how{.threads = threads, .chunks = 0, .block = block};
            ASSERT_EQ(fast(codes, {}, 1, true, 5, how), expected) << "block " << block;
            ASSERT_EQ(fast(codes, codes, 1, false, 5, how), slow(codes, codes, 1, false, 5)) << block;
        }
    }
}

TEST(Hamming, EqualCodesAllPair) {
    const Words codes(4 * 1100, 0x0123456789abcdefu);
    for (const int chunks : {0, 16}) {
        const Triples found =
            fast(codes, {}, 4, true, 0 + (chunks == 0 ? 0 : 31), {.threads = 3, .chunks = chunks});
        EXPECT_EQ(found.size(), 1100u * 1099u / 2);
        EXPECT_EQ(std::adjacent_find(found.begin(), found.end()), found.end());
    }
}

TEST(Hamming, ChunksCoverTheRadiusAndDoNotOverlap) {
    for (const std::size_t bits : {std::size_t{64}, std::size_t{256}}) {
        for (int radius = 0; radius < 60; ++radius) {
            for (int m = 1; m <= radius + 1; ++m) {
                int covered = 0;
                std::size_t end = 0;
                for (const Chunk& chunk : chunks(bits, radius, m)) {
                    EXPECT_GE(chunk.first, end);
                    EXPECT_GE(chunk.radius, 0);
                    EXPECT_GE(chunk.bits, 1u);
                    end = chunk.first + chunk.bits;
                    covered += chunk.radius + 1;
                }
                EXPECT_LE(end, bits);
                EXPECT_EQ(covered, radius + 1);
            }
        }
    }
    EXPECT_THROW(chunks(256, 3, 5), std::invalid_argument);
    EXPECT_THROW(chunks(256, 3, 0), std::invalid_argument);
}

TEST(Hamming, ThePlannerScansWhereHashingDoesNotPay) {
    std::mt19937_64 random(5);
    Words codes(4 * 200000);
    for (auto& word : codes) word = random();
    const Codes set{codes, 4};
    EXPECT_GT(plan(set, 31), 0);
    EXPECT_EQ(plan(set, 100), 0);  // every bucket neighbours every other
    EXPECT_EQ(plan({std::span(codes).first(4 * 1000), 4}, 31), 0);
    std::fill(codes.begin(), codes.end(), 1);
    EXPECT_EQ(plan(set, 31), 0);  // one bucket
}

TEST(Hamming, ExceptionsStopTheSearch) {
    const Words codes(4 * 3000, 1);
    struct Stop {};
    for (const int threads : {1, 3}) {
        const How how{threads, 0, {}};
        EXPECT_THROW(self_join({codes, 4}, 3, how, [](std::span<const Pair>) { throw Stop{}; }), Stop);
        EXPECT_THROW(
            self_join({codes, 4}, 3, how, [](std::span<const Pair>) {}, [](double) { throw Stop{}; }), Stop);
    }
    double last = 0;
    self_join(
        {codes, 4}, 3, {}, [](std::span<const Pair>) {}, [&](double share) { last = std::max(last, share); });
    EXPECT_DOUBLE_EQ(last, 1.0);
}

TEST(Hamming, RefusesWhatItCannotSearch) {
    const Words codes(8, 1);
    const Found nothing = [](std::span<const Pair>) {};
    EXPECT_THROW(search({codes, 4}, {codes, 1}, 3, {}, nothing), std::invalid_argument);
    EXPECT_THROW(search({codes, 2}, {codes, 2}, 3, {}, nothing), std::invalid_argument);
    EXPECT_THROW(self_join({codes, 4}, -1, {}, nothing), std::invalid_argument);
    EXPECT_THROW(self_join({codes, 4}, 3, {.threads = 0}, nothing), std::invalid_argument);
    EXPECT_THROW(self_join({codes, 4}, 3, {.block = 0}, nothing), std::invalid_argument);
    EXPECT_THROW(self_join({codes, 4}, 3, {.chunks = 5}, nothing), std::invalid_argument);
    EXPECT_THROW(self_join({codes, 4}, 3, {.variant = "quantum"}, nothing), std::invalid_argument);
}

}  // namespace
}  // namespace hpcscale
