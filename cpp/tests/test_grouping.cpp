#include <gtest/gtest.h>

#include <stdexcept>

#include "hpcscale/grouping.hpp"
#include "lists.hpp"

namespace hpcscale {
namespace {

template <typename Id>
class Scatter : public testing::Test {};
using Words = testing::Types<std::uint32_t, std::uint64_t>;
TYPED_TEST_SUITE(Scatter, Words);

TYPED_TEST(Scatter, KeepsTheOrderOfRowsAndGoesOnWithTheNextPart) {
    // Class 0: rows 7, 9, 11; class 1: none; class 2: rows 7, 11.
    std::vector<std::int64_t> next{0, 3, 3};
    std::vector<TypeParam> out(5);
    const std::vector<TypeParam> first{7, 8, 9}, second{10, 11};
    scatter<TypeParam>(lists({{0, 2}, {}, {0}}).view(), first, next, out);
    EXPECT_EQ(next, (std::vector<std::int64_t>{2, 3, 4}));
    scatter<TypeParam>(lists({{}, {2, 0}}).view(), second, next, out);
    EXPECT_EQ(out, (std::vector<TypeParam>{7, 9, 11, 7, 11}));
    EXPECT_EQ(next, (std::vector<std::int64_t>{3, 3, 5}));
    scatter<TypeParam>(lists({}).view(), {}, next, out);
}

TYPED_TEST(Scatter, StaysInsideItsMemory) {
    std::vector<std::int64_t> next{1, -1};
    std::vector<TypeParam> out(1);
    const std::vector<TypeParam> one{7};
    EXPECT_THROW(scatter<TypeParam>(lists({{0}}).view(), one, next, out), std::out_of_range);
    EXPECT_THROW(scatter<TypeParam>(lists({{1}}).view(), one, next, out), std::out_of_range);
    EXPECT_THROW(scatter<TypeParam>(lists({{2}}).view(), one, next, out), std::out_of_range);
    EXPECT_THROW(scatter<TypeParam>(lists({{0}, {0}}).view(), one, next, out), std::invalid_argument);
    EXPECT_EQ(next, (std::vector<std::int64_t>{1, -1}));
    EXPECT_EQ(out, (std::vector<TypeParam>{0}));
}

}  // namespace
}  // namespace hpcscale
