#include "hpcscale/roi_align.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "threads.hpp"
#include "x86.hpp"

// What is inlined is compiled for the instructions of the variant that calls it.
#define INLINE [[gnu::always_inline]] inline

namespace hpcscale {
namespace {

constexpr int kMostPoints = 1 << 16;  // of a bin along a side
constexpr std::size_t kRun = 32;      // channels at a time: their sums stay in registers
// Channels of a task of the gradient. Fewer cost more for the weights, which every task works out.
constexpr std::size_t kShare = 2 * kRun;

// A place that a bin reads, along one side or in the maps, and how much it counts.
template <typename T>
struct Tap {
    std::size_t at;
    T weight;
};

// Of one side of a box: the taps of bin b are [ends[b], ends[b + 1]).
template <typename T>
struct Side {
    std::vector<Tap<T>> taps;
    std::vector<std::size_t> ends;

    std::span<const Tap<T>> operator[](std::size_t bin) const {
        return std::span(taps).subspan(ends[bin], ends[bin + 1] - ends[bin]);
    }

    // Neighbouring points of a bin read the same places, which are then one tap.
    void add(std::size_t at, T weight) {
        const auto begin = taps.begin() + static_cast<std::ptrdiff_t>(ends.back());
        for (auto tap = taps.end(); tap != begin && taps.end() - tap < 2;) {
            if ((--tap)->at == at) {
                tap->weight += weight;
                return;
            }
        }
        taps.push_back({at, weight});
    }
};

// `start` and `length` of the box along a side of the maps that has `size` places.
template <typename T>
void lay(Side<T>& side, T start, T length, std::size_t bins, std::size_t size, int sampling) {
    side.taps.clear();
    side.ends.assign(1, 0);
    const T bin = length / static_cast<T>(bins);
    const int points = sampling > 0 ? sampling : static_cast<int>(std::ceil(bin));
    const auto share = T{1} / static_cast<T>(points);
    const auto last = size - 1;
    for (std::size_t b = 0; b < bins; ++b) {
        for (int i = 0; i < points; ++i) {
            const T within = (static_cast<T>(i) + T{0.5}) * bin / static_cast<T>(points);
            T at = start + static_cast<T>(b) * bin + within;
            if (at < T{-1} || at > static_cast<T>(size)) continue;
            at = std::max(at, T{0});
            const auto low = static_cast<std::size_t>(at);
            if (low >= last) {
                side.add(last, share);
            } else {
                const T part = at - static_cast<T>(low);
                side.add(low, (T{1} - part) * share);
                side.add(low + 1, part * share);
            }
        }
        side.ends.push_back(side.taps.size());
    }
}

// What one box reads of the maps.
template <typename T>
class Region {
  public:
    void place(const T* roi, const Maps& shape, const Bins& bins) {
        const T scale = static_cast<T>(bins.scale), offset = bins.aligned ? T{0.5} : T{0};
        const T left = roi[1] * scale - offset, top = roi[2] * scale - offset;
        T width = roi[3] * scale - offset - left, height = roi[4] * scale - offset - top;
        if (!bins.aligned) width = std::max(width, T{1}), height = std::max(height, T{1});
        lay(rows_, top, height, bins.height, shape.height, bins.sampling);
        lay(columns_, left, width, bins.width, shape.width, bins.sampling);
        first_ = static_cast<std::size_t>(roi[0]) * shape.height * shape.width * shape.channels;
        row_ = shape.width * shape.channels;
        column_ = shape.channels;
    }

    // Taps of a bin, at elements of the maps; valid until the next call.
    std::span<const Tap<T>> taps(std::size_t y, std::size_t x) {
        taps_.clear();
        for (const auto& row : rows_[y]) {
            for (const auto& column : columns_[x])
                taps_.push_back({first_ + row.at * row_ + column.at * column_, row.weight * column.weight});
        }
        return taps_;
    }

  private:
    Side<T> rows_, columns_;
    std::vector<Tap<T>> taps_;
    std::size_t first_ = 0, row_ = 0, column_ = 0;
};

// --- kernels

// out[c] = sum of the taps' weights times maps[at + c].
template <typename T>
INLINE void gather_body(std::span<const Tap<T>> taps, const T* maps, std::size_t channels, T* out) {
    std::size_t c = 0;
    for (; c + kRun <= channels; c += kRun) {
        std::array<T, kRun> sums{};
        for (const auto& tap : taps) {
            const T* const from = maps + tap.at + c;
            for (std::size_t k = 0; k < kRun; ++k) sums[k] += tap.weight * from[k];
        }
        for (std::size_t k = 0; k < kRun; ++k) out[c + k] = sums[k];
    }
    for (; c < channels; ++c) {
        T sum{};
        for (const auto& tap : taps) sum += tap.weight * maps[tap.at + c];
        out[c] = sum;
    }
}

// maps[at + c] += weight * gradient[c] for all taps.
template <typename T>
INLINE void scatter_body(std::span<const Tap<T>> taps, const T* __restrict gradient, std::size_t channels,
                         T* __restrict maps) {
    for (const auto& tap : taps) {
        T* const to = maps + tap.at;
        for (std::size_t c = 0; c < channels; ++c) to[c] += tap.weight * gradient[c];
    }
}

template <typename T>
struct Kernels {
    void (*gather)(std::span<const Tap<T>>, const T*, std::size_t, T*);
    void (*scatter)(std::span<const Tap<T>>, const T*, std::size_t, T*);
};

template <typename T>
void gather_plain(std::span<const Tap<T>> taps, const T* maps, std::size_t channels, T* out) {
    gather_body(taps, maps, channels, out);
}
template <typename T>
void scatter_plain(std::span<const Tap<T>> taps, const T* gradient, std::size_t channels, T* maps) {
    scatter_body(taps, gradient, channels, maps);
}

#ifdef HPCSCALE_X86
template <typename T>
__attribute__((target("avx2"))) void gather_avx2(std::span<const Tap<T>> taps, const T* maps,
                                                 std::size_t channels, T* out) {
    gather_body(taps, maps, channels, out);
}
template <typename T>
__attribute__((target("avx2"))) void scatter_avx2(std::span<const Tap<T>> taps, const T* gradient,
                                                  std::size_t channels, T* maps) {
    scatter_body(taps, gradient, channels, maps);
}
#endif

template <typename T>
Kernels<T> fastest() {
#ifdef HPCSCALE_X86
    if (__builtin_cpu_supports("avx2")) return {gather_avx2<T>, scatter_avx2<T>};
#endif
    return {gather_plain<T>, scatter_plain<T>};
}

// --- checks

template <typename T>
void check_box(const T* roi, std::size_t k, const Maps& shape, const Bins& bins) {
    const auto fault = [&](const std::string& what) { return "box " + std::to_string(k) + ": " + what; };
    if (!std::all_of(roi, roi + 5, [](T value) { return std::isfinite(value); }))
        throw std::invalid_argument(fault("has a number that is not finite"));
    if (roi[0] < 0 || roi[0] >= static_cast<T>(shape.count)) {
        throw std::out_of_range(fault("is of maps " + std::to_string(roi[0]) + ", outside [0, " +
                                      std::to_string(shape.count) + ")"));
    }
    const auto far = [&](T low, T high, std::size_t count) {
        return std::abs(high - low) * static_cast<T>(bins.scale) >
               static_cast<T>(count) * static_cast<T>(kMostPoints);
    };
    if (bins.sampling <= 0 && (far(roi[1], roi[3], bins.width) || far(roi[2], roi[4], bins.height)))
        throw std::invalid_argument(fault("needs more than 65,536 points along the side of a bin"));
}

template <typename T>
void check(std::size_t maps, const Maps& shape, std::span<const T> rois, const Bins& bins, std::size_t out) {
    const std::size_t count = rois.size() / 5;
    if (rois.size() % 5 != 0 || maps != shape.count * shape.height * shape.width * shape.channels ||
        out != count * bins.height * bins.width * shape.channels) {
        throw std::invalid_argument("roi_align: lengths do not fit: maps " + std::to_string(maps) +
                                    ", boxes " + std::to_string(rois.size()) + ", bins " +
                                    std::to_string(out));
    }
    if (bins.sampling > kMostPoints)
        throw std::invalid_argument("roi_align: sampling " + std::to_string(bins.sampling) +
                                    " is above 65,536");
    if (count != 0 && (shape.height == 0 || shape.width == 0))
        throw std::invalid_argument("roi_align: boxes, but maps without places");
    for (std::size_t k = 0; k < count; ++k) check_box(&rois[5 * k], k, shape, bins);
}

}  // namespace

template <typename T>
void roi_align(std::span<const T> maps, const Maps& shape, std::span<const T> rois, const Bins& bins,
               int threads, std::span<T> out) {
    check(maps.size(), shape, rois, bins, out.size());
    const auto gather = fastest<T>().gather;
    std::vector<Region<T>> regions(static_cast<std::size_t>(std::max(threads, 1)));
    for_each(rois.size() / 5, threads, [&](int thread, std::size_t k) {
        auto& region = regions[static_cast<std::size_t>(thread)];
        region.place(&rois[5 * k], shape, bins);
        T* to = out.data() + k * bins.height * bins.width * shape.channels;
        for (std::size_t y = 0; y < bins.height; ++y) {
            for (std::size_t x = 0; x < bins.width; ++x, to += shape.channels)
                gather(region.taps(y, x), maps.data(), shape.channels, to);
        }
    });
}

template <typename T>
void roi_align_gradient(std::span<const T> gradient, const Maps& shape, std::span<const T> rois,
                        const Bins& bins, int threads, std::span<T> maps) {
    check(maps.size(), shape, rois, bins, gradient.size());
    const auto scatter = fastest<T>().scatter;
    // A task has some channels of one of the maps, so that no two threads write to one place.
    const std::size_t shares = (shape.channels + kShare - 1) / kShare;
    std::vector<Region<T>> regions(static_cast<std::size_t>(std::max(threads, 1)));
    for_each(shape.count * shares, threads, [&](int thread, std::size_t task) {
        auto& region = regions[static_cast<std::size_t>(thread)];
        const std::size_t begin = task % shares * kShare, width = std::min(kShare, shape.channels - begin);
        for (std::size_t k = 0; k < rois.size() / 5; ++k) {
            const T* const roi = &rois[5 * k];
            if (static_cast<std::size_t>(roi[0]) != task / shares) continue;
            region.place(roi, shape, bins);
            const T* from = gradient.data() + k * bins.height * bins.width * shape.channels + begin;
            for (std::size_t y = 0; y < bins.height; ++y) {
                for (std::size_t x = 0; x < bins.width; ++x, from += shape.channels)
                    scatter(region.taps(y, x), from, width, maps.data() + begin);
            }
        }
    });
}

#define INSTANCES(T)                                                                                        \
    template void roi_align(std::span<const T>, const Maps&, std::span<const T>, const Bins&, int,          \
                            std::span<T>);                                                                  \
    template void roi_align_gradient(std::span<const T>, const Maps&, std::span<const T>, const Bins&, int, \
                                     std::span<T>);
INSTANCES(float)
INSTANCES(double)

}  // namespace hpcscale
