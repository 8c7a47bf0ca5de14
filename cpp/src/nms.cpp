#include "hpcscale/nms.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "x86.hpp"

// What is inlined is compiled for the instructions of the variant that calls it.
#define INLINE [[gnu::always_inline]] inline

namespace hpcscale {
namespace {

// Boxes by descending score, a number of each at a time. Flags are as wide as numbers, so that one comparison
// of vectors makes them.
template <typename T>
struct Sorted {
    using Flag = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
    std::vector<T> left, top, right, bottom, area;
    std::vector<Flag> gone;
};

// As std::max and std::min, also of numbers that are none; by value, which the compiler turns into vectors.
template <typename T>
INLINE T larger(T a, T b) {
    return a < b ? b : a;
}
template <typename T>
INLINE T smaller(T a, T b) {
    return b < a ? b : a;
}

// Flag the boxes after `i` that it suppresses.
template <typename T>
INLINE void suppress_body(Sorted<T>& boxes, std::size_t i, T threshold) {
    const std::size_t n = boxes.left.size();
    const T left_i = boxes.left[i], top_i = boxes.top[i], right_i = boxes.right[i],
            bottom_i = boxes.bottom[i], area_i = boxes.area[i];
    const T *const left = boxes.left.data(), *const top = boxes.top.data(), *const right = boxes.right.data(),
                   *const bottom = boxes.bottom.data(), *const area = boxes.area.data();
    auto* const __restrict gone = boxes.gone.data();
    for (std::size_t j = i + 1; j < n; ++j) {
        const T width = larger(T{0}, smaller(right_i, right[j]) - larger(left_i, left[j]));
        const T height = larger(T{0}, smaller(bottom_i, bottom[j]) - larger(top_i, top[j]));
        const T inter = width * height;
        gone[j] |= inter / (area_i + area[j] - inter) > threshold ? -1 : 0;
    }
}

template <typename T>
void suppress_plain(Sorted<T>& boxes, std::size_t i, T threshold) {
    suppress_body(boxes, i, threshold);
}

#ifdef HPCSCALE_X86
template <typename T>
__attribute__((target("avx2"))) void suppress_avx2(Sorted<T>& boxes, std::size_t i, T threshold) {
    suppress_body(boxes, i, threshold);
}
#endif

template <typename T>
auto fastest() {
#ifdef HPCSCALE_X86
    if (__builtin_cpu_supports("avx2")) return suppress_avx2<T>;
#endif
    return suppress_plain<T>;
}

// The largest T that is at most `threshold`: just those T are above it that are above the double.
template <typename T>
T below(double threshold) {
    const T near = static_cast<T>(threshold);
    const bool above = static_cast<double>(near) > threshold;
    return above ? std::nextafter(near, -std::numeric_limits<T>::infinity()) : near;
}

template <typename T>
std::vector<std::int64_t> order(std::span<const T> scores) {
    std::vector<std::int64_t> places(scores.size());
    std::iota(places.begin(), places.end(), 0);
    std::stable_sort(places.begin(), places.end(), [&](std::int64_t i, std::int64_t j) {
        const T a = scores[static_cast<std::size_t>(i)], b = scores[static_cast<std::size_t>(j)];
        return a > b || (std::isnan(a) && !std::isnan(b));
    });
    return places;
}

}  // namespace

template <typename T>
std::vector<std::int64_t> nms(std::span<const T> boxes, std::span<const T> scores, double threshold) {
    const std::size_t n = scores.size();
    if (boxes.size() != 4 * n) {
        throw std::invalid_argument("nms: needs 4 numbers of a box for each score, found " +
                                    std::to_string(boxes.size()) + " for " + std::to_string(n));
    }
    const auto places = order(scores);
    Sorted<T> sorted;
    for (auto* column : {&sorted.left, &sorted.top, &sorted.right, &sorted.bottom, &sorted.area})
        column->resize(n);
    sorted.gone.resize(n);
    for (std::size_t i = 0; i < n; ++i) {
        const T* const box = &boxes[4 * static_cast<std::size_t>(places[i])];
        sorted.left[i] = box[0];
        sorted.top[i] = box[1];
        sorted.right[i] = box[2];
        sorted.bottom[i] = box[3];
        sorted.area[i] = (box[2] - box[0]) * (box[3] - box[1]);
    }
    const auto suppress = fastest<T>();
    const T limit = below<T>(threshold);
    std::vector<std::int64_t> kept;
    for (std::size_t i = 0; i < n; ++i) {
        if (sorted.gone[i]) continue;
        kept.push_back(places[i]);
        suppress(sorted, i, limit);
    }
    return kept;
}

template std::vector<std::int64_t> nms(std::span<const float>, std::span<const float>, double);
template std::vector<std::int64_t> nms(std::span<const double>, std::span<const double>, double);

}  // namespace hpcscale
