// Non-maximum suppression: of boxes that overlap, the one of the highest score stays.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace hpcscale {

// boxes: 4 numbers each, left, top, right and bottom, end to end. Returns the places of those that stay, by
// descending score; equal scores by place, and not-a-number before all numbers, as torch sorts.
//
// In that order, a box stays unless its intersection over union (IoU) with one that stays is above
// `threshold`. An IoU is rounded to T at each step, and compared as it is with the double:
//
//   width = max(0, min(right_i, right_j) - max(left_i, left_j)), height likewise
//   inter = width * height
//   IoU = inter / (area_i + area_j - inter)
//
// An area is (right - left) * (bottom - top), negative for a box that is turned over in one direction. Two
// boxes without any area have an IoU of 0 / 0, which is above no threshold: both stay. These are the rules of
// torchvision's operator. T is float or double; every processor gives the same places. One thread, because
// what stays depends on all before it; time O(boxes that stay * boxes). Throws std::invalid_argument where
// lengths do not fit.
template <typename T>
std::vector<std::int64_t> nms(std::span<const T> boxes, std::span<const T> scores, double threshold);

}  // namespace hpcscale
