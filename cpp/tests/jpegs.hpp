// JPEG files of every layout, for the tests of what reads them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

// jpeglib.h needs <cstdio> before it.
#include <jpeglib.h>

namespace hpcscale {

using Bytes = std::vector<std::uint8_t>;

struct Random {
    std::uint32_t state = 1;
    std::uint32_t below(std::size_t end) {
        state = state * 1664525u + 1013904223u;
        return static_cast<std::uint32_t>((std::uint64_t{state >> 8} * end) >> 24);
    }
};

// How a picture is stored; the sampling factors of its first colour, the others have 1 x 1.
struct Layout {
    const char* name;
    int across, down;
    bool grey = false, progressive = false, arithmetic = false;
    unsigned restart = 0;
    bool whole_colours = false;  // each colour in a scan of its own
};
inline constexpr Layout kLayouts[] = {
    {"4:4:4", 1, 1},
    {"4:2:2", 2, 1},
    {"4:2:0", 2, 2},
    {"4:4:0", 1, 2},
    {"4:1:1", 4, 1},
    {"4:1:0", 4, 2},
    {"grey", 1, 1, true},
    {"grey of 2 x 2", 2, 2, true},
    {"progressive 4:2:0", 2, 2, false, true},
    {"progressive 4:4:4", 1, 1, false, true},
    {"arithmetic 4:2:0", 2, 2, false, false, true},
    {"progressive arithmetic 4:2:2", 2, 1, false, true, true},
    {"restarts 4:2:0", 2, 2, false, false, false, 2},
    {"scans of a colour 4:2:0", 2, 2, false, false, false, 0, true},
};

// A picture with edges and noise, so that neighbours matter.
inline Bytes picture(std::size_t height, std::size_t width, std::size_t channels) {
    Random random;
    Bytes pixels(height * width * channels);
    for (std::size_t i = 0; i < pixels.size(); ++i) {
        const std::size_t x = i / channels % width, y = i / channels / width;
        pixels[i] = static_cast<std::uint8_t>(
            (x * 7 + y * 3 + (x / 5 + y / 3) % 2 * 120 + i % channels * 40 + random.below(60)) % 256);
    }
    return pixels;
}

inline Bytes encode(std::size_t height, std::size_t width, const Layout& layout) {
    const std::size_t channels = layout.grey ? 1 : 3;
    Bytes pixels = picture(height, width, channels);
    jpeg_compress_struct info;
    jpeg_error_mgr errors;
    info.err = jpeg_std_error(&errors);
    jpeg_create_compress(&info);
    unsigned char* memory = nullptr;
    unsigned long size = 0;
    jpeg_mem_dest(&info, &memory, &size);
    info.image_height = static_cast<JDIMENSION>(height);
    info.image_width = static_cast<JDIMENSION>(width);
    info.input_components = static_cast<int>(channels);
    info.in_color_space = layout.grey ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(&info);
    jpeg_set_quality(&info, 85, TRUE);
    info.comp_info[0].h_samp_factor = layout.across;
    info.comp_info[0].v_samp_factor = layout.down;
    info.restart_interval = layout.restart;
    info.arith_code = layout.arithmetic;
    jpeg_scan_info scans[3] = {};
    if (layout.progressive) jpeg_simple_progression(&info);
    if (layout.whole_colours) {
        for (int c = 0; c < 3; ++c) scans[c] = {1, {c, 0, 0, 0}, 0, 63, 0, 0};
        info.scan_info = scans;
        info.num_scans = 3;
    }
    jpeg_start_compress(&info, TRUE);
    for (std::size_t y = 0; y < height; ++y) {
        JSAMPROW row = pixels.data() + y * width * channels;
        jpeg_write_scanlines(&info, &row, 1);
    }
    jpeg_finish_compress(&info);
    jpeg_destroy_compress(&info);
    Bytes jpeg(memory, memory + size);
    std::free(memory);
    return jpeg;
}

}  // namespace hpcscale
