#include "hpcscale/hierarchy.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace hpcscale {

void check(Lists lists, std::size_t limit, std::string_view list, std::string_view id) {
    const auto& offsets = lists.offsets;
    if (offsets.empty() || offsets.front() != 0) {
        throw std::invalid_argument("offsets of a list of " + std::string(list) +
                                    "s must start with 0, found " +
                                    (offsets.empty() ? "none" : std::to_string(offsets.front())));
    }
    // All offsets before any id: an id may only be read once the offsets are known to stay inside.
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
        if (offsets[i + 1] < offsets[i]) {
            throw std::invalid_argument(std::string(list) + " " + std::to_string(i) + ": its offset " +
                                        std::to_string(offsets[i]) + " is followed by the smaller " +
                                        std::to_string(offsets[i + 1]));
        }
    }
    if (static_cast<std::size_t>(offsets.back()) != lists.ids.size()) {
        throw std::invalid_argument("the last offset is " + std::to_string(offsets.back()) +
                                    ", but there are " + std::to_string(lists.ids.size()) + " ids");
    }
    const auto outside = [limit](std::int32_t found) {
        return found < 0 || static_cast<std::size_t>(found) >= limit;
    };
    const auto bad = std::ranges::find_if(lists.ids, outside);
    if (bad != lists.ids.end()) {
        const auto after = std::ranges::upper_bound(offsets, bad - lists.ids.begin());
        throw std::out_of_range(std::string(list) + " " + std::to_string(after - offsets.begin() - 1) + ": " +
                                std::string(id) + " " + std::to_string(*bad) + " is outside [0, " +
                                std::to_string(limit) + ")");
    }
}

namespace {

// Depth-first, without recursion: a hierarchy may be deeper than the stack. Fills `order` (parents before
// children) until a cycle is met, which is returned.
std::vector<std::int32_t> walk(Lists parents, std::vector<std::int32_t>& order) {
    enum State : std::uint8_t { fresh, open, done };
    std::vector<std::uint8_t> state(parents.size(), fresh);
    std::vector<std::int64_t> next(parents.offsets.begin(), parents.offsets.end());  // next parent to look at
    std::vector<std::int32_t> path;
    for (std::size_t start = 0; start < parents.size(); ++start) {
        if (state[start] != fresh) continue;
        path.push_back(static_cast<std::int32_t>(start));
        state[start] = open;
        while (!path.empty()) {
            const auto top = static_cast<std::size_t>(path.back());
            if (next[top] == parents.offsets[top + 1]) {
                state[top] = done;
                order.push_back(path.back());
                path.pop_back();
                continue;
            }
            const std::int32_t parent = parents.ids[static_cast<std::size_t>(next[top]++)];
            std::uint8_t& seen = state[static_cast<std::size_t>(parent)];
            if (seen == open) return {std::ranges::find(path, parent), path.end()};
            if (seen == fresh) {
                seen = open;
                path.push_back(parent);
            }
        }
    }
    return {};
}

}  // namespace

std::vector<std::int32_t> find_cycle(Lists parents) {
    check(parents, parents.offsets.empty() ? 0 : parents.size(), "class", "parent");
    std::vector<std::int32_t> order;
    return walk(parents, order);
}

OwnedLists ancestors(Lists parents) {
    check(parents, parents.offsets.empty() ? 0 : parents.size(), "class", "parent");
    std::vector<std::int32_t> order;
    if (const auto cycle = walk(parents, order); !cycle.empty()) {
        std::string text;
        for (const std::int32_t c : cycle) text += std::to_string(c) + " -> ";
        throw std::invalid_argument("classes form a cycle of parents: " + text +
                                    std::to_string(cycle.front()));
    }
    std::vector<std::vector<std::int32_t>> above(parents.size());
    std::size_t total = 0;
    for (const std::int32_t c : order) {
        auto& mine = above[static_cast<std::size_t>(c)];
        for (const std::int32_t parent : parents[static_cast<std::size_t>(c)]) {
            const auto& theirs = above[static_cast<std::size_t>(parent)];
            mine.push_back(parent);
            mine.insert(mine.end(), theirs.begin(), theirs.end());
        }
        std::ranges::sort(mine);
        mine.erase(std::ranges::unique(mine).begin(), mine.end());
        total += mine.size();
    }
    OwnedLists result;
    result.offsets.reserve(parents.size() + 1);
    result.ids.reserve(total);
    for (const auto& list : above) {
        result.ids.insert(result.ids.end(), list.begin(), list.end());
        result.offsets.push_back(static_cast<std::int64_t>(result.ids.size()));
    }
    return result;
}

}  // namespace hpcscale
