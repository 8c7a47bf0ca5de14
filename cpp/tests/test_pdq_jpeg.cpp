// pdq_jpeg against libjpeg's coefficients and the steps of phash.hpp in double; what it leaves to others;
// damage.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "hpcscale/phash.hpp"
#include "jpegs.hpp"

namespace hpcscale {
namespace {

using Row = std::vector<double>;

// Luma of the coefficients with u + v < 5, neither rounded nor cut at 0 and 255.
std::vector<Row> low_luma(const Bytes& jpeg) {
    jpeg_decompress_struct info;
    jpeg_error_mgr errors;
    info.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&info);
    jpeg_mem_src(&info, jpeg.data(), jpeg.size());
    jpeg_read_header(&info, TRUE);
    jvirt_barray_ptr* const arrays = jpeg_read_coefficients(&info);
    const jpeg_component_info& luma = info.comp_info[0];
    const auto* const steps = luma.quant_table->quantval;
    std::vector<Row> pixels(info.image_height, Row(info.image_width));
    for (std::size_t y = 0; y < info.image_height; ++y) {
        JBLOCKARRAY blocks = info.mem->access_virt_barray(reinterpret_cast<j_common_ptr>(&info), arrays[0],
                                                          static_cast<JDIMENSION>(y / 8), 1, FALSE);
        for (std::size_t x = 0; x < info.image_width; ++x) {
            for (std::size_t k = 0; k < 64; ++k) {
                const std::size_t u = k % 8, v = k / 8;
                if (u + v >= 5) continue;
                const auto cosine = [](std::size_t at, std::size_t f) {
                    const double angle = M_PI / 16.0 * static_cast<double>((2 * (at % 8) + 1) * f);
                    return (f == 0 ? std::sqrt(0.125) : 0.5) * std::cos(angle);
                };
                pixels[y][x] += blocks[0][x / 8][k] * steps[k] * cosine(y, v) * cosine(x, u);
            }
        }
    }
    jpeg_finish_decompress(&info);
    jpeg_destroy_decompress(&info);
    return pixels;
}

std::vector<Row> transposed(const std::vector<Row>& rows) {
    std::vector<Row> columns(rows[0].size(), Row(rows.size()));
    for (std::size_t y = 0; y < rows.size(); ++y) {
        for (std::size_t x = 0; x < rows[0].size(); ++x) columns[x][y] = rows[y][x];
    }
    return columns;
}

// The mean of [o - lag + 1, o + lead], twice; then the pixels that are kept.
std::vector<Row> shrunk(std::vector<Row> rows) {
    const std::size_t size = rows[0].size(), window = (size + 127) / 128;
    const std::size_t lead = (window + 2) / 2 - 1, lag = window - lead;
    for (Row& row : rows) {
        for (int pass = 0; pass < 2; ++pass) {
            Row means(size);
            for (std::size_t o = 0; o < size; ++o) {
                const std::size_t from = o < lag ? 0 : o - lag + 1, to = std::min(o + lead + 1, size);
                for (std::size_t x = from; x < to; ++x) means[o] += row[x] / static_cast<double>(to - from);
            }
            row = means;
        }
        Row few(64);
        for (std::size_t k = 0; k < 64; ++k) few[k] = row[(2 * k + 1) * size / 128];
        row = few;
    }
    return rows;
}

// Bits that differ, but for frequencies that are so near to the median that rounding may decide.
int differing(const Code256& code, const Bytes& jpeg) {
    const std::vector<Row> small = transposed(shrunk(transposed(shrunk(low_luma(jpeg)))));
    std::vector<double> band(256);
    for (std::size_t k = 0; k < 256; ++k) {
        for (std::size_t y = 0; y < 64; ++y) {
            for (std::size_t x = 0; x < 64; ++x) {
                band[k] += small[y][x] *
                           std::cos(M_PI / 128 * static_cast<double>((k / 16 + 1) * (2 * y + 1))) *
                           std::cos(M_PI / 128 * static_cast<double>((k % 16 + 1) * (2 * x + 1))) / 32;
            }
        }
    }
    std::vector<double> sorted = band;
    std::ranges::sort(sorted);
    int count = 0;
    for (std::size_t k = 0; k < 256; ++k) {
        if (std::abs(band[k] - sorted[127]) < 0.01) continue;
        count += (code[3 - k / 64] >> (k % 64) & 1) != (band[k] > sorted[127]);
    }
    return count;
}

bool is_read(const Layout& layout) {
    return !layout.progressive && !layout.arithmetic && layout.restart == 0 && !layout.whole_colours;
}

TEST(PdqJpeg, IsPdqOfTheLowCoefficientsInEveryLayout) {
    for (const Layout& layout : kLayouts) {
        for (const auto& [height, width] : {std::pair{257, 300}, std::pair{391, 266}, std::pair{264, 1030}}) {
            const Bytes jpeg =
                encode(static_cast<std::size_t>(height), static_cast<std::size_t>(width), layout);
            const auto found = pdq_jpeg(jpeg);
            ASSERT_EQ(found.has_value(), is_read(layout)) << layout.name;
            if (!found) continue;
            EXPECT_EQ(differing(found->code, jpeg), 0) << layout.name << " " << height << " x " << width;
        }
    }
}

TEST(PdqJpeg, SmallPicturesAndOtherFilesAreLeftToOthers) {
    EXPECT_TRUE(pdq_jpeg(encode(257, 257, kLayouts[0])));
    EXPECT_FALSE(pdq_jpeg(encode(256, 300, kLayouts[0])));
    EXPECT_FALSE(pdq_jpeg(encode(300, 256, kLayouts[0])));
    EXPECT_FALSE(pdq_jpeg({}));
    EXPECT_FALSE(pdq_jpeg(Bytes(1000, 0xFF)));
}

TEST(PdqJpeg, ADamagedFileIsNoneAndCrashesNothing) {
    const Bytes whole = encode(257, 257, kLayouts[2]);
    const auto code = pdq_jpeg(whole)->code;
    const std::size_t scan = whole.size() - 2;
    for (std::size_t size = 0; size < whole.size(); size += 1 + size / 50)
        EXPECT_FALSE(pdq_jpeg(std::span(whole).first(size))) << size;
    Bytes longer(whole);
    longer.insert(longer.begin() + static_cast<std::ptrdiff_t>(scan), {1, 2});
    EXPECT_FALSE(pdq_jpeg(longer));
    Bytes behind(whole);
    behind.insert(behind.end(), {1, 2, 3});
    EXPECT_EQ(pdq_jpeg(behind)->code, code);
    Random random;
    for (int round = 0; round < 1000; ++round) {
        Bytes damaged(whole);
        const bool in_header = round % 2 == 0;  // 600 bytes of tables, sizes and samplings
        damaged[random.below(in_header ? 640 : damaged.size())] =
            static_cast<std::uint8_t>(random.below(256));
        damaged[random.below(in_header ? 640 : damaged.size())] =
            static_cast<std::uint8_t>(random.below(256));
        pdq_jpeg(damaged);
    }
    EXPECT_EQ(pdq_jpeg(whole)->code, code);  // nothing is left of those before
}

}  // namespace
}  // namespace hpcscale
