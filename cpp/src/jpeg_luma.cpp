#include "jpeg_luma.hpp"

#include <algorithm>
#include <cstring>

namespace hpcscale {
namespace {

// A block has at most 64 symbols of 27 bits; it is checked before each block whether the data has ended.
constexpr std::size_t kPadding = 64 * 27 / 8 + 2 * sizeof(std::uint64_t);

// Where each coefficient goes, by the sum of moves, which is one behind. Those that are not kept go behind
// all.
constexpr unsigned kKept = kLow * (kLow + 1) / 2;
constexpr auto kPlaces = [] {
    std::array<std::uint8_t, 256> places{};
    places.fill(kPlaced);
    for (std::size_t k = 0; k < kKept; ++k)
        places[k + 1] = static_cast<std::uint8_t>(kZigzag[k] % kBlock * kLanes + kZigzag[k] / kBlock);
    return places;
}();

// Sums of moves that end a block: its 64th coefficient, or the symbol for it.
bool is_end(unsigned coefficients) {
    return coefficients == 64 || (coefficients > 128 && coefficients <= 192);
}

}  // namespace

bool LumaReader::open(Bytes jpeg) {
    const std::optional<JpegFile> file = read_jpeg_file(jpeg);
    if (!file || !set_tables(*file) || !unstuff(file->scan)) return false;
    height_ = file->height;
    width_ = file->width;
    const std::size_t across = kBlock * parts_[0].across;
    columns_ = (width_ + across - 1) / across * parts_[0].across;
    for (std::size_t k = 0; k < kKept; ++k) steps_[kPlaces[k + 1]] = file->steps[k];
    bits_ = {data_.data()};
    predicted_ = 0;
    return true;
}

bool LumaReader::set_tables(const JpegFile& file) {
    parts_.clear();
    for (std::size_t c = 0; c < file.components.size(); ++c) {
        const JpegComponent& component = file.components[c];
        // Both colours have one code as a rule.
        const bool same = c == 2 && component.first == file.components[1].first &&
                          component.rest == file.components[1].rest;
        const std::size_t tables = same ? 1 : c;
        if (!same && (!first_[c].build(component.first, false) || !rest_[c].build(component.rest, true)))
            return false;
        parts_.push_back({component.down, component.across, tables, tables});
    }
    return true;
}

bool LumaReader::unstuff(Bytes scan) {
    if (data_.size() < scan.size() + kPadding) data_.resize(scan.size() + kPadding);
    std::uint8_t* to = data_.data();
    const std::uint8_t *from = scan.data(), *const end = from + scan.size();
    for (;;) {
        const void* const found = std::memchr(from, 0xFF, static_cast<std::size_t>(end - from));
        if (found == nullptr) return false;
        const auto* const mark = static_cast<const std::uint8_t*>(found);
        to = std::copy(from, mark, to);
        if (mark + 1 == end) return false;
        from = mark + 2;
        if (mark[1] == 0xD9) break;
        if (mark[1] != 0) return false;
        *to++ = 0xFF;
    }
    std::fill_n(to, kPadding, 0);
    size_ = static_cast<std::size_t>(to - data_.data());
    return true;
}

// `out` has kPlaced + 1 places, all 0 but those that are set.
template <bool keep>
bool LumaReader::block(BitReader& bits, const Part& part, std::int16_t* out) {
    constexpr int kSteps = 5;  // moves of a filled reader: 5 * kPeek bits
    bits.fill(0);
    const Symbol dc = first_[part.first].symbol(bits.held);
    if (dc.length == 0) return false;
    if constexpr (keep) {
        predicted_ += dc.value(bits.held);
        out[0] = static_cast<std::int16_t>(predicted_);
    }
    bits.fill(dc.used());
    const HuffmanTable& table = rest_[part.rest];
    unsigned sum = kCoefficient;
    if constexpr (keep) {
        for (;;) {
#pragma GCC unroll 8
            for (int step = 0; step < kSteps; ++step) {
                const auto [move, value] = table.kept[bits.next()];
                sum += move;
                bits.held <<= move & 63;
                out[kPlaces[sum / kCoefficient]] = value;
                if (sum >= kKept * kCoefficient) break;
            }
            bits.fill(sum & 255);
            sum &= ~255u;
            if (sum < kKept * kCoefficient) continue;
            if (sum / kCoefficient < kUnknown / kCoefficient || sum / kCoefficient > 128) break;
            sum -= kUnknown;
            const Symbol symbol = table.symbol(bits.held);
            if (symbol.length == 0) return false;
            sum += symbol.coefficients() * kCoefficient;
            out[kPlaces[sum / kCoefficient]] = static_cast<std::int16_t>(symbol.value(bits.held));
            bits.fill(symbol.used());
            if (sum >= kKept * kCoefficient) break;
        }
        if (sum > 128 * kCoefficient) return true;
    }
    for (;;) {
        Move move = 0;
#pragma GCC unroll 8
        for (int step = 0; step < kSteps; ++step) {
            move = table.dropped[bits.next()];
            sum += move;
            bits.held <<= move & 63;
            if (sum >= 64 * kCoefficient) break;
        }
        if (sum >= 64 * kCoefficient) {
            if (is_end(sum / kCoefficient)) {
                bits.fill(sum & 255);
                return true;
            }
            sum -= move;  // too far, or unknown: one symbol
            bits.fill(sum & 255);
            const Symbol symbol = table.symbol(bits.held);
            if (symbol.length == 0) return false;
            sum = (sum & ~255u) + symbol.coefficients() * kCoefficient;
            bits.fill(symbol.used());
            if (is_end(sum / kCoefficient)) return true;
            if (sum > 64 * kCoefficient) return false;
            continue;
        }
        bits.fill(sum & 255);
        sum &= ~255u;
    }
}

bool LumaReader::next(std::span<float> out) {
    const std::size_t pitch = columns_ * kPlaced, across = parts_[0].across;
    BitReader bits = bits_;
    for (std::size_t mcu = 0; mcu < columns_ / across; ++mcu) {
        for (const Part& part : parts_) {
            for (std::size_t b = 0; b < part.down * part.across; ++b) {
                if (bits.at > 8 * size_) return false;
                if (&part != parts_.data()) {
                    if (!block<false>(bits, part, nullptr)) return false;
                    continue;
                }
                std::int16_t coefficients[kPlaced + 1] = {};
                if (!block<true>(bits, part, coefficients)) return false;
                float* const to = out.data() + b / across * pitch + (mcu * across + b % across) * kPlaced;
                for (std::size_t k = 0; k < kPlaced; ++k)
                    to[k] = static_cast<float>(coefficients[k]) * steps_[k];
            }
        }
    }
    bits_ = bits;
    return true;
}

bool LumaReader::ended() const { return bits_.at <= 8 * size_ && 8 * size_ - bits_.at < 8; }

}  // namespace hpcscale
