#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "hpcscale/roi_align.hpp"

namespace hpcscale {
namespace {

template <typename T>
std::vector<T> align(const std::vector<T>& maps, const Maps& shape, const std::vector<T>& rois,
                     const Bins& bins, int threads = 1) {
    std::vector<T> out(rois.size() / 5 * bins.height * bins.width * shape.channels);
    roi_align(std::span<const T>(maps), shape, std::span<const T>(rois), bins, threads, std::span(out));
    return out;
}

template <typename T>
std::vector<T> gradient(const std::vector<T>& given, const Maps& shape, const std::vector<T>& rois,
                        const Bins& bins, int threads = 1) {
    std::vector<T> maps(shape.count * shape.height * shape.width * shape.channels);
    roi_align_gradient(std::span<const T>(given), shape, std::span<const T>(rois), bins, threads,
                       std::span(maps));
    return maps;
}

template <typename T>
std::vector<T> numbers(std::size_t count) {
    std::vector<T> values(count);
    std::uint32_t state = 1;
    for (auto& value : values)
        value = static_cast<T>((state = state * 1664525u + 1013904223u) >> 16) / 65536 - T{0.5};
    return values;
}

template <typename T>
class RoiAlign : public testing::Test {};
using Precisions = testing::Types<float, double>;
TYPED_TEST_SUITE(RoiAlign, Precisions);

TYPED_TEST(RoiAlign, OfAPlaneIsThePlane) {
    using T = TypeParam;
    std::vector<T> maps(25);
    std::iota(maps.begin(), maps.end(), T{0});
    for (const bool aligned : {true, false}) {
        const auto out = align<T>(maps, {1, 5, 5, 1}, {0, 1, 1, 3, 3}, {4, 4, 1.0, 0, aligned});
        for (std::size_t i = 0; i < 16; ++i) {
            const double expected =
                (aligned ? 4.5 : 7.5) + 2.5 * static_cast<double>(i / 4) + 0.5 * static_cast<double>(i % 4);
            EXPECT_NEAR(static_cast<double>(out[i]), expected, 1e-6);
        }
    }
}

// <align(m), g> = <m, gradient(g)> for all m and g, since align is linear.
TYPED_TEST(RoiAlign, GradientIsTheTransposedMap) {
    using T = TypeParam;
    const std::vector<T> rois = {0, -3, -2, 9, 7, 1, 2, 2, 2, 2, 1, 30, 4, 50, 11, 0, 8, 8, 3, 3};
    for (const std::size_t channels : {1, 31, 32, 33, 64, 65, 130}) {
        const Maps shape{2, 6, 9, channels};
        const auto maps = numbers<T>(2 * 6 * 9 * channels);
        const auto given = numbers<T>(4 * 3 * 2 * channels);
        for (const int sampling : {0, 1, 2, 5}) {
            const Bins bins{3, 2, 0.5, sampling, true};
            const auto out = align(maps, shape, rois, bins);
            const auto back = gradient(given, shape, rois, bins);
            const double there = std::inner_product(out.begin(), out.end(), given.begin(), 0.0);
            const double here = std::inner_product(maps.begin(), maps.end(), back.begin(), 0.0);
            EXPECT_NEAR(there, here, 1e-4 * (1 + std::abs(there)));
        }
    }
}

TYPED_TEST(RoiAlign, ThreadsDoNotChangeABit) {
    using T = TypeParam;
    const Maps shape{2, 8, 8, 150};
    const Bins bins{7, 7, 1.0, 2, false};
    std::vector<T> rois;
    for (int i = 0; i < 40; ++i) {
        const auto at = static_cast<T>(i);
        rois.insert(rois.end(), {static_cast<T>(i % 2), at / 9, at / 11, at / 5 + 2, at / 7 + 1});
    }
    const auto maps = numbers<T>(2 * 8 * 8 * 150);
    const auto out = align(maps, shape, rois, bins), back = gradient(out, shape, rois, bins);
    for (const int threads : {2, 5, 16}) {
        EXPECT_EQ(align(maps, shape, rois, bins, threads), out);
        EXPECT_EQ(gradient(out, shape, rois, bins, threads), back);
    }
}

TYPED_TEST(RoiAlign, WhatDoesNotFitIsAnError) {
    using T = TypeParam;
    const Maps shape{1, 4, 4, 2};
    const std::vector<T> maps(32);
    const Bins bins{2, 2, 1.0, 0, true};
    EXPECT_THROW(align<T>(maps, shape, {0, 1, 1, 3}, bins), std::invalid_argument);
    EXPECT_THROW(align<T>(std::vector<T>(31), shape, {0, 1, 1, 3, 3}, bins), std::invalid_argument);
    EXPECT_THROW(align<T>({}, {1, 0, 4, 2}, {0, 1, 1, 3, 3}, bins), std::invalid_argument);
    EXPECT_THROW(align<T>(maps, shape, {0, 1, 1, T{INFINITY}, 3}, bins), std::invalid_argument);
    EXPECT_THROW(align<T>(maps, shape, {0, 1, 1, T{1e7}, 3}, bins), std::invalid_argument);
    EXPECT_THROW(align<T>(maps, shape, {1, 1, 1, 3, 3}, bins), std::out_of_range);
    EXPECT_THROW(align<T>(maps, shape, {0, 1, 1, 3, 3}, {2, 2, 1.0, 1 << 17, true}), std::invalid_argument);
    EXPECT_EQ(align<T>(maps, shape, {}, bins), std::vector<T>());
}

}  // namespace
}  // namespace hpcscale
