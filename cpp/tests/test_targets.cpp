#include <gtest/gtest.h>

#include <random>
#include <set>
#include <stdexcept>
#include <string>

#include "hpcscale/targets.hpp"
#include "lists.hpp"

namespace hpcscale {
namespace {

// Classes: 0 animal, 1 dog, 2 cat, 3 wet. Dog and cat are animals.
// Tags: 0 -> dog, 1 -> cat, 2 -> nothing, 3 -> wet, 4 -> dog too, 5 -> animal.
const OwnedLists kAncestors = lists({{}, {0}, {0}, {}});
const Ids kTags = {1, 2, -1, 3, 1, 0};

std::vector<float> fill(Kind kind, std::size_t lo, std::size_t hi, const std::vector<Ids>& records) {
    const Closure closure(kTags, kAncestors.view());
    std::vector<float> buffer(records.size() * (hi - lo));
    TargetRows(closure, lo, hi, kind, buffer.data(), records.size()).fill(lists(records).view());
    return buffer;
}

TEST(TargetRows, OnesAreTheClosure) {
    // clang-format off
    EXPECT_EQ(fill(Kind::ones, 0, 4, {{0}, {}, {2}, {1, 3}, {0, 4, 0}, {0, 1, 2, 3}}),
              (std::vector<float>{1, 1, 0, 0,    // a dog is an animal
                                  0, 0, 0, 0,    // no tag
                                  0, 0, 0, 0,    // a tag without class
                                  1, 0, 1, 1,    // two tags
                                  1, 1, 0, 0,    // the same class by two tags, and one tag twice
                                  1, 1, 1, 1}));
    // clang-format on
}

TEST(TargetRows, SharesCountAllClassesOnceAndThoseOutsideTheRangeToo) {
    const float third = 1.0f / 3.0f;
    // clang-format off
    EXPECT_EQ(fill(Kind::shares, 0, 4, {{0}, {0, 4}, {0, 1}, {2}, {5}}),
              (std::vector<float>{.5f, .5f, 0, 0,
                                  .5f, .5f, 0, 0,
                                  third, third, third, 0,
                                  0, 0, 0, 0,
                                  1, 0, 0, 0}));
    // clang-format on
    EXPECT_EQ(fill(Kind::shares, 2, 4, {{0, 1}, {0}, {0, 1, 3}}),
              (std::vector<float>{third, 0, 0, 0, .25f, .25f}));
    EXPECT_TRUE(fill(Kind::shares, 2, 2, {{0, 1}}).empty());
}

// Every kind and many ranges, with a buffer used again and again, against sets.
TEST(TargetRows, EqualTheDefinitionBatchAfterBatch) {
    std::mt19937 random(1);
    const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random()) % n; };
    for (const std::size_t classes : {1, 7, 8, 9, 63, 64, 65, 200}) {
        std::vector<Ids> parents(classes);
        for (std::size_t c = 1; c < classes; ++c) {
            for (std::size_t k = below(3); k > 0; --k)
                parents[c].push_back(static_cast<std::int32_t>(below(c)));
        }
        const OwnedLists above = ancestors(lists(parents).view());
        Ids tags(2 * classes);
        for (auto& tag : tags) tag = static_cast<std::int32_t>(below(classes + 1)) - 1;
        const Closure closure(tags, above.view());
        for (int round = 0; round < 10; ++round) {
            std::size_t lo = below(classes + 1);
            std::size_t hi = below(classes + 1);
            if (lo > hi) std::swap(lo, hi);
            constexpr std::size_t capacity = 9;
            std::vector<float> ones(capacity * (hi - lo)), shares(ones);
            TargetRows one(closure, lo, hi, Kind::ones, ones.data(), capacity);
            TargetRows share(closure, lo, hi, Kind::shares, shares.data(), capacity);
            for (int batch = 0; batch < 5; ++batch) {
                std::vector<Ids> records(below(capacity + 1));
                for (auto& record : records) {
                    for (std::size_t k = below(5); k > 0; --k)
                        record.push_back(static_cast<std::int32_t>(below(tags.size())));
                }
                const OwnedLists given = lists(records);
                for (TargetRows* rows : {&one, &share}) rows->fill(given.view());
                const OwnedLists held = labels(closure, given.view());
                for (std::size_t i = 0; i < capacity; ++i) {
                    std::set<std::int32_t> expected;
                    for (const auto t : i < records.size() ? records[i] : Ids{}) {
                        const std::int32_t c = tags[static_cast<std::size_t>(t)];
                        if (c < 0) continue;
                        expected.insert(c);
                        const auto up = above.view()[static_cast<std::size_t>(c)];
                        expected.insert(up.begin(), up.end());
                    }
                    if (i < records.size()) {
                        const auto list = held.view()[i];
                        EXPECT_EQ(Ids(list.begin(), list.end()), Ids(expected.begin(), expected.end()));
                    }
                    const float k = 1.0f / static_cast<float>(expected.size());
                    for (std::size_t c = lo; c < hi; ++c) {
                        const bool holds = expected.contains(static_cast<std::int32_t>(c));
                        EXPECT_EQ(ones[i * (hi - lo) + c - lo], holds ? 1.0f : 0.0f);
                        EXPECT_EQ(shares[i * (hi - lo) + c - lo], holds ? k : 0.0f);
                    }
                }
            }
        }
    }
}

TEST(TargetRows, ChangeNothingOnAnError) {
    const Closure closure(kTags, kAncestors.view());
    std::vector<float> buffer(8);
    TargetRows rows(closure, 0, 4, Kind::ones, buffer.data(), 2);
    rows.fill(lists({{0}, {3}}).view());
    const std::vector<float> before = buffer;
    try {
        rows.fill(lists({{1}, {0, 6}}).view());
        FAIL();
    } catch (const std::out_of_range& error) {
        EXPECT_STREQ(error.what(), "record 1: tag id 6 is outside [0, 6)");
    }
    EXPECT_THROW(rows.fill(lists({{}, {}, {}}).view()), std::invalid_argument);
    EXPECT_THROW(rows.fill(lists({{-1}}).view()), std::out_of_range);
    EXPECT_EQ(buffer, before);
    rows.fill(lists({{1}}).view());
    EXPECT_EQ(buffer, (std::vector<float>{1, 0, 1, 0, 0, 0, 0, 0}));
}

TEST(TargetRows, RejectABadRangeOrTag) {
    const Closure closure(kTags, kAncestors.view());
    EXPECT_THROW(TargetRows(closure, 0, 5, Kind::ones, nullptr, 0), std::out_of_range);
    EXPECT_THROW(TargetRows(closure, 3, 2, Kind::shares, nullptr, 0), std::out_of_range);
    EXPECT_NO_THROW(TargetRows(closure, 4, 4, Kind::ones, nullptr, 0));
    EXPECT_THROW(TargetRows(closure, 0, 4, Kind::ones, nullptr, (std::size_t{1} << 30) + 1),
                 std::invalid_argument);
    for (const std::int32_t wrong : {-2, 4}) {
        const Ids tags = {0, wrong};
        EXPECT_THROW(Closure(tags, kAncestors.view()), std::out_of_range) << wrong;
    }
    EXPECT_THROW(Closure(kTags, lists({{}, {4}, {}, {}}).view()), std::out_of_range);
}

}  // namespace
}  // namespace hpcscale
