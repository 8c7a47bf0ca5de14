#include "hpcscale/grouping.hpp"

#include <stdexcept>
#include <string>

namespace hpcscale {

template <typename Id>
void scatter(Lists rows, std::span<const Id> ids, std::span<std::int64_t> next, std::span<Id> out) {
    check(rows, next.size(), "row", "class");
    if (ids.size() != rows.size()) {
        throw std::invalid_argument("there are " + std::to_string(rows.size()) + " rows, but " +
                                    std::to_string(ids.size()) + " ids");
    }
    for (std::size_t i = 0; i < rows.size(); ++i) {
        for (const std::int32_t c : rows[i]) {
            std::int64_t& place = next[static_cast<std::size_t>(c)];
            if (place < 0 || static_cast<std::size_t>(place) >= out.size()) {
                throw std::out_of_range("class " + std::to_string(c) + ": place " + std::to_string(place) +
                                        " is outside [0, " + std::to_string(out.size()) + ")");
            }
            out[static_cast<std::size_t>(place++)] = ids[i];
        }
    }
}

template void scatter(Lists, std::span<const std::uint32_t>, std::span<std::int64_t>,
                      std::span<std::uint32_t>);
template void scatter(Lists, std::span<const std::uint64_t>, std::span<std::int64_t>,
                      std::span<std::uint64_t>);

}  // namespace hpcscale
