#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>

#include "hpcscale/decode.hpp"
#include "jpegs.hpp"

namespace hpcscale {
namespace {

// All pixels, as libjpeg's manual says how to get them.
Bytes decode_all(const Bytes& jpeg) {
    jpeg_decompress_struct info;
    jpeg_error_mgr errors;
    info.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&info);
    jpeg_mem_src(&info, jpeg.data(), jpeg.size());
    jpeg_read_header(&info, TRUE);
    info.out_color_space = JCS_RGB;
    jpeg_start_decompress(&info);
    Bytes pixels(std::size_t{3} * info.output_width * info.output_height);
    while (info.output_scanline < info.output_height) {
        JSAMPROW row = pixels.data() + std::size_t{3} * info.output_width * info.output_scanline;
        jpeg_read_scanlines(&info, &row, 1);
    }
    jpeg_finish_decompress(&info);
    jpeg_destroy_decompress(&info);
    return pixels;
}

struct Rows {
    std::vector<std::span<const std::uint8_t>> jpegs;
    std::vector<std::int32_t> windows, sizes, starts;
    Bytes mirror, out;
    std::size_t crop;

    void add(const Bytes& jpeg, std::array<std::int32_t, 4> window, std::array<std::int32_t, 2> size,
             std::array<std::int32_t, 2> start, bool flip = false) {
        jpegs.emplace_back(jpeg);
        windows.insert(windows.end(), window.begin(), window.end());
        sizes.insert(sizes.end(), size.begin(), size.end());
        starts.insert(starts.end(), start.begin(), start.end());
        mirror.push_back(flip);
    }
    std::vector<std::string> decode(int threads = 1) {
        out.assign(jpegs.size() * crop * crop * 3, 7);
        return hpcscale::decode(jpegs, {windows, sizes, starts, mirror, crop}, threads, out);
    }
};

void expect_crops_of(const Bytes& jpeg, std::size_t height, std::size_t width, std::size_t crop,
                     const char* name) {
    const Bytes all = decode_all(jpeg);
    Rows rows{.crop = crop};
    const auto h = static_cast<std::int32_t>(height), w = static_cast<std::int32_t>(width);
    const auto last = static_cast<std::int32_t>(crop);
    for (std::int32_t top = 0; top + last <= h; ++top) {
        for (std::int32_t left = 0; left + last <= w; ++left)
            rows.add(jpeg, {0, 0, h, w}, {h, w}, {top, left}, (top + left) % 2 != 0);
    }
    for (const std::string& reason : rows.decode(2)) ASSERT_EQ(reason, "") << name;
    for (std::size_t row = 0; row < rows.jpegs.size(); ++row) {
        const auto top = static_cast<std::size_t>(rows.starts[2 * row]);
        const auto left = static_cast<std::size_t>(rows.starts[2 * row + 1]);
        for (std::size_t i = 0; i < crop * crop * 3; ++i) {
            const std::size_t y = i / 3 / crop, x = i / 3 % crop;
            const std::size_t from = rows.mirror[row] != 0 ? crop - 1 - x : x;
            ASSERT_EQ(rows.out[row * crop * crop * 3 + i], all[((top + y) * width + left + from) * 3 + i % 3])
                << name << ", " << height << " x " << width << ": crop of " << crop << " at " << top << ", "
                << left << ", pixel " << y << ", " << x;
        }
    }
}

TEST(Decode, EveryCropHasTheBitsOfTheWholePicture) {
    for (const Layout& layout : kLayouts) {
        for (const auto& [height, width] :
             {std::pair<std::size_t, std::size_t>{1, 1}, {5, 3}, {16, 16}, {37, 53}}) {
            const Bytes jpeg = encode(height, width, layout);
            for (const std::size_t crop : {1, 2, 5, 16, 31}) {
                if (crop <= std::min(height, width)) expect_crops_of(jpeg, height, width, crop, layout.name);
            }
        }
    }
}

TEST(Decode, AFlatWindowStaysFlatAtAnySize) {
    Layout flat{"4:4:4", 1, 1};
    const Bytes jpeg = encode(1, 1, flat);  // one pixel
    const Bytes pixel = decode_all(jpeg);
    for (const std::int32_t size : {1, 2, 7, 100}) {
        Rows rows{.crop = 1};
        rows.add(jpeg, {0, 0, 1, 1}, {size, size}, {size - 1, size / 2});
        EXPECT_EQ(rows.decode()[0], "");
        EXPECT_EQ(rows.out, pixel);
    }
}

TEST(Decode, ARowOfTwoPixelsIsEnlargedByTheTriangle) {
    const Bytes jpeg = encode(1, 2, {"4:4:4", 1, 1});
    const Bytes pixels = decode_all(jpeg);
    const auto mixed = [&](double share, std::size_t c) {
        return static_cast<int>(pixels[c] * (1 - share) + pixels[3 + c] * share + 0.5);
    };
    for (std::int32_t left = 0; left < 8; ++left) {
        Rows rows{.crop = 1};
        rows.add(jpeg, {0, 0, 1, 2}, {1, 8}, {0, left});
        EXPECT_EQ(rows.decode()[0], "");
        const double share = std::clamp((left + 0.5) / 4 - 0.5, 0.0, 1.0);
        for (std::size_t c = 0; c < 3; ++c) EXPECT_NEAR(rows.out[c], mixed(share, c), 1) << left;
    }
}

TEST(Decode, RowsFailAlone) {
    const Bytes good = encode(40, 40, kLayouts[2]), empty, noise(500, 3);
    Bytes cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(good.size() * 4 / 5)), huge = good;
    for (std::size_t i = 0; i + 8 < huge.size(); ++i) {  // the header claims 65,500 x 65,500 pixels
        if (huge[i] == 0xFF && huge[i + 1] == 0xC0) {
            huge[i + 5] = huge[i + 7] = 0xFF;
            huge[i + 6] = huge[i + 8] = 0xDC;
        }
    }
    Rows rows{.crop = 8};
    for (const Bytes* jpeg :
         std::initializer_list<const Bytes*>{&good, &empty, &noise, &cut, &huge, &good, &cut}) {
        rows.add(*jpeg, {0, 0, 40, 40}, {40, 40}, {32, 0});
    }
    rows.add(good, {2, 0, 39, 40}, {39, 40}, {0, 0});
    rows.starts[12] = 0;  // of the last cut one, whose first rows are there
    for (const int threads : {1, 3}) {
        const auto reasons = rows.decode(threads);
        EXPECT_EQ(reasons[0], "");
        EXPECT_NE(reasons[1].find("truncated"), std::string::npos) << reasons[1];
        EXPECT_NE(reasons[2].find("Not a JPEG"), std::string::npos) << reasons[2];
        EXPECT_NE(reasons[3].find("truncated"), std::string::npos) << reasons[3];
        EXPECT_NE(reasons[4].find("65500 x 65500"), std::string::npos) << reasons[4];
        EXPECT_EQ(reasons[5], "");
        EXPECT_EQ(reasons[6], "");
        EXPECT_NE(reasons[7].find("it is 40 x 40 pixels; needed are 39 x 40 at 2, 0"), std::string::npos)
            << reasons[7];
        EXPECT_EQ(std::memcmp(rows.out.data(), rows.out.data() + 5 * 192, 192), 0);
    }
}

TEST(Decode, DamagedBytesAreReasonsAndNeverMore) {
    Random random;
    for (const Layout& layout : kLayouts) {
        const Bytes good = encode(37, 53, layout);
        for (int round = 0; round < 60; ++round) {
            Bytes jpeg = good;
            for (int k = 0; k < 1 + round % 5; ++k)
                jpeg[random.below(jpeg.size())] = static_cast<std::uint8_t>(random.below(256));
            if (round % 3 == 0) jpeg.resize(random.below(jpeg.size()));
            Rows rows{.crop = 16};
            rows.add(jpeg, {0, 0, 37, 53}, {37, 53}, {21, 30}, true);
            rows.add(jpeg, {3, 5, 20, 30}, {40, 16}, {5, 0});
            rows.add(jpeg, {0, 0, 37, 20}, {16, 19}, {0, 1});
            rows.decode();
            faults(rows.jpegs, 1);
        }
    }
}

TEST(Decode, FaultsAreWarningsToo) {
    const Bytes good = encode(40, 40, kLayouts[2]);
    Bytes without_end(good.begin(), good.end() - 2), damaged = good;
    damaged.insert(damaged.end() - 2, 40, 0x11);  // after the last row
    const std::vector<std::span<const std::uint8_t>> jpegs = {good, without_end, damaged};
    const auto reasons = faults(jpegs, 2);
    EXPECT_EQ(reasons[0], "");
    EXPECT_NE(reasons[1].find("truncated"), std::string::npos) << reasons[1];
    EXPECT_NE(reasons[2].find("extraneous bytes"), std::string::npos) << reasons[2];
}

TEST(Decode, ArgumentsThatDoNotFitAreErrors) {
    const Bytes jpeg = encode(8, 8, kLayouts[0]);
    const auto refused = [&](std::array<std::int32_t, 4> window, std::array<std::int32_t, 2> size,
                             std::array<std::int32_t, 2> start) {
        Rows rows{.crop = 4};
        rows.add(jpeg, window, size, start);
        EXPECT_THROW(rows.decode(), std::invalid_argument);
    };
    refused({0, 0, 8, 8}, {8, 8}, {5, 0});
    refused({0, 0, 8, 8}, {8, 8}, {0, -1});
    refused({-1, 0, 8, 8}, {8, 8}, {0, 0});
    refused({0, 0, 8, 0}, {8, 8}, {0, 0});
    refused({0, 0, 8, 8}, {8, 70000}, {0, 0});
    Rows rows{.crop = 4};
    rows.add(jpeg, {0, 0, 8, 8}, {8, 8}, {0, 0});
    EXPECT_THROW(rows.decode(0), std::invalid_argument);
    rows.mirror.clear();
    EXPECT_THROW(rows.decode(), std::invalid_argument);
    EXPECT_THROW(faults({}, 0), std::invalid_argument);
}

}  // namespace
}  // namespace hpcscale
