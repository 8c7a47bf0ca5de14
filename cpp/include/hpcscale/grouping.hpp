// From samples with classes to classes with samples: a counting sort that is done in parts.
#pragma once

#include <cstdint>
#include <span>

#include "hpcscale/hierarchy.hpp"

namespace hpcscale {

// Give row i the id ids[i]; write it into the list of each of the row's classes, row after row:
//
//   for each class c of row i: out[next[c]++] = ids[i]
//
// If next[c] begins as the place where the list of class c starts, lists keep the order of the rows. The
// next rows go on from the same `next`, so that they need not be in memory at once. Id is a word of 4 or 8
// bytes. Sorting costs about 10 ns a label; NumPy's stable argsort costs ten times as much, and 16 bytes
// each.
//
// Throws as check() does, and std::invalid_argument if there are not as many ids as rows, before anything is
// changed; std::out_of_range that names the class if its list leaves `out`, after some were written.
template <typename Id>
void scatter(Lists rows, std::span<const Id> ids, std::span<std::int64_t> next, std::span<Id> out);

}  // namespace hpcscale
