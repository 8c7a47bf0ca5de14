#include <gtest/gtest.h>

#include <cstring>
#include <stdexcept>

#include "hpcscale/pixels.hpp"

namespace hpcscale {
namespace {

std::vector<std::uint8_t> pictures(std::size_t values) {
    std::vector<std::uint8_t> pixels(values);
    std::uint32_t state = 1;
    for (auto& value : pixels)
        value = static_cast<std::uint8_t>((state = state * 1664525u + 1013904223u) >> 24);
    return pixels;
}

// The definition in the header, value by value.
std::vector<float> slow(const std::vector<std::uint8_t>& pixels, const std::vector<std::uint8_t>& mirror,
                        std::size_t height, std::size_t width) {
    std::vector<float> out(pixels.size());
    for (std::size_t row = 0; row < mirror.size() * height; ++row) {
        for (std::size_t x = 0; x < width; ++x) {
            const std::size_t from = mirror[row / height] != 0 ? width - 1 - x : x;
            for (std::size_t c = 0; c < 3; ++c) {
                const int value = pixels[(row * width + from) * 3 + c];
                out[(row * width + x) * 3 + c] = static_cast<float>(2 * value - 255) * (1.0f / 255.0f);
            }
        }
    }
    return out;
}

TEST(Normalize, EveryVariantGivesTheBitsOfTheDefinition) {
    for (const std::size_t width : {1, 2, 3, 4, 5, 6, 7, 10, 11, 16, 21, 63, 64, 65, 299}) {
        for (const std::size_t height : {1, 2, 5}) {
            const std::vector<std::uint8_t> mirror = {0, 1, 255, 0};
            const auto pixels = pictures(mirror.size() * height * width * 3);
            const auto expected = slow(pixels, mirror, height, width);
            for (const auto variant : normalize_variants()) {
                for (std::size_t shift = 0; shift < 8; ++shift) {  // `out` on every boundary
                    std::vector<float> out(pixels.size() + 16, 7.0f);
                    normalize_by(variant, pixels, mirror, height, width,
                                 std::span(out).subspan(shift, pixels.size()));
                    ASSERT_EQ(
                        std::memcmp(out.data() + shift, expected.data(), expected.size() * sizeof(float)), 0)
                        << variant << " " << width << " x " << height << " at " << shift;
                    for (std::size_t i = 0; i < out.size(); ++i) {
                        if (i < shift || i >= shift + pixels.size())
                            ASSERT_EQ(out[i], 7.0f) << variant << " " << i;
                    }
                }
            }
            std::vector<float> out(pixels.size());
            normalize(pixels, mirror, height, width, out);
            ASSERT_EQ(out, expected);
        }
    }
}

TEST(Normalize, EndsAreExact) {
    const std::vector<std::uint8_t> pixels = {0, 255, 0, 255, 0, 255};
    for (const auto variant : normalize_variants()) {
        std::vector<float> out(6);
        normalize_by(variant, pixels, std::vector<std::uint8_t>{0}, 1, 2, out);
        EXPECT_EQ(out, (std::vector<float>{-1, 1, -1, 1, -1, 1})) << variant;
    }
}

TEST(Normalize, NothingIsFine) {
    normalize({}, {}, 299, 299, {});
    normalize({}, std::vector<std::uint8_t>{1, 0}, 0, 4, {});
}

TEST(Normalize, WrongSizesAndNamesAreErrors) {
    const std::vector<std::uint8_t> pixels(12), mirror(1);
    std::vector<float> out(12);
    EXPECT_THROW(normalize(pixels, mirror, 2, 3, out), std::invalid_argument);
    EXPECT_THROW(normalize(pixels, mirror, 2, 2, std::span(out).first(11)), std::invalid_argument);
    EXPECT_THROW(normalize_by("mmx", pixels, mirror, 2, 2, out), std::invalid_argument);
}

}  // namespace
}  // namespace hpcscale
