#include "hpcscale/decode.hpp"

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <utility>

#include "jpeg_reader.hpp"
#include "resample.hpp"
#include "reverse.hpp"
#include "threads.hpp"

namespace hpcscale {
namespace {

constexpr std::int32_t kMaxSide = 65500;  // of a JPEG, and here of what one is resized to

// The outputs that a crop shows of one direction of a window.
struct Axis {
    std::size_t at, length;  // of the window, in the picture
    std::size_t size, start;
    bool resized() const { return size != length; }
};

// One row of Crops.
struct Cut {
    Axis down, across;
    bool mirror;
};

Cut cut_of(const Crops& crops, std::size_t row) {
    const auto axis = [&](std::size_t side) {
        const auto value = [&](std::span<const std::int32_t> values, std::size_t at) {
            return static_cast<std::size_t>(values[at]);
        };
        return Axis{value(crops.windows, 4 * row + side), value(crops.windows, 4 * row + 2 + side),
                    value(crops.sizes, 2 * row + side), value(crops.starts, 2 * row + side)};
    };
    return {axis(0), axis(1), crops.mirror[row] != 0};
}

void check_threads(int threads) {
    if (threads < 1 || threads > 4096)
        throw std::invalid_argument("decode: threads must be 1 to 4096, found " + std::to_string(threads));
}

void check(Jpegs jpegs, const Crops& crops, int threads, std::size_t bytes) {
    const std::size_t n = jpegs.size();
    if (crops.windows.size() != 4 * n || crops.sizes.size() != 2 * n || crops.starts.size() != 2 * n ||
        crops.mirror.size() != n || bytes != n * crops.crop * crops.crop * kChannels) {
        throw std::invalid_argument("decode: " + std::to_string(n) +
                                    " pictures need as many windows, sizes, starts, flags and rows of out");
    }
    check_threads(threads);
    if (crops.crop < 1) throw std::invalid_argument("decode: a crop needs at least 1 pixel");
    const auto crop = static_cast<std::int64_t>(crops.crop);
    for (std::size_t row = 0; row < n; ++row) {
        for (std::size_t side = 0; side < 2; ++side) {
            const std::int32_t at = crops.windows[4 * row + side], length = crops.windows[4 * row + 2 + side],
                               size = crops.sizes[2 * row + side], start = crops.starts[2 * row + side];
            if (at >= 0 && length >= 1 && size >= 1 && size <= kMaxSide && start >= 0 && start + crop <= size)
                continue;
            throw std::invalid_argument("decode: row " + std::to_string(row) + ": " +
                                        (side == 0 ? "rows" : "columns") + " of a window from " +
                                        std::to_string(at) + " on, " + std::to_string(length) +
                                        ", resized to " + std::to_string(size) + ", hold no crop of " +
                                        std::to_string(crop) + " from " + std::to_string(start) + " on");
        }
    }
}

// Decodes one row after another, with memory that is used again.
class Worker {
  public:
    explicit Worker(std::size_t crop) : crop_(crop) {}

    void decode(std::span<const std::uint8_t> jpeg, const Cut& cut, std::uint8_t* out) {
        reader_.open(jpeg);
        expect(cut);
        const std::optional<Taps> down = taps(cut.down), across = taps(cut.across);
        const auto [top, height] = needed(cut.down, down);
        const auto [left, width] = needed(cut.across, across);
        reader_.begin({top, left, height, width});
        line_.resize(kChannels * crop_);
        const auto shrunk = [&](const std::uint8_t* row) {
            if (across) resampling().rgb(row, across->begin(), *across, line_.data());
            return across ? line_.data() : row;
        };
        if (!down) {
            for (std::size_t y = 0; y < crop_; ++y) put(shrunk(reader_.next()), cut, y, out);
            return;
        }
        const bool late = down_first(cut.down.length, cut.across.length, cut.down.size, cut.across.size);
        const std::size_t row = kChannels * (late ? width : crop_);
        rows_.resize(height * row);
        for (std::size_t y = 0; y < height; ++y) {
            const std::uint8_t* const from = reader_.next();
            std::copy_n(late ? from : shrunk(from), row, rows_.data() + y * row);
        }
        output_.resize(row);
        for (std::size_t o = 0; o < crop_; ++o) {
            resampling().down(rows_.data(), down->begin(), row, *down, o, output_.data());
            put(late ? shrunk(output_.data()) : output_.data(), cut, o, out);
        }
    }

    std::string faults(std::span<const std::uint8_t> jpeg) {
        reader_.open(jpeg);
        reader_.begin({0, 0, reader_.height(), reader_.width()});
        for (std::size_t y = 0; y < reader_.height(); ++y) reader_.next();
        reader_.finish();
        return reader_.warning();
    }

  private:
    void expect(const Cut& cut) const {
        const Axis &down = cut.down, &across = cut.across;
        if (down.at + down.length <= reader_.height() && across.at + across.length <= reader_.width()) return;
        throw BadJpeg("it is " + std::to_string(reader_.height()) + " x " + std::to_string(reader_.width()) +
                      " pixels; needed are " + std::to_string(down.length) + " x " +
                      std::to_string(across.length) + " at " + std::to_string(down.at) + ", " +
                      std::to_string(across.at));
    }

    std::optional<Taps> taps(const Axis& axis) const {
        if (!axis.resized()) return std::nullopt;
        return make_taps({axis.length, axis.size, axis.start, axis.start + crop_}, kBilinear);
    }

    // The first row or column of the picture that the crop needs, and how many.
    std::pair<std::size_t, std::size_t> needed(const Axis& axis, const std::optional<Taps>& by) const {
        if (by) return {axis.at + by->begin(), by->end() - by->begin()};
        return {axis.at + axis.start, crop_};
    }

    void put(const std::uint8_t* row, const Cut& cut, std::size_t y, std::uint8_t* out) const {
        std::uint8_t* const to = out + y * kChannels * crop_;
        if (cut.mirror) {
            reverse_(row, crop_, to);
        } else {
            std::copy_n(row, kChannels * crop_, to);
        }
    }

    std::size_t crop_;
    JpegReader reader_;
    const Reverse reverse_ = fastest_reverse();
    std::vector<std::uint8_t>
        rows_;  // of the part; already of the crop's width, unless the height goes first
    std::vector<std::uint8_t> line_, output_;  // one row after either direction
};

// What `work` says of each row: its own words, or those of BadJpeg.
template <typename Work>
std::vector<std::string> each(std::size_t rows, std::size_t crop, int threads, const Work& work) {
    std::vector<std::string> reasons(rows);
    std::vector<std::optional<Worker>> workers(static_cast<std::size_t>(threads));
    for_each(rows, threads, [&](int thread, std::size_t row) {
        std::optional<Worker>& worker = workers[static_cast<std::size_t>(thread)];
        if (!worker) worker.emplace(crop);
        try {
            reasons[row] = work(*worker, row);
        } catch (const BadJpeg& bad) {
            reasons[row] = bad.what();
        }
    });
    return reasons;
}

}  // namespace

std::vector<std::string> decode(Jpegs jpegs, const Crops& crops, int threads, std::span<std::uint8_t> out) {
    check(jpegs, crops, threads, out.size());
    const std::size_t picture = crops.crop * crops.crop * kChannels;
    return each(jpegs.size(), crops.crop, threads, [&](Worker& worker, std::size_t row) {
        worker.decode(jpegs[row], cut_of(crops, row), out.data() + row * picture);
        return "";
    });
}

std::vector<std::string> faults(Jpegs jpegs, int threads) {
    check_threads(threads);
    return each(jpegs.size(), 0, threads,
                [&](Worker& worker, std::size_t row) { return worker.faults(jpegs[row]); });
}

}  // namespace hpcscale
