// RoIAlign (He et al. 2017, "Mask R-CNN", section 3): the maps below a box, averaged in a grid of bins
// without rounding its corners; and the gradient by the maps.
//
// Channels lie innermost, so that one place of a map is one run of memory: arithmetic is on vectors, and the
// weights of a place are worked out once for all channels.
#pragma once

#include <cstddef>
#include <span>

namespace hpcscale {

struct Maps {
    std::size_t count, height, width, channels;  // (count, height, width, channels), without gaps
};

struct Bins {
    std::size_t height, width;  // of the grid of a box
    double scale;               // from the coordinates of boxes to those of the maps, 1 / stride
    int sampling;               // points of a bin along each side; <= 0: so many that none is above 1 apart
    bool aligned;  // a map's value is at the middle of its pixel: boxes are moved by half a pixel
};

// rois: 5 numbers each, the place of its maps, then left, top, right and bottom of the box. out: for each
// (bins.height, bins.width, channels).
//
// The box is scaled, and moved by -0.5 where `aligned`; else its sides are at least 1. It is cut into bins of
// equal sides, and point i of a bin's n along a side lies at (i + 0.5) / n of it, with n = `sampling`, or
// ceil(side of a bin). The value at a point is bilinear between the four nearest; points up to 1 beyond the
// first place of a map, or up to its side, count as at its border, those farther out as 0. A bin's value is
// the mean of its points, 0 if it has none, as where the box is turned over. Coordinates are rounded to T as
// in torchvision's operator; sums are in another order.
//
// The same bits with every number of threads. Throws std::invalid_argument where lengths do not fit or a
// box is not finite or would need more than 65,536 points along the side of a bin, std::out_of_range where a
// place is not one of the maps; each names the box. T is float or double.
template <typename T>
void roi_align(std::span<const T> maps, const Maps& shape, std::span<const T> rois, const Bins& bins,
               int threads, std::span<T> out);

// Adds to `maps` the gradient by them, of gradients by `out` of the above. Each place of a map sums over
// boxes in their order, whatever the number of threads.
template <typename T>
void roi_align_gradient(std::span<const T> gradient, const Maps& shape, std::span<const T> rois,
                        const Bins& bins, int threads, std::span<T> maps);

}  // namespace hpcscale
