#include "hpcscale/pixels.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "x86.hpp"

namespace hpcscale {
namespace {

using Run = void (*)(const std::uint8_t* in, std::size_t begin, std::size_t end, const Channels& channels,
                     float* out);

// Values [begin, end).
void run_plain(const std::uint8_t* in, std::size_t begin, std::size_t end, const Channels& channels,
               float* out) {
    for (std::size_t i = begin; i < end; ++i)
        out[i] = (static_cast<float>(in[i]) - channels.mean[i % 3]) * channels.scale[i % 3];
}

#ifdef HPCSCALE_X86
// Its stores go past the cache: `out` is far larger than the cache and another library reads it next, so to
// load its lines before they are overwritten would cost half as much again. AVX-512, with 16 floats at a
// time, is no faster.
__attribute__((target("avx2"))) void run_avx2(const std::uint8_t* in, std::size_t begin, std::size_t end,
                                              const Channels& channels, float* out) {
    const std::size_t past = reinterpret_cast<std::uintptr_t>(out + begin) % 32;
    // Up to the first aligned value.
    std::size_t i = std::min(end, begin + (past == 0 ? 0 : (32 - past) / sizeof(float)));
    run_plain(in, begin, i, channels, out);
    // Three vectors are eight pixels, whose channels come as they come at i.
    __m256 mean[3], scale[3];
    for (std::size_t k = 0; k < 3; ++k) {
        alignas(32) float means[8], scales[8];
        for (std::size_t j = 0; j < 8; ++j) {
            means[j] = channels.mean[(i + 8 * k + j) % 3];
            scales[j] = channels.scale[(i + 8 * k + j) % 3];
        }
        mean[k] = _mm256_load_ps(means);
        scale[k] = _mm256_load_ps(scales);
    }
    for (; i + 24 <= end; i += 24) {
        for (std::size_t k = 0; k < 3; ++k) {
            const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(in + i + 8 * k));
            const __m256 values = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
            _mm256_stream_ps(out + i + 8 * k, _mm256_mul_ps(_mm256_sub_ps(values, mean[k]), scale[k]));
        }
    }
    run_plain(in, i, end, channels, out);
    _mm_sfence();  // the stores that passed the cache are visible to other threads from here on
}
#endif

struct Variant {
    std::string_view name;
    Run run;
    bool (*here)();
};

constexpr Variant kVariants[] = {
    {"plain", run_plain, [] { return true; }},
#ifdef HPCSCALE_X86
    {"avx2", run_avx2, [] { return __builtin_cpu_supports("avx2") != 0; }},
#endif
};

void normalize_with(const Variant& variant, std::span<const std::uint8_t> pixels, const Channels& channels,
                    std::span<float> out) {
    if (out.size() != pixels.size() || pixels.size() % 3 != 0) {
        throw std::invalid_argument(
            "normalize: needs pixels of 3 channels and as many values out as in, found " +
            std::to_string(pixels.size()) + " in and " + std::to_string(out.size()) + " out");
    }
    variant.run(pixels.data(), 0, pixels.size(), channels, out.data());
}

const Variant& fastest() {
    static const Variant& best = *std::find_if(std::rbegin(kVariants), std::rend(kVariants),
                                               [](const Variant& variant) { return variant.here(); });
    return best;
}

}  // namespace

void normalize(std::span<const std::uint8_t> pixels, const Channels& channels, std::span<float> out) {
    normalize_with(fastest(), pixels, channels, out);
}

std::vector<std::string_view> normalize_variants() {
    std::vector<std::string_view> names;
    for (const Variant& variant : kVariants) {
        if (variant.here()) names.push_back(variant.name);
    }
    return names;
}

void normalize_by(std::string_view name, std::span<const std::uint8_t> pixels, const Channels& channels,
                  std::span<float> out) {
    for (const Variant& variant : kVariants) {
        if (variant.name == name && variant.here()) {
            normalize_with(variant, pixels, channels, out);
            return;
        }
    }
    throw std::invalid_argument("normalize: no variant '" + std::string(name) + "' on this processor");
}

}  // namespace hpcscale
