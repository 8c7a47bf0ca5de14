#include <gtest/gtest.h>

#include <cstring>
#include <stdexcept>

#include "hpcscale/pixels.hpp"

namespace hpcscale {
namespace {

const Channels kSigned = {{127.5f, 127.5f, 127.5f}, {1 / 127.5f, 1 / 127.5f, 1 / 127.5f}};
const Channels kOwn = {{123.675f, 116.28f, 103.53f}, {1 / 58.395f, 1 / 57.12f, 1 / 57.375f}};

std::vector<std::uint8_t> pictures(std::size_t values) {
    std::vector<std::uint8_t> pixels(values);
    std::uint32_t state = 1;
    for (auto& value : pixels)
        value = static_cast<std::uint8_t>((state = state * 1664525u + 1013904223u) >> 24);
    return pixels;
}

// The definition in the header, value by value.
std::vector<float> slow(const std::vector<std::uint8_t>& pixels, const Channels& channels) {
    std::vector<float> out(pixels.size());
    for (std::size_t i = 0; i < out.size(); ++i) {
        const float difference = static_cast<float>(pixels[i]) - channels.mean[i % 3];
        out[i] = difference * channels.scale[i % 3];
    }
    return out;
}

TEST(Normalize, EveryVariantGivesTheBitsOfTheDefinition) {
    for (const auto& channels : {kSigned, kOwn}) {
        for (std::size_t count = 3; count < 130; count += 3) {
            const auto pixels = pictures(count);
            const auto expected = slow(pixels, channels);
            for (const auto variant : normalize_variants()) {
                for (std::size_t shift = 0; shift < 8; ++shift) {  // `out` on every boundary
                    std::vector<float> out(count + 16, 7.0f);
                    normalize_by(variant, pixels, channels, std::span(out).subspan(shift, count));
                    ASSERT_EQ(std::memcmp(out.data() + shift, expected.data(), count * sizeof(float)), 0)
                        << variant << " " << count << " at " << shift;
                    for (std::size_t i = 0; i < out.size(); ++i) {
                        if (i < shift || i >= shift + count) ASSERT_EQ(out[i], 7.0f) << variant << " " << i;
                    }
                }
            }
            std::vector<float> out(count);
            normalize(pixels, channels, out);
            ASSERT_EQ(out, expected);
        }
    }
}

TEST(Normalize, EndsAreExact) {
    const std::vector<std::uint8_t> pixels = {0, 255, 0, 255, 0, 255};
    for (const auto variant : normalize_variants()) {
        std::vector<float> out(6);
        normalize_by(variant, pixels, kSigned, out);
        EXPECT_EQ(out, (std::vector<float>{-1, 1, -1, 1, -1, 1})) << variant;
    }
}

TEST(Normalize, WrongSizesAndNamesAreErrors) {
    const std::vector<std::uint8_t> pixels(12);
    std::vector<float> out(12);
    EXPECT_THROW(normalize(pixels, kSigned, std::span(out).first(11)), std::invalid_argument);
    EXPECT_THROW(normalize(std::span(pixels).first(11), kSigned, std::span(out).first(11)),
                 std::invalid_argument);
    EXPECT_THROW(normalize_by("mmx", pixels, kSigned, out), std::invalid_argument);
}

}  // namespace
}  // namespace hpcscale
