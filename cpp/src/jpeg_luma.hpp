// The low frequencies of a JPEG's luma, straight from its Huffman codes. Inside the library only.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "jpeg_huffman.hpp"

namespace hpcscale {

inline constexpr std::size_t kBlock = 8;  // pixels of a block along either side
// Kept are the first 15 coefficients in zigzag order: frequencies u along the row and v along the column with
// u + v < kLow. That of (u, v) has place u * kLanes + v of a block's kPlaced; all other places are 0.
inline constexpr std::size_t kLow = 5, kLanes = 8, kPlaced = kLow * kLanes;

// Reads one picture after another, with memory that is used again.
class LumaReader {
  public:
    // False if the file is of a kind or in a state that is left to libjpeg (`read_jpeg_file`).
    bool open(Bytes jpeg);
    std::size_t height() const { return height_; }
    std::size_t width() const { return width_; }
    // Columns of blocks, and rows that `next` gives at a time. The last ones may lie beyond the picture.
    std::size_t columns() const { return columns_; }
    std::size_t rows() const { return parts_.empty() ? 0 : parts_[0].down; }

    // Dequantised coefficients of the next rows of blocks: rows() * columns() * kPlaced. False if the data is
    // damaged.
    bool next(std::span<float> out);
    // Whether the data ends where the picture does.
    bool ended() const;

  private:
    struct Part {  // of an MCU: the blocks of one component
        std::size_t down, across, first, rest;
    };
    bool unstuff(Bytes scan);
    bool set_tables(const JpegFile& file);
    template <bool keep>
    [[gnu::always_inline]] inline bool block(BitReader& bits, const Part& part, std::int16_t* out);

    std::size_t height_ = 0, width_ = 0, columns_ = 0;
    std::vector<Part> parts_;
    std::array<HuffmanTable, 3> first_, rest_;
    std::array<float, kPlaced> steps_{};  // of quantisation
    std::vector<std::uint8_t> data_;      // the scan without stuffed zeros; kPadding zeros behind
    std::size_t size_ = 0;                // without those
    BitReader bits_{};
    int predicted_ = 0;
};

}  // namespace hpcscale
