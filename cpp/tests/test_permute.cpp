#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "hpcscale/permute.hpp"

namespace hpcscale {
namespace {

using Numbers = std::vector<std::int64_t>;
using Keys = std::vector<std::uint64_t>;

Numbers run(const Numbers& indices, std::int64_t samples, const Keys& keys, const Numbers& ends = {},
            bool back = false) {
    Numbers out(indices.size());
    permute(indices, {samples, keys, ends, back}, out);
    return out;
}

Numbers range(std::int64_t samples) {
    Numbers found(static_cast<std::size_t>(samples));
    std::iota(found.begin(), found.end(), 0);
    return found;
}

TEST(Permute, IsABijectionOfEveryRangeAndItsInverseLeadsBack) {
    for (std::int64_t samples = 1; samples < 200; ++samples) {
        const auto values = run(range(samples), samples, {5});
        EXPECT_EQ(run(values, samples, {5}, {}, true), range(samples));
        auto sorted = values;
        std::sort(sorted.begin(), sorted.end());
        EXPECT_EQ(sorted, range(samples));
    }
}

TEST(Permute, ReachesTheLastOfTheLargestRange) {
    const std::int64_t most = INT64_MAX;
    const Numbers last{most - 1, 0};
    EXPECT_EQ(run(run(last, most, {1}), most, {1}, {}, true), last);
}

TEST(Permute, OfEachIndexItsOwnRange) {
    Numbers indices, ends;
    for (const std::int64_t end : {1, 7, 20, 3}) {
        for (std::int64_t index = 0; index < end; ++index) {
            indices.push_back(index);
            ends.push_back(end);
        }
    }
    auto values = run(indices, 20, {9}, ends);
    EXPECT_EQ(run(values, 20, {9}, ends, true), indices);
    for (std::size_t i = 0; i < values.size(); ++i) EXPECT_LT(values[i], ends[i]);
}

TEST(Permute, RefusesWhatDoesNotFit) {
    EXPECT_THROW(run({3}, 3, {0}), std::invalid_argument);
    EXPECT_THROW(run({-1}, 3, {0}), std::invalid_argument);
    EXPECT_THROW(run({2}, 3, {0}, {2}), std::invalid_argument);
    EXPECT_THROW(run({2}, 3, {0}, {4}), std::invalid_argument);
    EXPECT_THROW(run({0, 1}, 3, {0}, {2}), std::invalid_argument);
    EXPECT_THROW(run({0, 1}, 3, {0, 1, 2}), std::invalid_argument);
    EXPECT_THROW(run({0}, 3, {}), std::invalid_argument);
    EXPECT_THROW(run({0}, 0, {0}), std::invalid_argument);
    EXPECT_TRUE(run({}, 3, {}).empty());
    EXPECT_TRUE(run({}, 0, {1}).empty());
}

}  // namespace
}  // namespace hpcscale
