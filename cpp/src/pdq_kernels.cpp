#include "pdq_kernels.hpp"

#include <algorithm>
#include <cmath>

#include "pdq_shrink.hpp"
#include "pdq_vectors.hpp"
#include "x86.hpp"

namespace hpcscale {
namespace {

// --- rows to float

INLINE void grey_row_body(const std::uint8_t* in, std::size_t width, float* out) {
    for (std::size_t x = 0; x < width; ++x) out[x] = in[x];
}
// Whole numbers below 2^24 and one division give the nearest float, and so does the reference's sum in
// double.
INLINE void rgb_row_body(const std::uint8_t* in, std::size_t width, float* out) {
    for (std::size_t x = 0; x < width; ++x) {
        const int n = 299 * in[3 * x] + 587 * in[3 * x + 1] + 114 * in[3 * x + 2];
        out[x] = static_cast<float>(n) / 1000.0f;
    }
}

// --- frequencies

struct Cosines {
    float rows[kBand][kSmall];     // frequency, sample
    float columns[kSmall][kBand];  // the same, transposed
    Cosines() {
        const float scale = static_cast<float>(std::sqrt(2.0 / 64.0));
        for (std::size_t i = 0; i < kBand; ++i) {
            for (std::size_t k = 0; k < kSmall; ++k) {
                const double angle =
                    (M_PI / 2.0 / 64.0) * static_cast<double>(i + 1) * static_cast<double>(2 * k + 1);
                rows[i][k] = columns[k][i] = static_cast<float>(scale * std::cos(angle));
            }
        }
    }
};

const Cosines& cosines() {
    static const Cosines table;
    return table;
}

// Sums run over k in order, product by product, without fused multiply-add: Meta's rounding.
template <int L, typename V = typename Lanes<L>::V>
INLINE void frequencies_body(const Small& small, Band& out) {
    const Cosines& table = cosines();
    float half[kBand][kSmall];
    for (std::size_t j = 0; j < kSmall; j += L) {
        V sum[kBand] = {};
        for (std::size_t k = 0; k < kSmall; ++k) {
            V a;
            load(a, &small[k][j]);
#pragma GCC unroll 16
            for (std::size_t i = 0; i < kBand; ++i) sum[i] += table.rows[i][k] * a;
        }
        for (std::size_t i = 0; i < kBand; ++i) store(&half[i][j], sum[i]);
    }
    for (std::size_t j = 0; j < kBand; j += L) {
        V sum[kBand] = {};
        for (std::size_t k = 0; k < kSmall; ++k) {
            V d;
            load(d, &table.columns[k][j]);
#pragma GCC unroll 16
            for (std::size_t i = 0; i < kBand; ++i) sum[i] += half[i][k] * d;
        }
        for (std::size_t i = 0; i < kBand; ++i) store(&out[i][j], sum[i]);
    }
}

INLINE int quality_body(const Small& small) {
    int sum = 0;
    for (std::size_t i = 0; i < kSmall; ++i) {
        for (std::size_t j = 0; j < kSmall; ++j) {
            const int below =
                i + 1 < kSmall ? static_cast<int>((small[i][j] - small[i + 1][j]) * 100 / 255) : 0;
            const int right =
                j + 1 < kSmall ? static_cast<int>((small[i][j] - small[i][j + 1]) * 100 / 255) : 0;
            sum += std::abs(below) + std::abs(right);
        }
    }
    return std::min(sum / 90, 100);
}

// --- variants

#define VARIANT(NAME, LANES, TARGET)                                                                        \
    TARGET void grey_row_##NAME(const std::uint8_t* p, std::size_t n, float* o) { grey_row_body(p, n, o); } \
    TARGET void rgb_row_##NAME(const std::uint8_t* p, std::size_t n, float* o) { rgb_row_body(p, n, o); }   \
    TARGET void shrink_##NAME(const Pixels& p, Small& s) { shrink_body<LANES>(p, s); }                      \
    TARGET void frequencies_##NAME(const Small& s, Band& b) { frequencies_body<LANES>(s, b); }              \
    TARGET int quality_##NAME(const Small& s) { return quality_body(s); }

#define NAMED(NAME) #NAME, grey_row_##NAME, rgb_row_##NAME, shrink_##NAME, frequencies_##NAME, quality_##NAME

VARIANT(plain, 4, )
#ifdef HPCSCALE_X86
VARIANT(avx2, 8, __attribute__((target("avx2"))))
VARIANT(avx512, 16, __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))))
#endif

}  // namespace

std::vector<PdqKernels> pdq_kernels() {
    std::vector<PdqKernels> here = {{NAMED(plain)}};
#ifdef HPCSCALE_X86
    if (__builtin_cpu_supports("avx2")) here.push_back({NAMED(avx2)});
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        here.push_back({NAMED(avx512)});
    }
#endif
    return here;
}

}  // namespace hpcscale
