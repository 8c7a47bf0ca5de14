#include "hpcscale/pixels.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "x86.hpp"

namespace hpcscale {
namespace {

constexpr std::size_t kChannels = 3;
constexpr float kScale = 1.0f / 255.0f;

using Run = void (*)(const std::uint8_t* in, std::size_t count, float* out);
using Reverse = void (*)(const std::uint8_t* in, std::size_t width, std::uint8_t* out);

float normal(std::uint8_t value) { return (2.0f * static_cast<float>(value) - 255.0f) * kScale; }

void run_plain(const std::uint8_t* in, std::size_t count, float* out) {
    for (std::size_t i = 0; i < count; ++i) out[i] = normal(in[i]);
}

void reverse_plain(const std::uint8_t* in, std::size_t width, std::uint8_t* out) {
    for (std::size_t x = 0; x < width; ++x) {
        for (std::size_t c = 0; c < kChannels; ++c)
            out[kChannels * x + c] = in[kChannels * (width - 1 - x) + c];
    }
}

#ifdef HPCSCALE_X86
// Five pixels at a time, from the end of the row. Each store writes one byte too many; the next one
// overwrites it.
__attribute__((target("ssse3"))) void reverse_ssse3(const std::uint8_t* in, std::size_t width,
                                                    std::uint8_t* out) {
    const __m128i order = _mm_setr_epi8(13, 14, 15, 10, 11, 12, 7, 8, 9, 4, 5, 6, 1, 2, 3, 0);
    std::size_t left = width;  // pixels of `in` that are still to come
    for (; left > 5; left -= 5) {
        const __m128i five = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + kChannels * left - 16));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + kChannels * (width - left)),
                         _mm_shuffle_epi8(five, order));
    }
    reverse_plain(in, left, out + kChannels * (width - left));
}

// Its stores go past the cache: `out` is far larger than the cache and another library reads it next, so to
// load its lines before they are overwritten would cost half as much again. AVX-512, with 16 floats at a
// time, is no faster.
__attribute__((target("avx2"))) void run_avx2(const std::uint8_t* in, std::size_t count, float* out) {
    const __m256 offset = _mm256_set1_ps(255.0f), scale = _mm256_set1_ps(kScale);
    const std::size_t past = reinterpret_cast<std::uintptr_t>(out) % 32;
    // Up to the first aligned value.
    std::size_t i = std::min(count, past == 0 ? 0 : (32 - past) / sizeof(float));
    run_plain(in, i, out);
    for (; i + 8 <= count; i += 8) {
        const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(in + i));
        const __m256 values = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
        const __m256 centred = _mm256_sub_ps(_mm256_add_ps(values, values), offset);
        _mm256_stream_ps(out + i, _mm256_mul_ps(centred, scale));
    }
    run_plain(in + i, count - i, out + i);
}
#endif

struct Variant {
    std::string_view name;
    Run run;
    Reverse reverse;
    bool (*here)();
};

constexpr Variant kVariants[] = {
    {"plain", run_plain, reverse_plain, [] { return true; }},
#ifdef HPCSCALE_X86
    {"avx2", run_avx2, reverse_ssse3, [] { return __builtin_cpu_supports("avx2") != 0; }},
#endif
};

void normalize_with(const Variant& variant, std::span<const std::uint8_t> pixels,
                    std::span<const std::uint8_t> mirror, std::size_t height, std::size_t width,
                    std::span<float> out) {
    const std::size_t row = kChannels * width, picture = height * row;
    if (pixels.size() != mirror.size() * picture || out.size() != pixels.size()) {
        throw std::invalid_argument("normalize: " + std::to_string(mirror.size()) + " pictures of " +
                                    std::to_string(height) + " x " + std::to_string(width) + " x 3 need " +
                                    std::to_string(mirror.size() * picture) + " values, found " +
                                    std::to_string(pixels.size()) + " in and " + std::to_string(out.size()) +
                                    " out");
    }
    // A whole picture is reversed before it is normalised, in a buffer that stays in the second-level cache.
    // Row by row it would take twice as long: ends of rows would share cache lines with stores that go past
    // the cache. The processor does not foresee reads that go backwards in each row; prefetching the rows
    // ahead saves 40 % of the time.
    std::vector<std::uint8_t> reversed(picture + 1);
    for (std::size_t i = 0; i < mirror.size(); ++i) {
        const std::uint8_t* in = pixels.data() + i * picture;
        if (mirror[i] != 0) {
            for (std::size_t y = 0; y < height; ++y) {
                for (std::size_t b = 0; y + 2 < height && b < row; b += 64)
                    __builtin_prefetch(in + (y + 2) * row + b);
                variant.reverse(in + y * row, width, reversed.data() + y * row);
            }
            in = reversed.data();
        }
        variant.run(in, picture, out.data() + i * picture);
    }
#ifdef HPCSCALE_X86
    _mm_sfence();  // the stores that passed the cache are visible to other threads from here on
#endif
}

const Variant& fastest() {
    static const Variant& best = *std::find_if(std::rbegin(kVariants), std::rend(kVariants),
                                               [](const Variant& variant) { return variant.here(); });
    return best;
}

}  // namespace

void normalize(std::span<const std::uint8_t> pixels, std::span<const std::uint8_t> mirror, std::size_t height,
               std::size_t width, std::span<float> out) {
    normalize_with(fastest(), pixels, mirror, height, width, out);
}

std::vector<std::string_view> normalize_variants() {
    std::vector<std::string_view> names;
    for (const Variant& variant : kVariants) {
        if (variant.here()) names.push_back(variant.name);
    }
    return names;
}

void normalize_by(std::string_view name, std::span<const std::uint8_t> pixels,
                  std::span<const std::uint8_t> mirror, std::size_t height, std::size_t width,
                  std::span<float> out) {
    for (const Variant& variant : kVariants) {
        if (variant.name == name && variant.here()) {
            normalize_with(variant, pixels, mirror, height, width, out);
            return;
        }
    }
    throw std::invalid_argument("normalize: no variant '" + std::string(name) + "' on this processor");
}

}  // namespace hpcscale
