// JPEG files to crops of one size, as bytes of RGB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace hpcscale {

// Which part of each of n pictures becomes a square of `crop` pixels, row by row:
//
//   windows  top, left, height, width of the part of the picture that is read
//   sizes    height, width to which that part is resized; its own: nothing is resized
//   starts   top, left of the square within the resized part
//   mirror   not 0: left and right are exchanged
//
// Resized as Pillow 13 does it with its antialiased bilinear filter, from bytes to bytes: a triangle,
// stretched by the scale; coefficients rounded to 22 bits behind the point, results rounded to bytes after
// each direction; the width first, unless the height loses more than twice as many pixels.
struct Crops {
    std::span<const std::int32_t> windows, sizes, starts;  // 4, 2 and 2 a row
    std::span<const std::uint8_t> mirror;
    std::size_t crop;
};

using Jpegs = std::span<const std::span<const std::uint8_t>>;

// Decode with libjpeg-turbo at its default settings, only the rows and columns that are needed; the bits are
// those of decoding everything and cropping. Grey pictures become RGB; four colours (CMYK) are refused, and
// more pixels or scans than ingest allows.
//
// out: n * crop * crop * 3 bytes. The result says of each row why it could not be decoded, "" where it could;
// what `out` then holds of the row is undefined. Bytes that end early are a failure where needed rows are
// missing; other damage that libjpeg mends is none. Rows are shared by `threads` threads. Throws
// std::invalid_argument where the arguments do not fit together, and std::bad_alloc.
std::vector<std::string> decode(Jpegs jpegs, const Crops& crops, int threads, std::span<std::uint8_t> out);

// Decode all pixels of each picture and drop them: why that fails or what libjpeg warns of, "" where nothing.
std::vector<std::string> faults(Jpegs jpegs, int threads);

}  // namespace hpcscale
