// A directed acyclic graph of classes: who is whose parent, and from it who is whose ancestor.
//
// In: for every class the list of its parents, in CSR form. Out: for every class the list of all its
// ancestors. Classes are numbered 0, 1, ..., n - 1 in any order; a class may have several parents.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace hpcscale {

// Borrowed lists in CSR form: list i is ids[offsets[i]], ..., ids[offsets[i + 1] - 1]; n lists have n + 1
// offsets.
struct Lists {
    std::span<const std::int64_t> offsets;
    std::span<const std::int32_t> ids;

    std::size_t size() const { return offsets.size() - 1; }
    std::span<const std::int32_t> operator[](std::size_t i) const {
        return {ids.data() + offsets[i], static_cast<std::size_t>(offsets[i + 1] - offsets[i])};
    }
};

// The same, owned.
struct OwnedLists {
    std::vector<std::int64_t> offsets{0};
    std::vector<std::int32_t> ids;

    Lists view() const { return {offsets, ids}; }
};

// Throw unless `lists` is well formed: offsets start at 0, never fall and end at the number of ids (else
// std::invalid_argument); every id lies in [0, limit) (else std::out_of_range). `list` and `id` are what the
// message calls the two: check(tags, 500, "record", "tag id") says
// "record 3: tag id 512 is outside [0, 500)".
void check(Lists lists, std::size_t limit, std::string_view list, std::string_view id);

// A cycle among the parents: each class is followed by one of its parents, and the first is a parent of the
// last. Empty if there is no cycle. A class that is its own parent is a cycle of one. Throws as check() does.
// Time and memory O(classes + edges).
std::vector<std::int32_t> find_cycle(Lists parents);

// For every class all its ancestors (parents, their parents, ...), without itself, sorted, each once.
// Throws as check() does, and std::invalid_argument naming the classes of a cycle. A parent given twice
// counts once.
OwnedLists ancestors(Lists parents);

}  // namespace hpcscale
