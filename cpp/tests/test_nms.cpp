#include <gtest/gtest.h>

#include <limits>
#include <stdexcept>

#include "hpcscale/nms.hpp"

namespace hpcscale {
namespace {

template <typename T>
std::vector<std::int64_t> run(const std::vector<T>& boxes, const std::vector<T>& scores, double threshold) {
    return nms(std::span<const T>(boxes), std::span<const T>(scores), threshold);
}

using Places = std::vector<std::int64_t>;

// The definition in the header, pair by pair.
template <typename T>
Places slow(const std::vector<T>& boxes, const Places& order, double threshold) {
    Places kept;
    for (const auto i : order) {
        const T* const a = &boxes[4 * static_cast<std::size_t>(i)];
        bool stays = true;
        for (const auto j : kept) {
            const T* const b = &boxes[4 * static_cast<std::size_t>(j)];
            const T width = std::max(T{0}, std::min(a[2], b[2]) - std::max(a[0], b[0]));
            const T height = std::max(T{0}, std::min(a[3], b[3]) - std::max(a[1], b[1]));
            const T inter = width * height;
            const T other = (b[2] - b[0]) * (b[3] - b[1]);
            stays = stays && !(inter / (other + (a[2] - a[0]) * (a[3] - a[1]) - inter) > threshold);
        }
        if (stays) kept.push_back(i);
    }
    return kept;
}

template <typename T>
class Nms : public testing::Test {};
using Precisions = testing::Types<float, double>;
TYPED_TEST_SUITE(Nms, Precisions);

TYPED_TEST(Nms, OfEveryLengthIsItsDefinition) {
    using T = TypeParam;
    std::uint32_t state = 1;
    const auto number = [&](std::uint32_t below) {
        return static_cast<T>((state = state * 1664525u + 1013904223u) >> 24 & 255u) / 256 *
               static_cast<T>(below);
    };
    for (std::size_t n = 0; n < 70; ++n) {  // lengths around all widths of vectors
        std::vector<T> boxes, scores;
        Places order;
        for (std::size_t i = 0; i < n; ++i) {
            const T left = number(20), top = number(20);
            boxes.insert(boxes.end(), {left, top, left + number(20), top + number(20)});
            scores.push_back(static_cast<T>(n - i));
            order.push_back(static_cast<std::int64_t>(i));
        }
        for (const double threshold : {0.0, 0.3, 0.7})
            EXPECT_EQ(run(boxes, scores, threshold), slow(boxes, order, threshold));
    }
}

TYPED_TEST(Nms, EqualScoresGoByPlaceAndNoNumberFirst) {
    using T = TypeParam;
    const std::vector<T> apart = {0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7};
    const T none = std::numeric_limits<T>::quiet_NaN();
    EXPECT_EQ(run<T>(apart, {1, 2, 1, 2}, 0.5), (Places{1, 3, 0, 2}));
    EXPECT_EQ(run<T>(apart, {1, 2, none, none}, 0.5), (Places{2, 3, 1, 0}));
}

TYPED_TEST(Nms, AThresholdIsNotAbove) {
    using T = TypeParam;
    const std::vector<T> halves = {0, 0, 2, 1, 0, 0, 1, 1};
    EXPECT_EQ(run<T>(halves, {2, 1}, 0.5), (Places{0, 1}));
    EXPECT_EQ(run<T>(halves, {2, 1}, 0.4999999999999999), (Places{0}));
}

TYPED_TEST(Nms, WithoutAreaBothStay) {
    using T = TypeParam;
    EXPECT_EQ(run<T>({1, 1, 1, 1, 1, 1, 1, 1}, {1, 1}, 0.0), (Places{0, 1}));
}

TYPED_TEST(Nms, LengthsThatDoNotFitAreErrors) {
    using T = TypeParam;
    EXPECT_THROW(run<T>({1, 1, 1}, {1}, 0.5), std::invalid_argument);
    EXPECT_THROW(run<T>({1, 1, 1, 1}, {1, 2}, 0.5), std::invalid_argument);
}

}  // namespace
}  // namespace hpcscale
