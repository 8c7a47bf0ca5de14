#include "pdq_kernels.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

// Vectors are passed by reference only, so the convention for passing them by value does not matter.
#pragma GCC diagnostic ignored "-Wpsabi"

#define INLINE [[gnu::always_inline]] inline

namespace hpcscale {
namespace {

constexpr std::size_t kPixels = 16;  // buffers are padded to whole vectors of the widest variant

// A running mean over `size` elements: where it adds, where it subtracts and what it divides by. Output o is
// the mean of elements [o - lag + 1, o + lead], cut at the ends. The order add, subtract, divide is Meta's
// and fixes the rounding.
struct Box {
    std::size_t size, lead, lag;
    explicit Box(std::size_t n) : size(n) {
        const std::size_t window = (n + 2 * kSmall - 1) / (2 * kSmall);
        lead = (window + 2) / 2 - 1;
        lag = window - lead;
    }
    float count(std::size_t o) const {
        return static_cast<float>(std::min(o + lead + 1, size) - (o < lag ? 0 : o - lag + 1));
    }
};

std::size_t kept(std::size_t k, std::size_t size) {
    return static_cast<std::size_t>((static_cast<double>(k) + 0.5) * static_cast<double>(size) / kSmall);
}

// --- rows to float

INLINE void float_row_body(const void* pixels, std::size_t width, float* out) {
    std::memcpy(out, pixels, width * sizeof(float));
}
INLINE void grey_row_body(const void* pixels, std::size_t width, float* out) {
    const auto* in = static_cast<const std::uint8_t*>(pixels);
    for (std::size_t x = 0; x < width; ++x) out[x] = in[x];
}
// Whole numbers below 2^24 and one division give the nearest float, and so does the reference's sum in
// double.
INLINE void rgb_row_body(const void* pixels, std::size_t width, float* out) {
    const auto* in = static_cast<const std::uint8_t*>(pixels);
    for (std::size_t x = 0; x < width; ++x) {
        const int n = 299 * in[3 * x] + 587 * in[3 * x + 1] + 114 * in[3 * x + 2];
        out[x] = static_cast<float>(n) / 1000.0f;
    }
}

// --- vectors of L floats

template <int L>
struct Lanes;
template <>
struct Lanes<4> {
    typedef float V __attribute__((vector_size(16)));
    typedef int I __attribute__((vector_size(16)));
    static constexpr I low = {0, 4, 1, 5}, high = {2, 6, 3, 7};
};
template <>
struct Lanes<8> {
    typedef float V __attribute__((vector_size(32)));
    typedef int I __attribute__((vector_size(32)));
    static constexpr I low = {0, 8, 1, 9, 2, 10, 3, 11}, high = {4, 12, 5, 13, 6, 14, 7, 15};
};
template <>
struct Lanes<16> {
    typedef float V __attribute__((vector_size(64)));
    typedef int I __attribute__((vector_size(64)));
    static constexpr I low = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
    static constexpr I high = {8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
};

template <typename V>
INLINE void load(V& v, const float* from) {
    std::memcpy(&v, from, sizeof(V));
}
template <typename V>
INLINE void store(float* to, const V& v) {
    std::memcpy(to, &v, sizeof(V));
}

// Rows to columns: log2(L) rounds that interleave vector i with vector i + L / 2.
template <int L, typename V = typename Lanes<L>::V>
INLINE void transpose(V (&v)[L]) {
#pragma GCC unroll 4
    for (int round = 1; round < L; round *= 2) {
        V t[L];
#pragma GCC unroll 8
        for (int i = 0; i < L / 2; ++i) {
            t[2 * i] = __builtin_shuffle(v[i], v[i + L / 2], Lanes<L>::low);
            t[2 * i + 1] = __builtin_shuffle(v[i], v[i + L / 2], Lanes<L>::high);
        }
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i) v[i] = t[i];
    }
}

// L rows of `width` (padded to whole vectors) to `width` columns of L.
template <int L, typename V = typename Lanes<L>::V>
INLINE void to_columns(const float* rows, std::size_t stride, float* columns) {
    for (std::size_t x = 0; x < stride; x += L) {
        V v[L];
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i) load(v[i], rows + i * stride + x);
        transpose<L>(v);
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i) store(columns + (x + i) * L, v[i]);
    }
}

// --- blur and shrink
//
// One pass over the picture in groups of L rows; what is kept between groups fits in cache. For filters along
// the rows, the L lanes of a vector are L rows, because a running sum that is split along its row would round
// differently; so rows are transposed before and after. For filters along the columns, lanes are columns. The
// second filter along the rows computes only the 64 columns that are kept, the last filter only the 64 rows.

std::size_t padded(std::size_t n) { return (n + kPixels - 1) / kPixels * kPixels; }

// Buffers for one picture. Each thread keeps its own, so that their pages are faulted in only once.
struct Buffers {
    std::unique_ptr<float[]> memory;
    std::size_t capacity = 0;
    float* get(std::size_t floats) {
        if (floats > capacity) {
            memory.reset();
            memory = std::make_unique_for_overwrite<float[]>(floats);
            capacity = floats;
        }
        return memory.get();
    }
};

template <int L, typename V = typename Lanes<L>::V>
INLINE void shrink_body(const void* pixels, std::size_t row_bytes, Row row, std::size_t height,
                        std::size_t width, Small& out) {
    static thread_local Buffers buffers;
    const Box across(width), down(height);
    const std::size_t stride = padded(width);
    // Rows of the first filter that the next one still needs.
    const std::size_t held = down.lead + down.lag + L;
    const std::size_t margin = (across.lead + across.lag) * L + L * kPixels;
    float* at =
        buffers.get(held * stride + 3 * stride + L * stride + stride * L + margin + height * kSmall + kSmall);
    const auto take = [&at](std::size_t floats) __attribute__((always_inline)) {
        float* const taken = at;
        at += floats;
        return taken;
    };
    float* const ring = take(held * stride);  // first filter along rows, by row modulo `held`
    float* const zeros = take(stride);
    float* const sums = take(stride);    // running sums along columns
    float* const counts = take(stride);  // by which a sum along a row is divided
    float* const rows = take(L * stride);
    float* const columns = take(stride * L + margin) + across.lag * L;  // zeros before and behind the picture
    float* const narrow = take(height * kSmall);  // second filter along rows, kept columns only
    std::fill(zeros, zeros + 2 * stride, 0.0f);   // `sums` lie behind `zeros`
    std::fill(columns - across.lag * L, columns, 0.0f);
    std::fill(counts, counts + stride, 1.0f);
    for (std::size_t x = 0; x < width; ++x) counts[x] = across.count(x);
    std::size_t keep[kSmall];
    for (std::size_t k = 0; k < kSmall; ++k) keep[k] = kept(k, width);

    // Beyond the picture, zeros are added and subtracted, which changes no sum: the borders need no case of
    // their own.
    std::size_t blurred = 0;  // rows that have left the first filter along columns
    std::size_t waiting = 0;  // those of them that wait in `rows` for the second filter along rows
    std::size_t done = 0;
    for (std::size_t first = 0; first < height; first += L) {
        const std::size_t here = std::min<std::size_t>(L, height - first);
        for (std::size_t i = 0; i < here; ++i) {
            float* const to = ring + ((first + i) % held) * stride;
            row(static_cast<const std::uint8_t*>(pixels) + (first + i) * row_bytes, width, to);
            std::fill(to + width, to + stride, 0.0f);
        }
        const float* from[L];
        float* to[L];
        // Beyond the last row, the last row again: it gets the same results once more.
        for (std::size_t i = 0; i < L; ++i) {
            to[i] = ring + ((first + std::min(i, here - 1)) % held) * stride;
            from[i] = to[i];
        }
        for (std::size_t x = 0; x < stride; x += L) {
            V v[L];
#pragma GCC unroll 16
            for (int i = 0; i < L; ++i) load(v[i], from[i] + x);
            transpose<L>(v);
#pragma GCC unroll 16
            for (int i = 0; i < L; ++i) store(columns + (x + i) * L, v[i]);
        }
        std::fill(columns + width * L, columns + (width + across.lead) * L + L * kPixels, 0.0f);
        V sum = {};
        for (std::size_t x = 0; x < across.lead; ++x) {
            V add;
            load(add, columns + x * L);
            sum += add;
        }
        for (std::size_t x = 0; x < stride; x += L) {
            V v[L];
#pragma GCC unroll 16
            for (int i = 0; i < L; ++i) {
                V add, subtract;
                load(add, columns + (x + i + across.lead) * L);
                load(subtract, columns + (x + i) * L - across.lag * L);
                sum += add;
                sum -= subtract;
                v[i] = sum / counts[x + i];
            }
            transpose<L>(v);
#pragma GCC unroll 16
            for (int i = L - 1; i >= 0; --i) store(to[i] + x, v[i]);
        }
        const std::size_t read = first + here;
        for (; blurred < height && (blurred + down.lead < read || read == height); ++blurred) {
            if (blurred == 0) {
                for (std::size_t y = 0; y < down.lead; ++y) {
                    const float* const add = ring + (y % held) * stride;
                    for (std::size_t x = 0; x < stride; ++x) sums[x] += add[x];
                }
            }
            const std::size_t plus = blurred + down.lead;
            const float* const add = plus < height ? ring + (plus % held) * stride : zeros;
            const float* const subtract =
                blurred >= down.lag ? ring + ((blurred - down.lag) % held) * stride : zeros;
            const float count = down.count(blurred);
            float* const mean = rows + waiting * stride;
            for (std::size_t x = 0; x < stride; x += L) {
                V s, a, b;
                load(s, sums + x);
                load(a, add + x);
                load(b, subtract + x);
                s += a;
                s -= b;
                store(sums + x, s);
                s /= count;
                store(mean + x, s);
            }
            if (++waiting < L && blurred + 1 < height) continue;
            to_columns<L>(rows, stride, columns);
            std::fill(columns + width * L, columns + (width + across.lead) * L + L * kPixels, 0.0f);
            V running = {};
            for (std::size_t x = 0; x < across.lead; ++x) {
                V a;
                load(a, columns + x * L);
                running += a;
            }
            std::size_t x = 0;
            float means[kSmall][L];
            for (std::size_t k = 0; k < kSmall; ++k) {
                for (; x <= keep[k]; ++x) {
                    V a, b;
                    load(a, columns + (x + across.lead) * L);
                    load(b, columns + x * L - across.lag * L);
                    running += a;
                    running -= b;
                }
                const V mean_k = running / counts[keep[k]];
                store(means[k], mean_k);
            }
            for (std::size_t i = 0; i < waiting; ++i) {
                for (std::size_t k = 0; k < kSmall; ++k) narrow[(done + i) * kSmall + k] = means[k][i];
            }
            done += waiting;
            waiting = 0;
        }
    }

    float total[kSmall] = {};
    for (std::size_t y = 0; y < down.lead; ++y) {
        for (std::size_t k = 0; k < kSmall; ++k) total[k] += narrow[y * kSmall + k];
    }
    std::size_t y = 0;
    for (std::size_t r = 0; r < kSmall; ++r) {
        for (const std::size_t last = kept(r, height); y <= last; ++y) {
            if (y + down.lead < height) {
                for (std::size_t k = 0; k < kSmall; ++k) total[k] += narrow[(y + down.lead) * kSmall + k];
            }
            if (y >= down.lag) {
                for (std::size_t k = 0; k < kSmall; ++k) total[k] -= narrow[(y - down.lag) * kSmall + k];
            }
        }
        const float count = down.count(y - 1);
        for (std::size_t k = 0; k < kSmall; ++k) out[r][k] = total[k] / count;
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

#define VARIANT(NAME, LANES, TARGET)                                                                      \
    TARGET void float_row_##NAME(const void* p, std::size_t n, float* out) { float_row_body(p, n, out); } \
    TARGET void grey_row_##NAME(const void* p, std::size_t n, float* out) { grey_row_body(p, n, out); }   \
    TARGET void rgb_row_##NAME(const void* p, std::size_t n, float* out) { rgb_row_body(p, n, out); }     \
    TARGET void shrink_##NAME(const void* p, std::size_t bytes, Row row, std::size_t h, std::size_t w,    \
                              Small& s) {                                                                 \
        shrink_body<LANES>(p, bytes, row, h, w, s);                                                       \
    }                                                                                                     \
    TARGET void frequencies_##NAME(const Small& s, Band& b) { frequencies_body<LANES>(s, b); }            \
    TARGET int quality_##NAME(const Small& s) { return quality_body(s); }

VARIANT(plain, 4, )
VARIANT(avx2, 8, __attribute__((target("avx2"))))
VARIANT(avx512, 16, __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))))

#define NAMED(NAME)                                                                              \
    #NAME, float_row_##NAME, grey_row_##NAME, rgb_row_##NAME, shrink_##NAME, frequencies_##NAME, \
        quality_##NAME

}  // namespace

std::vector<PdqKernels> pdq_kernels() {
    std::vector<PdqKernels> here = {{NAMED(plain)}};
    if (__builtin_cpu_supports("avx2")) here.push_back({NAMED(avx2)});
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        here.push_back({NAMED(avx512)});
    }
    return here;
}

}  // namespace hpcscale
