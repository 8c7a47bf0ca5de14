#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <stdexcept>

#include "hpcscale/phash.hpp"

namespace hpcscale {
namespace {

std::vector<std::uint8_t> noise(std::size_t values) {
    std::vector<std::uint8_t> pixels(values);
    std::uint32_t state = 1;
    for (auto& value : pixels)
        value = static_cast<std::uint8_t>((state = state * 1664525u + 1013904223u) >> 24);
    return pixels;
}

// The header's steps, element by element: blur in full, then keep 64 x 64.
Pdq slow(const std::vector<std::uint8_t>& rgb, std::size_t height, std::size_t width) {
    if (std::min(height, width) < 5) return {};
    std::vector<float> now(height * width), next(now.size());
    for (std::size_t k = 0; k < now.size(); ++k) {
        now[k] = static_cast<float>((299.0 * rgb[3 * k] + 587.0 * rgb[3 * k + 1] + 114.0 * rgb[3 * k + 2]) /
                                    1000.0);
    }
    const auto box = [&](std::size_t lines, std::size_t line, std::size_t size, std::size_t step) {
        const std::size_t window = (size + 127) / 128, lead = (window + 2) / 2 - 1, lag = window - lead;
        for (std::size_t l = 0; l < lines; ++l) {
            const float* in = &now[l * line];
            float sum = 0.0f;
            int count = 0;
            for (std::size_t k = 0; k < lead; ++k, ++count) sum += in[k * step];
            for (std::size_t k = 0; k < size; ++k) {
                if (k + lead < size) sum += in[(k + lead) * step], ++count;
                if (k >= lag) sum -= in[(k - lag) * step], --count;
                next[l * line + k * step] = sum / static_cast<float>(count);
            }
        }
        now.swap(next);
    };
    for (int pass = 0; pass < 2 && (height != 64 || width != 64); ++pass) {
        box(height, width, width, 1);
        box(width, 1, height, width);
    }
    float small[64][64], half[16][64], band[16][16], cosine[16][64];
    const float scale = static_cast<float>(std::sqrt(2.0 / 64.0));
    for (std::size_t i = 0; i < 64; ++i) {
        for (std::size_t j = 0; j < 64; ++j) {
            const auto y =
                static_cast<std::size_t>((static_cast<double>(i) + 0.5) * static_cast<double>(height) / 64);
            const auto x =
                static_cast<std::size_t>((static_cast<double>(j) + 0.5) * static_cast<double>(width) / 64);
            small[i][j] = now[y * width + x];
        }
    }
    int gradient = 0;
    for (std::size_t i = 0; i < 64; ++i) {
        for (std::size_t j = 0; j < 63; ++j) {
            gradient += std::abs(static_cast<int>((small[i][j] - small[i][j + 1]) * 100 / 255));
            gradient += std::abs(static_cast<int>((small[j][i] - small[j + 1][i]) * 100 / 255));
        }
    }
    for (int i = 0; i < 16; ++i) {
        for (int j = 0; j < 64; ++j) {
            cosine[i][j] = static_cast<float>(scale * std::cos((M_PI / 2.0 / 64.0) * (i + 1) * (2 * j + 1)));
        }
    }
    // volatile, so that the compiler cannot fuse multiply and add
    for (std::size_t i = 0; i < 16; ++i) {
        for (std::size_t j = 0; j < 64; ++j) {
            half[i][j] = 0;
            for (std::size_t k = 0; k < 64; ++k) {
                const volatile float product = cosine[i][k] * small[k][j];
                half[i][j] += product;
            }
        }
    }
    std::vector<float> all;
    for (std::size_t i = 0; i < 16; ++i) {
        for (std::size_t j = 0; j < 16; ++j) {
            band[i][j] = 0;
            for (std::size_t k = 0; k < 64; ++k) {
                const volatile float product = half[i][k] * cosine[j][k];
                band[i][j] += product;
            }
            all.push_back(band[i][j]);
        }
    }
    std::sort(all.begin(), all.end());
    Pdq result{{}, std::min(gradient / 90, 100)};
    for (std::size_t k = 0; k < 256; ++k) {
        if (band[k / 16][k % 16] > all[127]) result.code[3 - k / 64] |= std::uint64_t{1} << (k % 64);
    }
    return result;
}

TEST(Pdq, EveryVariantGivesTheDefinitionsBits) {
    const std::size_t sides[][2] = {{1, 1},    {4, 90},   {5, 5},     {5, 300},  {300, 5},   {63, 65},
                                    {64, 64},  {65, 64},  {127, 129}, {128, 16}, {129, 257}, {257, 129},
                                    {17, 640}, {513, 33}, {500, 375}, {16, 16},  {15, 31},   {384, 385}};
    for (const auto& [height, width] : sides) {
        const auto pixels = noise(height * width * 3);
        const Pdq expected = slow(pixels, height, width);
        for (const auto variant : pdq_variants()) {
            const Pdq found = pdq_by(variant, pixels, height, width);
            EXPECT_EQ(found.code, expected.code) << variant << " " << height << " x " << width;
            EXPECT_EQ(found.quality, expected.quality) << variant << " " << height << " x " << width;
        }
    }
}

TEST(Pdq, FlatPicturesHangOnRoundingAndStillAgree) {
    for (const int value : {0, 1, 99, 255}) {
        std::vector<std::uint8_t> pixels(333 * 501 * 3, static_cast<std::uint8_t>(value));
        for (std::size_t k = 0; k < pixels.size(); k += 3)
            pixels[k] = 17;  // luma that no float holds exactly
        const Pdq expected = slow(pixels, 333, 501);
        for (const auto variant : pdq_variants())
            EXPECT_EQ(pdq_by(variant, pixels, 333, 501).code, expected.code);
    }
}

TEST(Pdq, GreyIsRgbOfThreeEqualChannels) {
    const auto grey = noise(100 * 140);
    std::vector<std::uint8_t> rgb;
    for (const std::uint8_t value : grey) rgb.insert(rgb.end(), 3, value);
    EXPECT_EQ(pdq(grey, 100, 140).code, pdq(rgb, 100, 140).code);
}

TEST(Pdq, DihedralCodesAreThoseOfTheMirroredPicture) {
    // Smooth, and the 64 x 64 grid mirrors it exactly: codes of the turned pictures are near those that come
    // from one transform.
    const std::size_t n = 512;
    std::vector<std::uint8_t> grey(n * n), mirrored(n * n), transposed(n * n);
    for (std::size_t y = 0; y < n; ++y) {
        for (std::size_t x = 0; x < n; ++x) {
            const double u = static_cast<double>(x), v = static_cast<double>(y);
            const double wave = std::sin(u * u / 9000 + v / 31) + std::cos(u / 43 + v * v / 15000);
            grey[y * n + x] = static_cast<std::uint8_t>(127 + 60 * wave);
        }
    }
    for (std::size_t k = 0; k < n * n; ++k) {
        mirrored[k] = grey[k / n * n + (n - 1 - k % n)];
        transposed[k] = grey[k % n * n + k / n];
    }
    const auto differ = [](const Code256& a, const Code256& b) {
        int sum = 0;
        for (std::size_t w = 0; w < 4; ++w) sum += std::popcount(a[w] ^ b[w]);
        return sum;
    };
    const PdqDihedral all = pdq_dihedral(grey, n, n);
    EXPECT_EQ(all.codes[0], pdq(grey, n, n).code);
    EXPECT_EQ(all.codes[6], pdq(transposed, n, n).code);
    EXPECT_LE(differ(all.codes[5], pdq(mirrored, n, n).code), 40);
    EXPECT_GE(differ(all.codes[0], pdq(mirrored, n, n).code), 80);
    // Turning twice by 90 degrees is turning by 180: only signs and places change.
    EXPECT_EQ(all.quality, pdq(grey, n, n).quality);
}

TEST(Pdq, RefusesWhatIsNoPicture) {
    EXPECT_THROW(pdq(noise(64), 8, 9), std::invalid_argument);
    EXPECT_THROW(pdq_dihedral(noise(64), 8, 9), std::invalid_argument);
    EXPECT_THROW(pdq_by("quantum", noise(64), 8, 8), std::invalid_argument);
    EXPECT_EQ(pdq(noise(0), 0, 7).quality, 0);
}

TEST(Phash, KnownPictures) {
    // Flat: all frequencies but the first are exactly 0, and so is their median.
    EXPECT_EQ(phash(std::vector<std::uint8_t>(60 * 47, 200), 60, 47), 0x8000000000000000u);
    EXPECT_EQ(dhash(std::vector<std::uint8_t>(60 * 47, 200), 60, 47), 0u);
    EXPECT_EQ(dhash(std::vector<std::uint8_t>{9}, 1, 1), 0u);
    std::vector<std::uint8_t> rising(40 * 255);
    for (std::size_t k = 0; k < rising.size(); ++k) rising[k] = static_cast<std::uint8_t>(k % 255);
    EXPECT_EQ(dhash(rising, 40, 255), ~std::uint64_t{0});
    EXPECT_THROW(phash(std::vector<std::uint8_t>{}, 0, 0), std::invalid_argument);
    EXPECT_THROW(dhash(noise(10), 3, 3), std::invalid_argument);
}

TEST(Phash, SizesInWhichPillowSkipsOrSwapsADirection) {
    const std::size_t sides[][2] = {{32, 32}, {32, 500}, {500, 32}, {1, 900},
                                    {900, 1}, {8, 9},    {9, 8},    {3, 2}};
    for (const auto& [height, width] : sides) {
        phash(noise(height * width), height, width);  // for the sanitizers
        dhash(noise(height * width), height, width);
    }
}

}  // namespace
}  // namespace hpcscale
