#include "hpcscale/phash.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>

#include "x86.hpp"

namespace hpcscale {
namespace {

using Bytes = std::vector<std::uint8_t>;

// --- Pillow's resampling of bytes
//
// Pillow's own gives the same bytes, but hashing a JPEG would then cost half as much again, decoding
// included: benchmarks/records/2026-11-28-resample.md.

constexpr int kPoint = 22;  // bits behind the point of a coefficient
constexpr std::int32_t kHalf = 1 << (kPoint - 1);
constexpr double kLobes = 3.0;

double sinc(double x) { return x == 0.0 ? 1.0 : std::sin(x * M_PI) / (x * M_PI); }
double lanczos(double x) { return -kLobes <= x && x < kLobes ? sinc(x) * sinc(x / kLobes) : 0.0; }

// For every output element: the first input element, and the coefficients of the following ones.
struct Taps {
    std::vector<std::size_t> first, count;
    std::size_t stride;
    std::vector<std::int32_t> coefficients;  // output, tap
};

Taps make_taps(std::size_t in, std::size_t out) {
    const double scale = static_cast<double>(in) / static_cast<double>(out);
    const double stretch = std::max(scale, 1.0), support = kLobes * stretch, shrink = 1.0 / stretch;
    Taps taps;
    taps.stride = static_cast<std::size_t>(std::ceil(support)) * 2 + 1;
    taps.coefficients.resize(out * taps.stride);
    std::vector<double> weights(taps.stride);
    for (std::size_t o = 0; o < out; ++o) {
        const double centre = (static_cast<double>(o) + 0.5) * scale;
        const auto first = static_cast<std::size_t>(std::max(centre - support + 0.5, 0.0));
        const auto end = std::min(static_cast<std::size_t>(centre + support + 0.5), in);
        double sum = 0.0;
        for (std::size_t k = 0; k < end - first; ++k) {
            weights[k] = lanczos((static_cast<double>(k + first) - centre + 0.5) * shrink);
            sum += weights[k];
        }
        for (std::size_t k = 0; k < end - first; ++k) {
            const double fixed = (sum != 0.0 ? weights[k] / sum : weights[k]) * (1 << kPoint);
            taps.coefficients[o * taps.stride + k] =
                static_cast<std::int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5);
        }
        taps.first.push_back(first);
        taps.count.push_back(end - first);
    }
    return taps;
}

// Kept, because thousands of sines per side cost more than the rest of the hash, and pictures of one data set
// share their sizes.
const Taps& taps(std::size_t in, std::size_t out) {
    static thread_local std::map<std::pair<std::size_t, std::size_t>, Taps> known;
    const auto found = known.find({in, out});
    if (found != known.end()) return found->second;
    if (known.size() >= 256) known.clear();
    return known.emplace(std::pair{in, out}, make_taps(in, out)).first->second;
}

std::uint8_t rounded(std::int32_t sum) {
    return static_cast<std::uint8_t>(std::clamp(sum >> kPoint, 0, 255));
}

// (height, width) to (height, taps' outputs), and to (taps' outputs, width).
[[gnu::always_inline]] inline void rows_body(const std::uint8_t* in, std::size_t height, std::size_t width,
                                             const Taps& by, std::uint8_t* out) {
    for (std::size_t y = 0; y < height; ++y) {
        for (std::size_t o = 0; o < by.first.size(); ++o) {
            const std::uint8_t* const from = in + y * width + by.first[o];
            const std::int32_t* const weights = by.coefficients.data() + o * by.stride;
            std::int32_t sum = kHalf;
            for (std::size_t k = 0; k < by.count[o]; ++k) sum += from[k] * weights[k];
            *out++ = rounded(sum);
        }
    }
}
[[gnu::always_inline]] inline void columns_body(const std::uint8_t* in, std::size_t, std::size_t width,
                                                const Taps& by, std::uint8_t* out) {
    std::vector<std::int32_t> sums(width);
    for (std::size_t o = 0; o < by.first.size(); ++o) {
        std::fill(sums.begin(), sums.end(), kHalf);
        for (std::size_t k = 0; k < by.count[o]; ++k) {
            const std::uint8_t* const from = in + (by.first[o] + k) * width;
            const std::int32_t weight = by.coefficients[o * by.stride + k];
            for (std::size_t x = 0; x < width; ++x) sums[x] += from[x] * weight;
        }
        for (const std::int32_t sum : sums) *out++ = rounded(sum);
    }
}

void rows_plain(const std::uint8_t* in, std::size_t h, std::size_t w, const Taps& by, std::uint8_t* out) {
    rows_body(in, h, w, by, out);
}
void columns_plain(const std::uint8_t* in, std::size_t h, std::size_t w, const Taps& by, std::uint8_t* out) {
    columns_body(in, h, w, by, out);
}
#ifdef HPCSCALE_X86
#define AVX2 __attribute__((target("avx2")))
AVX2 void rows_avx2(const std::uint8_t* in, std::size_t h, std::size_t w, const Taps& by, std::uint8_t* out) {
    rows_body(in, h, w, by, out);
}
AVX2 void columns_avx2(const std::uint8_t* in, std::size_t h, std::size_t w, const Taps& by,
                       std::uint8_t* out) {
    columns_body(in, h, w, by, out);
}
#endif

struct Resampling {
    decltype(&rows_plain) rows = rows_plain;
    decltype(&columns_plain) columns = columns_plain;
};

const Resampling& fastest() {
    static const Resampling best = [] {
        Resampling chosen;
#ifdef HPCSCALE_X86
        if (__builtin_cpu_supports("avx2")) chosen = {rows_avx2, columns_avx2};
#endif
        return chosen;
    }();
    return best;
}

Bytes resized(std::span<const std::uint8_t> grey, std::size_t height, std::size_t width, std::size_t rows,
              std::size_t columns) {
    if (grey.size() != height * width || grey.empty()) {
        throw std::invalid_argument("a grey picture of " + std::to_string(height) + " x " +
                                    std::to_string(width) + " needs as many bytes and at least one, found " +
                                    std::to_string(grey.size()));
    }
    Bytes picture;  // empty: still `grey`; like Pillow, leave a side that fits as it is
    const auto now = [&] { return picture.empty() ? grey.data() : picture.data(); };
    const auto across = [&] {
        if (width == columns) return;
        Bytes out(height * columns);
        fastest().rows(now(), height, width, taps(width, columns), out.data());
        picture = std::move(out);
        width = columns;
    };
    const auto down = [&] {
        if (height == rows) return;
        Bytes out(rows * width);
        fastest().columns(now(), height, width, taps(height, rows), out.data());
        picture = std::move(out);
        height = rows;
    };
    // Signed, because a picture may be smaller than its result.
    const auto spare_rows = static_cast<std::ptrdiff_t>(height) - static_cast<std::ptrdiff_t>(rows);
    const auto spare_columns = static_cast<std::ptrdiff_t>(width) - static_cast<std::ptrdiff_t>(columns);
    if (spare_rows > 0 && spare_rows > 2 * spare_columns) {
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
