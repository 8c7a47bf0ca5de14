// Rows of RGB pixels from right to left. Inside the library only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "x86.hpp"

namespace hpcscale {

constexpr std::size_t kChannels = 3;

using Reverse = void (*)(const std::uint8_t* in, std::size_t width, std::uint8_t* out);

inline void reverse_plain(const std::uint8_t* in, std::size_t width, std::uint8_t* out) {
    for (std::size_t x = 0; x < width; ++x) {
        for (std::size_t c = 0; c < kChannels; ++c)
            out[kChannels * x + c] = in[kChannels * (width - 1 - x) + c];
    }
}

#ifdef HPCSCALE_X86
// Five pixels at a time, from the end of the row. Each store writes one byte too many; the next one
// overwrites it.
__attribute__((target("ssse3"))) inline void reverse_ssse3(const std::uint8_t* in, std::size_t width,
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
#endif

inline Reverse fastest_reverse() {
#ifdef HPCSCALE_X86
    if (__builtin_cpu_supports("ssse3")) return reverse_ssse3;
#endif
    return reverse_plain;
}

}  // namespace hpcscale
