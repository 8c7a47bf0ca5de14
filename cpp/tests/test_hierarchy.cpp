#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "hpcscale/hierarchy.hpp"
#include "lists.hpp"

namespace hpcscale {
namespace {

Ids at(const OwnedLists& lists, std::size_t i) {
    const auto list = lists.view()[i];
    return {list.begin(), list.end()};
}

template <typename Error, typename Call>
void expect_error(Call&& call, const std::string& part) {
    try {
        call();
        FAIL() << "nothing thrown, expected: " << part;
    } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
}

TEST(Ancestors, FollowAllParentsAndCountEachOnce) {
    //     0   1        A diamond below two roots; children may come before parents.
    //      \ / \.
    //   4   2   3
    //        \ /
    //         5      6 -> 5
    const auto above = ancestors(lists({{}, {}, {0, 1}, {1}, {}, {3, 2}, {5, 5}}).view());
    EXPECT_EQ(at(above, 0), Ids{});
    EXPECT_EQ(at(above, 2), (Ids{0, 1}));
    EXPECT_EQ(at(above, 4), Ids{});
    EXPECT_EQ(at(above, 5), (Ids{0, 1, 2, 3}));
    EXPECT_EQ(at(above, 6), (Ids{0, 1, 2, 3, 5}));
    EXPECT_EQ(above.offsets.size(), 8u);
}

TEST(Ancestors, OfNoClasses) {
    const auto above = ancestors(lists({}).view());
    EXPECT_EQ(above.offsets, std::vector<std::int64_t>{0});
    EXPECT_TRUE(above.ids.empty());
}

TEST(Ancestors, NeedNoStackForADeepChain) {
    constexpr std::int32_t depth = 3000;
    std::vector<Ids> parents(depth);
    for (std::int32_t c = 0; c + 1 < depth; ++c) parents[static_cast<std::size_t>(c)] = {c + 1};
    const auto above = ancestors(lists(parents).view());
    EXPECT_EQ(at(above, 0).size(), static_cast<std::size_t>(depth - 1));
    std::vector<Ids> deep(1'000'000);
    for (std::size_t c = 0; c + 1 < deep.size(); ++c) deep[c] = {static_cast<std::int32_t>(c + 1)};
    EXPECT_TRUE(find_cycle(lists(deep).view()).empty());
    deep.back() = {0};
    EXPECT_EQ(find_cycle(lists(deep).view()).size(), deep.size());
}

TEST(Cycle, IsGivenInOrderAndWithoutWhatLeadsToIt) {
    const auto parents = lists({{1}, {2}, {3, 4}, {1}, {}});
    EXPECT_EQ(find_cycle(parents.view()), (Ids{1, 2, 3}));
    EXPECT_EQ(find_cycle(lists({{}, {1}}).view()), (Ids{1}));
    EXPECT_EQ(find_cycle(lists({{}, {0}, {0, 1}}).view()), Ids{});
    expect_error<std::invalid_argument>([&] { ancestors(parents.view()); }, "1 -> 2 -> 3 -> 1");
}

TEST(Check, NamesTheListAndWhatWasFound) {
    expect_error<std::out_of_range>([] { ancestors(lists({{}, {}, {0, 3}}).view()); },
                                    "class 2: parent 3 is outside [0, 3)");
    expect_error<std::out_of_range>([] { find_cycle(lists({{}, {-1}}).view()); },
                                    "class 1: parent -1 is outside [0, 2)");
    OwnedLists wrong = lists({{}, {0}});
    wrong.offsets = {0, 1, 0};
    expect_error<std::invalid_argument>([&] { ancestors(wrong.view()); }, "class 1");
    wrong.offsets = {1, 1, 1};
    expect_error<std::invalid_argument>([&] { ancestors(wrong.view()); }, "start with 0");
    wrong.offsets = {0, 0, 2};
    expect_error<std::invalid_argument>([&] { ancestors(wrong.view()); }, "last offset is 2");
    wrong.offsets = {0, 5, 1};  // the middle one points outside, the last does not
    expect_error<std::invalid_argument>([&] { ancestors(wrong.view()); }, "class 1");
    wrong.offsets = {};
    expect_error<std::invalid_argument>([&] { ancestors(wrong.view()); }, "start with 0");
}

}  // namespace
}  // namespace hpcscale
