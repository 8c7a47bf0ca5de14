#include "jpeg_huffman.hpp"

#include <algorithm>

namespace hpcscale {
namespace {

constexpr unsigned kMaxFirst = 11, kMaxRest = 10;  // bits of a coefficient of 8-bit pictures

Symbol symbol_of(std::uint8_t byte, std::size_t length) {
    return {static_cast<std::uint8_t>(length), static_cast<std::uint8_t>(byte & 15),
            static_cast<std::uint8_t>(byte >> 4)};
}

}  // namespace

bool HuffmanTable::build(const HuffmanCode& code, bool of_rest) {
    if (built_ && code == code_) return true;  // most pictures of a data set have the same
    built_ = false;
    code_ = code;
    symbols_.fill({});
    std::uint32_t next = 0;
    std::int32_t place = 0;
    for (std::size_t length = 1; length <= 16; ++length, next <<= 1) {
        places_[length] = place - static_cast<std::int32_t>(next);
        for (unsigned n = 0; n < code.counts[length]; ++n, ++next, ++place) {
            const Symbol symbol = symbol_of(code.symbols[static_cast<std::size_t>(place)], length);
            if (symbol.size > (of_rest ? kMaxRest : kMaxFirst) || (!of_rest && symbol.run > 0)) return false;
            if (length > kPeek) continue;
            const std::size_t copies = kEntries >> length;
            std::fill_n(symbols_.begin() + static_cast<std::ptrdiff_t>(next * copies), copies, symbol);
        }
        limits_[length] = next;
    }
    built_ = true;
    if (!of_rest) return true;
    for (std::size_t bits = 0; bits < kEntries; ++bits) {
        const Symbol symbol = symbols_[bits];
        kept[bits] = {kUnknown, 0};
        if (symbol.length == 0 || symbol.used() > kPeek) continue;
        kept[bits] = {static_cast<Move>(symbol.coefficients() * kCoefficient + symbol.used()),
                      static_cast<std::int16_t>(symbol.value(std::uint64_t{bits} << (64 - kPeek)))};
    }
    for (std::size_t bits = 0; bits < kEntries; ++bits) {
        unsigned used = 0, coefficients = 0;
        while (coefficients < 63 && used < kPeek) {
            const Move move = kept[bits << used & (kEntries - 1)].move;
            const unsigned more = move & 255, further = move / kCoefficient;
            // No sum of moves may be taken for that of another case, so an entry has at most 63.
            if (more == 0 || used + more > kPeek || coefficients + further % 128 > 63) break;
            used += more;
            coefficients += further;
        }
        dropped[bits] = static_cast<Move>(used == 0 ? kUnknown : coefficients * kCoefficient + used);
    }
    return true;
}

Symbol HuffmanTable::long_symbol(std::uint64_t held) const {
    for (std::size_t length = kPeek + 1; length <= 16; ++length) {
        const auto code = static_cast<std::uint32_t>(held >> (64 - length));
        if (code < limits_[length]) {
            const auto place = static_cast<std::size_t>(places_[length] + static_cast<std::int32_t>(code));
            return symbol_of(code_.symbols[place], length);
        }
    }
    return {};
}

}  // namespace hpcscale
