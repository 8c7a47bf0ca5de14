#include "resample.hpp"

#include <algorithm>
#include <cmath>

#include "x86.hpp"

namespace hpcscale {
namespace {

constexpr int kPoint = 22;  // bits behind the point of a coefficient
constexpr std::int32_t kHalf = 1 << (kPoint - 1);
constexpr double kLobes = 3.0;

double sinc(double x) { return x == 0.0 ? 1.0 : std::sin(x * M_PI) / (x * M_PI); }
double lanczos(double x) { return -kLobes <= x && x < kLobes ? sinc(x) * sinc(x / kLobes) : 0.0; }
double triangle(double x) { return std::max(1.0 - std::abs(x), 0.0); }

std::uint8_t rounded(std::int32_t sum) {
    return static_cast<std::uint8_t>(std::clamp(sum >> kPoint, 0, 255));
}

template <std::size_t Channels>
[[gnu::always_inline]] inline void across_body(const std::uint8_t* row, std::size_t base, const Taps& by,
                                               std::uint8_t* out) {
    for (std::size_t o = 0; o < by.first.size(); ++o) {
        const std::uint8_t* const from = row + (by.first[o] - base) * Channels;
        const std::int32_t* const weights = by.coefficients.data() + o * by.stride;
        std::int32_t sums[Channels];
        std::fill_n(sums, Channels, kHalf);
        for (std::size_t k = 0; k < by.count[o]; ++k) {
            for (std::size_t c = 0; c < Channels; ++c) sums[c] += from[k * Channels + c] * weights[k];
        }
        for (const std::int32_t sum : sums) *out++ = rounded(sum);
    }
}

[[gnu::always_inline]] inline void down_body(const std::uint8_t* rows, std::size_t base, std::size_t width,
                                             const Taps& by, std::size_t o, std::uint8_t* out) {
    constexpr std::size_t kBlock = 256;  // sums that stay in the first-level cache
    const std::uint8_t* const first = rows + (by.first[o] - base) * width;
    std::int32_t sums[kBlock];
    for (std::size_t x = 0; x < width; x += kBlock) {
        const std::size_t block = std::min(kBlock, width - x);
        std::fill_n(sums, block, kHalf);
        for (std::size_t k = 0; k < by.count[o]; ++k) {
            const std::uint8_t* const from = first + k * width + x;
            const std::int32_t weight = by.coefficients[o * by.stride + k];
            for (std::size_t i = 0; i < block; ++i) sums[i] += from[i] * weight;
        }
        for (std::size_t i = 0; i < block; ++i) out[x + i] = rounded(sums[i]);
    }
}

void grey_plain(const std::uint8_t* row, std::size_t base, const Taps& by, std::uint8_t* out) {
    across_body<1>(row, base, by, out);
}
void rgb_plain(const std::uint8_t* row, std::size_t base, const Taps& by, std::uint8_t* out) {
    across_body<3>(row, base, by, out);
}
void down_plain(const std::uint8_t* rows, std::size_t base, std::size_t width, const Taps& by, std::size_t o,
                std::uint8_t* out) {
    down_body(rows, base, width, by, o, out);
}
#ifdef HPCSCALE_X86
#define AVX2 __attribute__((target("avx2")))
AVX2 void grey_avx2(const std::uint8_t* row, std::size_t base, const Taps& by, std::uint8_t* out) {
    across_body<1>(row, base, by, out);
}
AVX2 void rgb_avx2(const std::uint8_t* row, std::size_t base, const Taps& by, std::uint8_t* out) {
    across_body<3>(row, base, by, out);
}
AVX2 void down_avx2(const std::uint8_t* rows, std::size_t base, std::size_t width, const Taps& by,
                    std::size_t o, std::uint8_t* out) {
    down_body(rows, base, width, by, o, out);
}
#endif

}  // namespace

const Filter kLanczos = {kLobes, lanczos};
const Filter kBilinear = {1.0, triangle};

Taps make_taps(const Scale& scale, const Filter& filter) {
    const double step = static_cast<double>(scale.in) / static_cast<double>(scale.out);
    const double stretch = std::max(step, 1.0), support = filter.support * stretch, shrink = 1.0 / stretch;
    Taps taps;
    taps.stride = static_cast<std::size_t>(std::ceil(support)) * 2 + 1;
    taps.coefficients.resize((scale.to - scale.from) * taps.stride);
    std::vector<double> weights(taps.stride);
    std::int32_t* coefficients = taps.coefficients.data();
    for (std::size_t o = scale.from; o < scale.to; ++o, coefficients += taps.stride) {
        const double centre = (static_cast<double>(o) + 0.5) * step;
        const auto first = static_cast<std::size_t>(std::max(centre - support + 0.5, 0.0));
        const auto end = std::min(static_cast<std::size_t>(centre + support + 0.5), scale.in);
        double sum = 0.0;
        for (std::size_t k = 0; k < end - first; ++k) {
            weights[k] = filter.weight((static_cast<double>(k + first) - centre + 0.5) * shrink);
            sum += weights[k];
        }
        for (std::size_t k = 0; k < end - first; ++k) {
            const double fixed = (sum != 0.0 ? weights[k] / sum : weights[k]) * (1 << kPoint);
            coefficients[k] = static_cast<std::int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5);
        }
        taps.first.push_back(first);
        taps.count.push_back(end - first);
    }
    return taps;
}

bool down_first(std::size_t height, std::size_t width, std::size_t rows, std::size_t columns) {
    // Signed, because a picture may be smaller than its result.
    const auto spare_rows = static_cast<std::ptrdiff_t>(height) - static_cast<std::ptrdiff_t>(rows);
    const auto spare_columns = static_cast<std::ptrdiff_t>(width) - static_cast<std::ptrdiff_t>(columns);
    return spare_rows > 0 && spare_rows > 2 * spare_columns;
}

const Resampling& resampling() {
    static const Resampling best = [] {
        Resampling chosen = {grey_plain, rgb_plain, down_plain};
#ifdef HPCSCALE_X86
        if (__builtin_cpu_supports("avx2")) chosen = {grey_avx2, rgb_avx2, down_avx2};
#endif
        return chosen;
    }();
    return best;
}

}  // namespace hpcscale
