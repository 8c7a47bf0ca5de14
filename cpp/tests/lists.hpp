// Lists of ids as tests write them down, in the form that the library takes.
#pragma once

#include <cstdint>
#include <vector>

#include "hpcscale/hierarchy.hpp"

namespace hpcscale {

using Ids = std::vector<std::int32_t>;

inline OwnedLists lists(const std::vector<Ids>& each) {
    OwnedLists result;
    for (const Ids& ids : each) {
        result.ids.insert(result.ids.end(), ids.begin(), ids.end());
        result.offsets.push_back(static_cast<std::int64_t>(result.ids.size()));
    }
    return result;
}

}  // namespace hpcscale
