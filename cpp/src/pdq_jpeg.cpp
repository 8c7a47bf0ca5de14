// PDQ's blur to 64 x 64 as a linear function of a JPEG's coefficients. No pixel is computed.
//
// Blur and choice of pixels are a sum over the pixels of a column, then of a row, with weights that depend on
// the sides alone. A block's pixels are sums of cosines; so each frequency of a block has a weight, too.
#include <algorithm>
#include <cmath>
#include <map>

#include "hpcscale/phash.hpp"
#include "jpeg_luma.hpp"
#include "pdq_kernels.hpp"
#include "pdq_shrink.hpp"

namespace hpcscale {
namespace {

constexpr std::size_t kSmallest = 257;  // from here on, a box of PDQ is at least 3 pixels wide
constexpr std::size_t kMaxPixels = std::size_t{50} << 20;  // as elsewhere

// Along one side: which blocks each of the 64 kept pixels is made of, and the weights of their frequencies.
struct Weights {
    std::size_t begin[kSmall], end[kSmall];  // blocks
    std::vector<float> values[kSmall];       // kLow of each block
};

Weights make_weights(std::size_t size) {
    const Box box(size);
    const auto reach = [&](std::size_t o) {  // pixels in the mean at o
        return std::pair{o < box.lag ? 0 : o - box.lag + 1, std::min(o + box.lead + 1, size)};
    };
    Weights weights;
    for (std::size_t k = 0; k < kSmall; ++k) {
        const auto [first, last] = reach(kept(k, size));
        const std::size_t begin = reach(first).first, end = reach(last - 1).second;
        std::vector<double> pixels(end - begin);
        for (std::size_t middle = first; middle < last; ++middle) {
            const auto [from, to] = reach(middle);
            for (std::size_t x = from; x < to; ++x)
                pixels[x - begin] += 1.0 / static_cast<double>((last - first) * (to - from));
        }
        weights.begin[k] = begin / kBlock;
        weights.end[k] = (end - 1) / kBlock + 1;
        for (std::size_t block = weights.begin[k]; block < weights.end[k]; ++block) {
            for (std::size_t f = 0; f < kLow; ++f) {
                double sum = 0.0;
                for (std::size_t x = std::max(begin, kBlock * block);
                     x < std::min(end, kBlock * block + kBlock); ++x) {
                    const auto odd = static_cast<double>(2 * (x - kBlock * block) + 1);
                    sum += pixels[x - begin] * std::cos(M_PI / 16.0 * odd * static_cast<double>(f));
                }
                weights.values[k].push_back(static_cast<float>(sum * (f == 0 ? std::sqrt(0.125) : 0.5)));
            }
        }
    }
    return weights;
}

// Kept: pictures of one data set share their sides.
const Weights& weights(std::size_t size) {
    static thread_local std::map<std::size_t, Weights> known;
    const auto found = known.find(size);
    if (found != known.end()) return found->second;
    if (known.size() >= 256) known.clear();
    return known.emplace(size, make_weights(size)).first->second;
}

using Along = Lanes<kLanes>::V;  // a frequency along the row, by those along the column

// Adds one row of blocks, number `y`, to what it is part of.
void add(const float* row, std::size_t y, const Weights& across, const Weights& down, Small& out) {
    float sums[kLow][kSmall];  // by frequency along the column
    for (std::size_t k = 0; k < kSmall; ++k) {
        Along sum = {};
        const float* from = row + across.begin[k] * kPlaced;
        for (const float weight : across.values[k]) {
            Along along;
            load(along, from);
            sum += weight * along;
            from += kLanes;
        }
        for (std::size_t v = 0; v < kLow; ++v) sums[v][k] = sum[v];
    }
    for (std::size_t r = 0; r < kSmall; ++r) {
        if (y < down.begin[r] || y >= down.end[r]) continue;
        const float* const weight = &down.values[r][(y - down.begin[r]) * kLow];
        for (std::size_t k = 0; k < kSmall; ++k) {
            for (std::size_t v = 0; v < kLow; ++v) out[r][k] += weight[v] * sums[v][k];
        }
    }
}

}  // namespace

std::optional<Pdq> pdq_jpeg(std::span<const std::uint8_t> jpeg) {
    static thread_local LumaReader reader;
    static thread_local std::vector<float> rows;
    if (!reader.open(jpeg) || std::min(reader.height(), reader.width()) < kSmallest ||
        reader.height() * reader.width() > kMaxPixels)
        return std::nullopt;
    const Weights &across = weights(reader.width()), &down = weights(reader.height());
    const std::size_t pitch = reader.columns() * kPlaced;
    rows.resize(reader.rows() * pitch);
    Small small = {};
    // Without the 128 that JPEG takes from every pixel: only differences count.
    for (std::size_t y = 0; y < reader.height(); y += reader.rows() * kBlock) {
        if (!reader.next(rows)) return std::nullopt;
        for (std::size_t r = 0; r < reader.rows(); ++r)
            add(rows.data() + r * pitch, y / kBlock + r, across, down, small);
    }
    if (!reader.ended()) return std::nullopt;
    return pdq_of(small);
}

}  // namespace hpcscale
