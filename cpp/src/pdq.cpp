#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "hpcscale/phash.hpp"
#include "pdq_kernels.hpp"

namespace hpcscale {
namespace {

constexpr std::size_t kLeast = 5;  // sides below this have no hash

const PdqKernels& fastest() {
    static const PdqKernels best = pdq_kernels().back();
    return best;
}

Pixels rows_of(const PdqKernels& variant, std::span<const std::uint8_t> pixels, std::size_t height,
               std::size_t width) {
    const bool rgb = pixels.size() == 3 * height * width;
    if (!rgb && pixels.size() != height * width) {
        throw std::invalid_argument("pdq: a picture of " + std::to_string(height) + " x " +
                                    std::to_string(width) + " needs " + std::to_string(height * width) +
                                    " luma values (or three times as many bytes of RGB), found " +
                                    std::to_string(pixels.size()));
    }
    return {pixels.data(), rgb ? 3 * width : width, height, width, rgb ? variant.rgb_row : variant.grey_row};
}

int transform(const PdqKernels& variant, const Pixels& in, bool skip_blur, Band& out) {
    Small small;
    if (skip_blur) {
        for (std::size_t y = 0; y < kSmall; ++y) {
            in.to_luma(in.first + y * in.row_bytes, kSmall, small[y]);
        }
    } else {
        variant.shrink(in, small);
    }
    variant.frequencies(small, out);
    return variant.quality(small);
}

Code256 bits(const Band& band) {
    float sorted[kBand * kBand];
    std::memcpy(sorted, band, sizeof sorted);
    float* const middle = sorted + kBand * kBand / 2 - 1;
    std::nth_element(sorted, middle, std::end(sorted));
    Code256 code = {};
    for (std::size_t k = 0; k < kBand * kBand; ++k) {
        if (band[k / kBand][k % kBand] > *middle) code[3 - k / 64] |= std::uint64_t{1} << (k % 64);
    }
    return code;
}

Pdq whole(const PdqKernels& variant, const Pixels& in) {
    if (std::min(in.height, in.width) < kLeast) return {};
    Band band;
    const int quality = transform(variant, in, in.height == kSmall && in.width == kSmall, band);
    return {bits(band), quality};
}

// Mirroring a picture changes the sign of its odd frequencies along that side. Index 0 is frequency 1, so odd
// frequencies have even indices.
PdqDihedral dihedral(const PdqKernels& variant, const Pixels& in) {
    if (std::min(in.height, in.width) < kLeast) return {};
    Band band;
    PdqDihedral result{{}, transform(variant, in, false, band)};
    struct Symmetry {
        bool transposed;     // after the signs have changed
        bool rows, columns;  // which odd frequencies change sign: those along i, those along j
    };
    constexpr Symmetry kSymmetries[8] = {{false, false, false}, {true, false, true},  {false, true, true},
                                         {true, true, false},   {false, true, false}, {false, false, true},
                                         {true, false, false},  {true, true, true}};
    for (std::size_t s = 0; s < 8; ++s) {
        const Symmetry& symmetry = kSymmetries[s];
        Band turned;
        for (std::size_t i = 0; i < kBand; ++i) {
            for (std::size_t j = 0; j < kBand; ++j) {
                const bool minus = (symmetry.rows && i % 2 == 0) != (symmetry.columns && j % 2 == 0);
                (symmetry.transposed ? turned[j][i] : turned[i][j]) = minus ? -band[i][j] : band[i][j];
            }
        }
        result.codes[s] = bits(turned);
    }
    return result;
}

}  // namespace

Pdq pdq_of(const Small& small) {
    Band band;
    fastest().frequencies(small, band);
    return {bits(band), fastest().quality(small)};
}

Pdq pdq(std::span<const std::uint8_t> pixels, std::size_t height, std::size_t width) {
    return whole(fastest(), rows_of(fastest(), pixels, height, width));
}
PdqDihedral pdq_dihedral(std::span<const std::uint8_t> pixels, std::size_t height, std::size_t width) {
    return dihedral(fastest(), rows_of(fastest(), pixels, height, width));
}

std::vector<std::string_view> pdq_variants() {
    std::vector<std::string_view> names;
    for (const PdqKernels& variant : pdq_kernels()) names.push_back(variant.name);
    return names;
}

Pdq pdq_by(std::string_view name, std::span<const std::uint8_t> pixels, std::size_t height,
           std::size_t width) {
    for (const PdqKernels& variant : pdq_kernels()) {
        if (variant.name == name) return whole(variant, rows_of(variant, pixels, height, width));
    }
    throw std::invalid_argument("pdq: no variant '" + std::string(name) + "' on this processor");
}

}  // namespace hpcscale
