// PDQ's blur to 64 x 64, on vectors of L floats. For pdq_kernels.cpp alone.
//
// One pass over the picture in groups of L rows; what is kept between groups fits in cache. For filters along
// the rows, the L lanes of a vector are L rows, because a running sum that is split along its row would round
// differently; so rows are transposed before and after. For filters along the columns, lanes are columns. The
// second filter along the rows computes only the 64 columns that are kept, the last filter only the 64 rows.
#pragma once

#include <algorithm>
#include <memory>

#include "pdq_kernels.hpp"
#include "pdq_vectors.hpp"

namespace hpcscale {

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

inline std::size_t kept(std::size_t k, std::size_t size) {
    return static_cast<std::size_t>((static_cast<double>(k) + 0.5) * static_cast<double>(size) / kSmall);
}

inline std::size_t padded(std::size_t n) { return (n + kPixels - 1) / kPixels * kPixels; }

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

// The four filters, in their order, and what they leave for each other.
template <int L>
struct Shrink {
    using V = typename Lanes<L>::V;
    const std::size_t height, width;
    const Box across, down;
    const std::size_t stride;  // of a row: width, padded to whole vectors
    const std::size_t held;    // rows of the first filter that the next one still needs
    float* ring;               // first filter along rows, by row modulo `held`
    float* zeros;
    float* sums;     // running sums along columns
    float* counts;   // by which a sum along a row is divided
    float* rows;     // first filter along columns: L rows that wait for the second one along rows
    float* columns;  // L rows transposed, with zeros before and behind the picture
    float* narrow;   // second filter along rows, kept columns only
    std::size_t keep[kSmall];

    INLINE Shrink(std::size_t h, std::size_t w, Buffers& buffers)
        : height(h), width(w), across(w), down(h), stride(padded(w)), held(down.lead + down.lag + L) {
        const std::size_t margin = (across.lead + across.lag) * L + L * kPixels;
        float* at = buffers.get((held + 3 + 2 * L) * stride + margin + (height + 1) * kSmall);
        const auto take = [&at](std::size_t floats) __attribute__((always_inline)) {
            float* const taken = at;
            at += floats;
            return taken;
        };
        ring = take(held * stride);
        zeros = take(stride);
        sums = take(stride);
        counts = take(stride);
        rows = take(L * stride);
        columns = take(stride * L + margin) + across.lag * L;
        narrow = take(height * kSmall);
        std::fill(zeros, zeros + stride, 0.0f);
        std::fill(sums, sums + stride, 0.0f);
        std::fill(columns - across.lag * L, columns, 0.0f);
        std::fill(counts, counts + stride, 1.0f);
        for (std::size_t x = 0; x < width; ++x) counts[x] = across.count(x);
        for (std::size_t k = 0; k < kSmall; ++k) keep[k] = kept(k, width);
    }

    INLINE float* ring_row(std::size_t y) const { return ring + (y % held) * stride; }

    // L rows to columns, and in `sum` the sum before the first output. Beyond the picture, zeros are added
    // and subtracted, which changes no sum: the borders need no case of their own.
    INLINE void to_columns(const float* const (&from)[L], V& sum) const {
        for (std::size_t x = 0; x < stride; x += L) {
            V v[L];
#pragma GCC unroll 16
            for (int i = 0; i < L; ++i) load(v[i], from[i] + x);
            transpose<L>(v);
#pragma GCC unroll 16
            for (int i = 0; i < L; ++i) store(columns + (x + i) * L, v[i]);
        }
        std::fill(columns + width * L, columns + (width + across.lead) * L + L * kPixels, 0.0f);
        sum = V{};
        for (std::size_t x = 0; x < across.lead; ++x) {
            V add;
            load(add, columns + x * L);
            sum += add;
        }
    }

    // One step of the running sum along rows, to output x.
    INLINE void slide(std::size_t x, V& sum) const {
        V add, subtract;
        load(add, columns + (x + across.lead) * L);
        load(subtract, columns + x * L - across.lag * L);
        sum += add;
        sum -= subtract;
    }

    // First filter along rows: `here` rows of the ring from `first` on, in their place.
    INLINE void along_rows(std::size_t first, std::size_t here) {
        const float* from[L];
        float* to[L];
        // Beyond the last row, the last row again: it gets the same results once more.
        for (std::size_t i = 0; i < L; ++i) {
            to[i] = ring_row(first + std::min(i, here - 1));
            from[i] = to[i];
        }
        V sum;
        to_columns(from, sum);
        for (std::size_t x = 0; x < stride; x += L) {
            V v[L];
#pragma GCC unroll 16
            for (int i = 0; i < L; ++i) {
                slide(x + i, sum);
                v[i] = sum / counts[x + i];
            }
            transpose<L>(v);
#pragma GCC unroll 16
            for (int i = L - 1; i >= 0; --i) store(to[i] + x, v[i]);
        }
    }

    // First filter along columns: output row y.
    INLINE void along_columns(std::size_t y, float* mean) {
        if (y == 0) {
            for (std::size_t lead = 0; lead < down.lead; ++lead) {
                const float* const add = ring_row(lead);
                for (std::size_t x = 0; x < stride; ++x) sums[x] += add[x];
            }
        }
        const float* const add = y + down.lead < height ? ring_row(y + down.lead) : zeros;
        const float* const subtract = y >= down.lag ? ring_row(y - down.lag) : zeros;
        const float count = down.count(y);
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
    }

    // Second filter along rows: `waiting` rows, which are rows [done, done + waiting) of the picture.
    INLINE void along_rows_again(std::size_t waiting, std::size_t done) {
        const float* from[L];
        for (std::size_t i = 0; i < L; ++i) from[i] = rows + i * stride;
        V sum;
        to_columns(from, sum);
        std::size_t x = 0;
        float means[kSmall][L];
        for (std::size_t k = 0; k < kSmall; ++k) {
            for (; x <= keep[k]; ++x) slide(x, sum);
            const V mean = sum / counts[keep[k]];
            store(means[k], mean);
        }
        for (std::size_t i = 0; i < waiting; ++i) {
            for (std::size_t k = 0; k < kSmall; ++k) narrow[(done + i) * kSmall + k] = means[k][i];
        }
    }

    // Second filter along columns.
    INLINE void along_columns_again(Small& out) const {
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
};

template <int L>
INLINE void shrink_body(const Pixels& in, Small& out) {
    static thread_local Buffers buffers;
    Shrink<L> shrink(in.height, in.width, buffers);
    std::size_t blurred = 0;  // rows that have left the first filter along columns
    std::size_t done = 0;     // those of them that have left the second filter along rows too
    for (std::size_t first = 0; first < in.height; first += L) {
        const std::size_t read = std::min<std::size_t>(first + L, in.height);
        for (std::size_t y = first; y < read; ++y) {
            float* const to = shrink.ring_row(y);
            in.to_luma(in.first + y * in.row_bytes, in.width, to);
            std::fill(to + in.width, to + shrink.stride, 0.0f);
        }
        shrink.along_rows(first, read - first);
        while (blurred < in.height && (blurred + shrink.down.lead < read || read == in.height)) {
            shrink.along_columns(blurred, shrink.rows + (blurred - done) * shrink.stride);
            ++blurred;
            if (blurred - done < L && blurred < in.height) continue;
            shrink.along_rows_again(blurred - done, done);
            done = blurred;
        }
    }
    shrink.along_columns_again(out);
}

}  // namespace hpcscale
