// Huffman codes of a JPEG as tables by the next bits of the scan. Inside the library only.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "jpeg_file.hpp"

namespace hpcscale {

inline constexpr int kPeek = 10;  // bits that choose an entry: the tables of a picture fit in the first cache
inline constexpr std::size_t kEntries = std::size_t{1} << kPeek;

// How far an entry moves on: bits in the low byte (at most kPeek), coefficients in the high one. All 64
// coefficients of a block then are one comparison of the sum of moves.
using Move = std::uint16_t;
inline constexpr unsigned kCoefficient = 1u << 8;
inline constexpr unsigned kUnknown = 64 * kCoefficient;     // no entry: more bits must be seen
inline constexpr unsigned kBlockEnds = 129 * kCoefficient;  // the symbol for "the rest is 0"

// Bits of a scan from a position on. 57 of them are held at least after `fill`.
struct BitReader {
    const std::uint8_t* data;  // readable 8 bytes beyond every position that is filled from
    std::size_t at = 0;        // the first bit that is held
    std::uint64_t held = 0;    // from the highest on

    [[gnu::always_inline]] inline void fill(std::size_t used) {
        at += used;
        std::uint64_t bytes;
        std::memcpy(&bytes, data + at / 8, sizeof bytes);
        if constexpr (std::endian::native == std::endian::little) bytes = __builtin_bswap64(bytes);
        held = bytes << at % 8;
    }
    std::size_t next() const { return held >> (64 - kPeek); }
};

// One symbol of a code: its length in bits, how many bits of a value follow, how many zeros come before.
struct Symbol {
    std::uint8_t length, size, run;
    bool ends() const { return size == 0 && run < 15; }
    int value(std::uint64_t held) const {
        if (size == 0) return 0;
        const auto bits = static_cast<int>(held << length >> (64 - size));
        return bits < 1 << (size - 1) ? bits - (1 << size) + 1 : bits;
    }
    unsigned used() const { return length + size; }
    unsigned coefficients() const { return ends() ? kBlockEnds / kCoefficient : run + 1u; }
};

class HuffmanTable {
  public:
    // False if the code has symbols that baseline JPEGs do not have.
    bool build(const HuffmanCode& code, bool of_rest);

    // The next symbol; its length is 0 where the bits are none.
    Symbol symbol(std::uint64_t held) const {
        const Symbol found = symbols_[held >> (64 - kPeek)];
        return found.length ? found : long_symbol(held);
    }

    // Coefficients that are to be kept: the next one with its value.
    struct Kept {
        Move move;
        std::int16_t value;
    };
    std::array<Kept, kEntries> kept;
    // Coefficients that are to be dropped: as many as the bits have. Not beyond the end of a block, but
    // blocks also end without a symbol, when they have 64.
    std::array<Move, kEntries> dropped;

  private:
    Symbol long_symbol(std::uint64_t held) const;

    HuffmanCode code_;
    bool built_ = false;
    std::array<Symbol, kEntries> symbols_;
    std::array<std::uint32_t, 17> limits_;  // codes of each length are below
    std::array<std::int32_t, 17> places_;   // of the symbol of code 0 of each length, had it one
};

}  // namespace hpcscale
