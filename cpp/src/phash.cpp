#include "hpcscale/phash.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>

#include "resample.hpp"

namespace hpcscale {
namespace {

using Bytes = std::vector<std::uint8_t>;

// --- Pillow's resampling

// Kept, because thousands of sines per side cost more than the rest of the hash, and pictures of one data set
// share their sizes.
const Taps& taps(std::size_t in, std::size_t out) {
    static thread_local std::map<std::pair<std::size_t, std::size_t>, Taps> known;
    const auto found = known.find({in, out});
    if (found != known.end()) return found->second;
    if (known.size() >= 256) known.clear();
    return known.emplace(std::pair{in, out}, make_taps({in, out, 0, out}, kLanczos)).first->second;
}

Bytes resized(std::span<const std::uint8_t> grey, std::size_t height, std::size_t width, std::size_t rows,
              std::size_t columns) {
    if (grey.size() != height * width || grey.empty()) {
        throw std::invalid_argument("a grey picture of " + std::to_string(height) + " x " +
                                    std::to_string(width) + " needs as many bytes and at least one, found " +
                                    std::to_string(grey.size()));
    }
    const bool height_first = down_first(height, width, rows, columns);
    Bytes picture;  // empty: still `grey`; like Pillow, leave a side that fits as it is
    const auto now = [&] { return picture.empty() ? grey.data() : picture.data(); };
    const auto across = [&] {
        if (width == columns) return;
        Bytes out(height * columns);
        const Taps& by = taps(width, columns);
        for (std::size_t y = 0; y < height; ++y)
            resampling().grey(now() + y * width, 0, by, out.data() + y * columns);
        picture = std::move(out);
        width = columns;
    };
    const auto down = [&] {
        if (height == rows) return;
        Bytes out(rows * width);
        const Taps& by = taps(height, rows);
        for (std::size_t o = 0; o < rows; ++o)
            resampling().down(now(), 0, width, by, o, out.data() + o * width);
        picture = std::move(out);
        height = rows;
    };
    if (height_first) {
        down();
        across();
    } else {
        across();
        down();
    }
    return picture.empty() ? Bytes(grey.begin(), grey.end()) : picture;
}

// --- DCT-II

// The first `wanted` frequencies of N values. The even ones are the DCT of the sums of opposite values, the
// odd ones a sum over their differences. So what cancels in exact arithmetic (flat and linear pictures)
// cancels here too, and does not become a random bit.
template <std::size_t N>
void dct(const double* in, std::size_t wanted, double* out) {
    if constexpr (N == 1) {
        out[0] = in[0];
    } else {
        static const auto table = [] {
            std::array<double, 4 * N> cosines{};
            for (std::size_t k = 0; k < 4 * N; ++k)
                cosines[k] = std::cos(M_PI * static_cast<double>(k) / (2.0 * static_cast<double>(N)));
            return cosines;
        }();
        double sums[N / 2], even[N / 2];
        for (std::size_t k = 0; k < N / 2; ++k) sums[k] = in[k] + in[N - 1 - k];
        dct<N / 2>(sums, (wanted + 1) / 2, even);
        for (std::size_t f = 0; f < wanted; f += 2) out[f] = even[f / 2];
        for (std::size_t f = 1; f < wanted; f += 2) {
            double sum = 0.0;
            for (std::size_t k = 0; k < N / 2; ++k)
                sum += (in[k] - in[N - 1 - k]) * table[f * (2 * k + 1) % (4 * N)];
            out[f] = sum;
        }
    }
}

}  // namespace

std::uint64_t phash(std::span<const std::uint8_t> grey, std::size_t height, std::size_t width) {
    constexpr std::size_t kSide = 32, kKept = 8;
    const Bytes small = resized(grey, height, width, kSide, kSide);
    double down[kKept][kSide], band[kKept * kKept];
    for (std::size_t x = 0; x < kSide; ++x) {
        double column[kSide], cosines[kKept];
        for (std::size_t y = 0; y < kSide; ++y) column[y] = small[y * kSide + x];
        dct<kSide>(column, kKept, cosines);
        for (std::size_t f = 0; f < kKept; ++f) down[f][x] = cosines[f];
    }
    for (std::size_t f = 0; f < kKept; ++f) dct<kSide>(down[f], kKept, band + f * kKept);
    double sorted[kKept * kKept];
    std::copy(std::begin(band), std::end(band), sorted);
    std::sort(std::begin(sorted), std::end(sorted));
    const double median = (sorted[31] + sorted[32]) / 2;
    std::uint64_t code = 0;
    for (const double value : band) code = code << 1 | (value > median ? 1 : 0);
    return code;
}

std::uint64_t dhash(std::span<const std::uint8_t> grey, std::size_t height, std::size_t width) {
    constexpr std::size_t kRows = 8, kColumns = 9;
    const Bytes small = resized(grey, height, width, kRows, kColumns);
    std::uint64_t code = 0;
    for (std::size_t y = 0; y < kRows; ++y) {
        for (std::size_t x = 1; x < kColumns; ++x) {
            code = code << 1 | (small[y * kColumns + x] > small[y * kColumns + x - 1] ? 1 : 0);
        }
    }
    return code;
}

}  // namespace hpcscale
