// The only file that knows Python. It checks dtype, shape and layout of arrays, and hands pointers and sizes
// to the library.
//
// Arrays that do not fit are refused, never converted: a silent copy of a batch costs more than the work
// itself. The interpreter's lock is released while the library works. Exceptions of the library reach Python
// unchanged: std::invalid_argument as ValueError, std::out_of_range as IndexError.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "hpcscale/decode.hpp"
#include "hpcscale/grouping.hpp"
#include "hpcscale/hamming.hpp"
#include "hpcscale/hierarchy.hpp"
#include "hpcscale/nms.hpp"
#include "hpcscale/permute.hpp"
#include "hpcscale/phash.hpp"
#include "hpcscale/pixels.hpp"
#include "hpcscale/roi_align.hpp"
#include "hpcscale/targets.hpp"

namespace py = pybind11;

namespace {

// "float64 (3, 4)", for messages.
std::string describe(const py::array& array) {
    return py::cast<std::string>(py::str(array.dtype())) + " " +
           py::cast<std::string>(py::str(array.attr("shape"))) +
           (array.flags() & py::array::c_style ? "" : " with gaps between its elements");
}

// Throw TypeError unless `array` is a contiguous array of T with `dimensions` dimensions.
template <typename T>
void expect(const py::array& array, const char* name, py::ssize_t dimensions) {
    if (py::isinstance<py::array_t<T>>(array) && (array.flags() & py::array::c_style) &&
        array.ndim() == dimensions)
        return;
    throw py::type_error(std::string(name) + ": needs a contiguous array of " +
                         py::cast<std::string>(py::str(py::dtype::of<T>())) + " with " +
                         std::to_string(dimensions) + " dimension(s), found " + describe(array));
}

template <typename T>
std::span<const T> read(const py::array& array, const char* name) {
    expect<T>(array, name, 1);
    return {static_cast<const T*>(array.data()), static_cast<std::size_t>(array.size())};
}

// mutable_data() throws ValueError if the array is read-only.
template <typename T>
std::span<T> write(py::array& array, const char* name) {
    expect<T>(array, name, 1);
    return {static_cast<T*>(array.mutable_data()), static_cast<std::size_t>(array.size())};
}

// A NumPy array that takes over the memory of a vector; nothing is copied.
template <typename T>
py::array give(std::vector<T>&& values) {
    auto owned = std::make_unique<std::vector<T>>(std::move(values));
    const py::capsule owner(owned.get(), [](void* p) { delete static_cast<std::vector<T>*>(p); });
    auto* const vector = owned.release();
    return py::array_t<T>(static_cast<py::ssize_t>(vector->size()), vector->data(), owner);
}

// --- labels: hierarchy and targets

hpcscale::Lists lists(const py::array& offsets, const py::array& ids) {
    return {read<std::int64_t>(offsets, "offsets"), read<std::int32_t>(ids, "ids")};
}

py::tuple give(hpcscale::OwnedLists&& lists) {
    return py::make_tuple(give(std::move(lists.offsets)), give(std::move(lists.ids)));
}

std::unique_ptr<hpcscale::TargetRows> target_rows(const hpcscale::Closure& closure, std::size_t lo,
                                                  std::size_t hi, hpcscale::Kind kind, py::array buffer) {
    expect<float>(buffer, "buffer", 2);
    // mutable_data() throws ValueError if the array is read-only.
    auto* const first = static_cast<float*>(buffer.mutable_data());
    auto result = std::make_unique<hpcscale::TargetRows>(closure, lo, hi, kind, first,
                                                         static_cast<std::size_t>(buffer.shape(0)));
    if (static_cast<std::size_t>(buffer.shape(1)) != hi - lo) {
        throw py::value_error("buffer: needs rows of " + std::to_string(hi - lo) + " elements for classes [" +
                              std::to_string(lo) + ", " + std::to_string(hi) + "), found " +
                              describe(buffer));
    }
    return result;
}

void bind_labels(py::module_& m) {
    using namespace hpcscale;
    using unlocked = py::gil_scoped_release;
    m.def("find_cycle", [](const py::array& offsets, const py::array& ids) {
        const Lists parents = lists(offsets, ids);
        const unlocked release;
        return find_cycle(parents);
    });
    m.def("ancestors", [](const py::array& offsets, const py::array& ids) {
        const Lists parents = lists(offsets, ids);
        OwnedLists result;
        {
            const unlocked release;
            result = ancestors(parents);
        }
        return give(std::move(result));
    });
    py::class_<Closure>(m, "Closure")
        .def(py::init([](const py::array& tag_classes, const py::array& offsets, const py::array& ids) {
            const auto classes = read<std::int32_t>(tag_classes, "tag_classes");
            const Lists above = lists(offsets, ids);
            const unlocked release;
            return std::make_unique<Closure>(classes, above);
        }))
        .def("labels", [](const Closure& closure, const py::array& offsets, const py::array& ids) {
            const Lists tags = lists(offsets, ids);
            OwnedLists result;
            {
                const unlocked release;
                result = labels(closure, tags);
            }
            return give(std::move(result));
        });
    py::enum_<Kind>(m, "Kind").value("ones", Kind::ones).value("shares", Kind::shares);
    py::class_<TargetRows>(m, "TargetRows")
        .def(py::init(&target_rows), py::keep_alive<1, 2>(), py::keep_alive<1, 6>())
        .def("fill", [](TargetRows& rows, const py::array& offsets, const py::array& ids) {
            const Lists tags = lists(offsets, ids);
            const unlocked release;
            rows.fill(tags);
        });
}

template <typename Id>
void bind_scatter(py::module_& m, const char* name) {
    m.def(name, [](const py::array& offsets, const py::array& classes, const py::array& ids, py::array next,
                   py::array out) {
        const hpcscale::Lists rows = lists(offsets, classes);
        const auto each = read<Id>(ids, "ids");
        const auto places = write<std::int64_t>(next, "next");
        const auto to = write<Id>(out, "out");
        const py::gil_scoped_release release;
        hpcscale::scatter<Id>(rows, each, places, to);
    });
}

// --- pictures

std::vector<std::span<const std::uint8_t>> files(const py::list& jpegs) {
    std::vector<std::span<const std::uint8_t>> spans;
    for (const auto& jpeg : jpegs) spans.push_back(read<std::uint8_t>(jpeg.cast<py::array>(), "jpegs"));
    return spans;
}

std::span<const std::int32_t> columns(const py::array& array, const char* name, py::ssize_t count) {
    expect<std::int32_t>(array, name, 2);
    if (array.shape(1) != count) {
        throw py::value_error(std::string(name) + ": needs " + std::to_string(count) +
                              " numbers a row, found " + describe(array));
    }
    return {static_cast<const std::int32_t*>(array.data()), static_cast<std::size_t>(array.size())};
}

// `jpegs` keeps the bytes alive. Seven arguments: those of ops.decode.
std::vector<std::string> decode(const py::list& jpegs, const py::array& windows, const py::array& sizes,
                                const py::array& starts, const py::array& mirror, py::array out,
                                int threads) {
    const auto spans = files(jpegs);
    expect<std::uint8_t>(out, "out", 4);
    if (out.shape(1) != out.shape(2) || out.shape(3) != 3)
        throw py::value_error("out: needs (n, crop, crop, 3), found " + describe(out));
    const hpcscale::Crops crops = {columns(windows, "windows", 4), columns(sizes, "sizes", 2),
                                   columns(starts, "starts", 2), read<std::uint8_t>(mirror, "mirror"),
                                   static_cast<std::size_t>(out.shape(1))};
    // mutable_data() throws ValueError if the array is read-only.
    const std::span to(static_cast<std::uint8_t*>(out.mutable_data()), static_cast<std::size_t>(out.size()));
    const py::gil_scoped_release release;
    return hpcscale::decode(spans, crops, threads, to);
}

void bind_decode(py::module_& m) {
    m.def("decode", &decode);
    m.def("jpeg_faults", [](const py::list& jpegs, int threads) {
        const auto spans = files(jpegs);
        const py::gil_scoped_release release;
        return hpcscale::faults(spans, threads);
    });
}

void bind_pixels(py::module_& m) {
    m.def("normalize", [](const py::array& pixels, const py::array& means, const py::array& deviations,
                          py::array out) {
        expect<std::uint8_t>(pixels, "pixels", 4);
        expect<float>(out, "out", 4);
        const auto mean = read<double>(means, "means"), deviation = read<double>(deviations, "deviations");
        if (mean.size() != 3 || deviation.size() != 3 || pixels.shape(3) != 3 ||
            !std::equal(pixels.shape(), pixels.shape() + 4, out.shape())) {
            throw py::value_error(
                "normalize: needs pixels and out of (n, height, width, 3), means and deviations of (3), "
                "found " +
                describe(pixels) + ", " + describe(out) + ", " + describe(means) + " and " +
                describe(deviations));
        }
        hpcscale::Channels channels{};
        for (std::size_t c = 0; c < 3; ++c) {
            channels.mean[c] = static_cast<float>(mean[c]);
            channels.scale[c] = static_cast<float>(1.0 / deviation[c]);
        }
        const std::span in(static_cast<const std::uint8_t*>(pixels.data()),
                           static_cast<std::size_t>(pixels.size()));
        // mutable_data() throws ValueError if the array is read-only.
        const std::span to(static_cast<float*>(out.mutable_data()), static_cast<std::size_t>(out.size()));
        const py::gil_scoped_release release;
        hpcscale::normalize(in, channels, to);
    });
}

// --- perceptual hashes

// A code as the NumPy array (words,) or codes as (rows, words).
template <std::size_t N>
py::array words(const std::array<std::uint64_t, N>& code) {
    return py::array_t<std::uint64_t>(static_cast<py::ssize_t>(N), code.data());
}

struct Sides {
    std::size_t height, width;
    explicit Sides(const py::array& picture)
        : height(static_cast<std::size_t>(picture.shape(0))),
          width(static_cast<std::size_t>(picture.shape(1))) {}
};

template <typename T>
std::span<const T> values(const py::array& array) {
    return {static_cast<const T*>(array.data()), static_cast<std::size_t>(array.size())};
}

// The bytes of (height, width) luma or (height, width, 3) RGB.
std::span<const std::uint8_t> luma_or_rgb(const py::array& picture) {
    const bool rgb = picture.ndim() == 3 && picture.shape(2) == 3;
    expect<std::uint8_t>(picture, "picture", rgb ? 3 : 2);
    return values<std::uint8_t>(picture);
}

std::uint64_t hash_grey(const py::array& grey,
                        std::uint64_t (*hash)(std::span<const std::uint8_t>, std::size_t, std::size_t)) {
    expect<std::uint8_t>(grey, "grey", 2);
    const Sides sides(grey);
    const py::gil_scoped_release release;
    return hash(values<std::uint8_t>(grey), sides.height, sides.width);
}

void bind_hashes(py::module_& m) {
    m.def("pdq", [](const py::array& picture) {
        const auto pixels = luma_or_rgb(picture);
        const Sides sides(picture);
        hpcscale::Pdq result;
        {
            const py::gil_scoped_release release;
            result = hpcscale::pdq(pixels, sides.height, sides.width);
        }
        return py::make_tuple(words(result.code), result.quality);
    });
    m.def("pdq_dihedral", [](const py::array& picture) {
        const auto pixels = luma_or_rgb(picture);
        const Sides sides(picture);
        hpcscale::PdqDihedral result;
        {
            const py::gil_scoped_release release;
            result = hpcscale::pdq_dihedral(pixels, sides.height, sides.width);
        }
        return py::make_tuple(py::array_t<std::uint64_t>({8, 4}, result.codes[0].data()), result.quality);
    });
    m.def("pdq_jpeg", [](const py::array& jpeg) -> py::object {
        const auto file = read<std::uint8_t>(jpeg, "jpeg");
        std::optional<hpcscale::Pdq> result;
        {
            const py::gil_scoped_release release;
            result = hpcscale::pdq_jpeg(file);
        }
        if (!result) return py::none();
        return py::make_tuple(words(result->code), result->quality);
    });
    m.def("pdq_variants", &hpcscale::pdq_variants);
    m.def("pdq_by", [](const std::string& variant, const py::array& picture) {
        const auto pixels = luma_or_rgb(picture);
        const Sides sides(picture);
        const auto [code, quality] = hpcscale::pdq_by(variant, pixels, sides.height, sides.width);
        return py::make_tuple(words(code), quality);
    });
    m.def("phash", [](const py::array& grey) { return hash_grey(grey, hpcscale::phash); });
    m.def("dhash", [](const py::array& grey) { return hash_grey(grey, hpcscale::dhash); });
}

// --- search among codes

hpcscale::Codes codes(const py::array& array, const char* name) {
    expect<std::uint64_t>(array, name, 2);
    if (array.shape(1) != 1 && array.shape(1) != 4) {
        throw py::value_error(std::string(name) + ": needs codes of 1 or 4 words, found " + describe(array));
    }
    return {values<std::uint64_t>(array), static_cast<std::size_t>(array.shape(1))};
}

py::array pairs(std::span<const hpcscale::Pair> found) {
    static_assert(sizeof(hpcscale::Pair) == 3 * sizeof(std::int64_t));
    py::array_t<std::int64_t> out({static_cast<py::ssize_t>(found.size()), py::ssize_t{3}});
    std::copy(found.begin(), found.end(), reinterpret_cast<hpcscale::Pair*>(out.mutable_data()));
    return out;
}

// b: None for a set with itself. found and progress: functions or None. Eight arguments: those of ops.search.
py::array search(const py::array& a, const py::object& b, int radius, int threads, int chunks,
                 const std::string& variant, const py::object& found, const py::object& progress) {
    const hpcscale::Codes first = codes(a, "a");
    const bool self = b.is_none();
    const hpcscale::Codes second = self ? first : codes(b.cast<py::array>(), "b");
    std::vector<hpcscale::Pair> all;
    const hpcscale::Found give = [&](std::span<const hpcscale::Pair> some) {
        if (found.is_none()) {
            all.insert(all.end(), some.begin(), some.end());
        } else {
            const py::gil_scoped_acquire locked;
            found(pairs(some));
        }
    };
    const hpcscale::Progress report = [&](double share) {
        const py::gil_scoped_acquire locked;
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
        if (!progress.is_none()) progress(share);
    };
    const hpcscale::How how{threads, chunks, variant};
    {
        const py::gil_scoped_release release;
        if (self) {
            hpcscale::self_join(first, radius, how, give, report);
        } else {
            hpcscale::search(first, second, radius, how, give, report);
        }
        std::sort(all.begin(), all.end(), [](const hpcscale::Pair& x, const hpcscale::Pair& y) {
            return x.i != y.i ? x.i < y.i : x.j < y.j;
        });
    }
    return pairs(all);
}

void bind_search(py::module_& m) {
    m.def("search", &search);
    m.def("plan", [](const py::array& a, const py::object& b, int radius) {
        const hpcscale::Codes first = codes(a, "a");
        return b.is_none() ? hpcscale::plan(first, radius)
                           : hpcscale::plan(first, codes(b.cast<py::array>(), "b"), radius);
    });
    m.def("hamming_variants", &hpcscale::hamming_variants);
}

// --- order

// keys: one, or one an index; ends: None, or one an index.
py::array permute(const py::array& indices, std::int64_t samples, const py::array& keys,
                  const py::object& ends, bool back) {
    const auto from = read<std::int64_t>(indices, "indices");
    const auto held =
        ends.is_none() ? std::span<const std::int64_t>{} : read<std::int64_t>(ends.cast<py::array>(), "ends");
    const hpcscale::Bijection bijection{samples, read<std::uint64_t>(keys, "keys"), held, back};
    std::vector<std::int64_t> out(from.size());
    {
        const py::gil_scoped_release release;
        hpcscale::permute(from, bijection, out);
    }
    return give(std::move(out));
}

void bind_order(py::module_& m) { m.def("permute", &permute); }

// --- boxes

template <typename T>
void bind_nms(py::module_& m, const char* name) {
    m.def(name, [](const py::array& boxes, const py::array& scores, double threshold) {
        expect<T>(boxes, "boxes", 2);
        if (boxes.shape(1) != 4)
            throw py::value_error("boxes: needs 4 numbers a row, found " + describe(boxes));
        const auto from = values<T>(boxes), by = read<T>(scores, "scores");
        std::vector<std::int64_t> kept;
        {
            const py::gil_scoped_release release;
            kept = hpcscale::nms<T>(from, by, threshold);
        }
        return give(std::move(kept));
    });
}

hpcscale::Maps maps_of(const py::array& maps) {
    const auto side = [&](py::ssize_t i) { return static_cast<std::size_t>(maps.shape(i)); };
    return {side(0), side(1), side(2), side(3)};
}

// `maps` (n, height, width, channels) and `regions` (boxes, rows, columns, channels): one is read, the other
// written.
template <typename T>
hpcscale::Bins bins(const py::array& maps, const py::array& rois, const py::array& regions,
                    std::tuple<double, int, bool> how) {
    expect<T>(maps, "maps", 4);
    expect<T>(rois, "rois", 2);
    expect<T>(regions, "regions", 4);
    if (rois.shape(1) != 5 || regions.shape(0) != rois.shape(0) || regions.shape(3) != maps.shape(3)) {
        throw py::value_error(
            "roi_align: needs maps (n, height, width, channels), rois (boxes, 5) and "
            "regions (boxes, rows, columns, channels), found " +
            describe(maps) + ", " + describe(rois) + " and " + describe(regions));
    }
    const auto [scale, sampling, aligned] = how;
    return {static_cast<std::size_t>(regions.shape(1)), static_cast<std::size_t>(regions.shape(2)), scale,
            sampling, aligned};
}

template <typename T>
void bind_roi_align(py::module_& m, const char* forward, const char* backward) {
    using How = std::tuple<double, int, bool>;
    m.def(forward,
          [](const py::array& maps, const py::array& rois, const How& how, int threads, py::array out) {
              const auto grid = bins<T>(maps, rois, out, how);
              // mutable_data() throws ValueError if the array is read-only.
              const std::span to(static_cast<T*>(out.mutable_data()), static_cast<std::size_t>(out.size()));
              const auto from = values<T>(maps), boxes = values<T>(rois);
              const auto shape = maps_of(maps);
              const py::gil_scoped_release release;
              hpcscale::roi_align<T>(from, shape, boxes, grid, threads, to);
          });
    m.def(backward,
          [](const py::array& gradient, const py::array& rois, const How& how, int threads, py::array maps) {
              const auto grid = bins<T>(maps, rois, gradient, how);
              const std::span to(static_cast<T*>(maps.mutable_data()), static_cast<std::size_t>(maps.size()));
              const auto from = values<T>(gradient), boxes = values<T>(rois);
              const auto shape = maps_of(maps);
              const py::gil_scoped_release release;
              hpcscale::roi_align_gradient<T>(from, shape, boxes, grid, threads, to);
          });
}

void bind_boxes(py::module_& m) {
    bind_nms<float>(m, "nms_32");
    bind_nms<double>(m, "nms_64");
    bind_roi_align<float>(m, "roi_align_32", "roi_align_gradient_32");
    bind_roi_align<double>(m, "roi_align_64", "roi_align_gradient_64");
}

}  // namespace

PYBIND11_MODULE(_ops, m) {
    bind_labels(m);
    bind_scatter<std::uint32_t>(m, "scatter_32");
    bind_scatter<std::uint64_t>(m, "scatter_64");
    bind_decode(m);
    bind_pixels(m);
    bind_hashes(m);
    bind_search(m);
    bind_order(m);
    bind_boxes(m);
}
