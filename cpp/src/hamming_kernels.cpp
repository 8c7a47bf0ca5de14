#include "hamming_kernels.hpp"

#include <bit>

#include "x86.hpp"

namespace hpcscale {
namespace {

// Every kernel holds the first E of the W words of some candidates in registers and runs over all queries. It
// looks at the other words only where the first E leave a candidate within the radius.

// Bit k of `lanes`: candidate first + k is within the radius.
void append(std::uint32_t lanes, const std::uint32_t* distances, std::size_t query, std::size_t first,
            std::vector<Hit>& hits) {
    for (; lanes != 0; lanes &= lanes - 1) {
        const auto lane = static_cast<std::size_t>(std::countr_zero(lanes));
        hits.push_back(
            {static_cast<std::uint32_t>(query), static_cast<std::uint32_t>(first + lane), distances[lane]});
    }
}

// --- one candidate at a time

// Where the compiler may not use the instruction, std::popcount is arithmetic on the bits.
template <int W, int E>
[[gnu::always_inline]] inline void scalar_body(const Columns& a, std::size_t queries, const Columns& b,
                                               std::size_t candidates, int radius, std::vector<Hit>& hits) {
    const auto limit = static_cast<std::uint32_t>(radius);
    for (std::size_t k = 0; k < candidates; ++k) {
        std::uint32_t mine[W];
        for (int w = 0; w < W; ++w) mine[w] = b.words[w * b.stride + k];
        for (std::size_t q = 0; q < queries; ++q) {
            std::uint32_t sum = 0;
            for (int w = 0; w < E; ++w) {
                sum += static_cast<std::uint32_t>(__builtin_popcount(a.words[w * a.stride + q] ^ mine[w]));
            }
            if (sum > limit) continue;
            for (int w = E; w < W; ++w) {
                sum += static_cast<std::uint32_t>(__builtin_popcount(a.words[w * a.stride + q] ^ mine[w]));
            }
            if (sum <= limit) append(1, &sum, q, k, hits);
        }
    }
}

template <int W, int E>
void portable(const Columns& a, std::size_t queries, const Columns& b, std::size_t candidates, int radius,
              std::vector<Hit>& hits) {
    scalar_body<W, E>(a, queries, b, candidates, radius, hits);
}
#ifdef HPCSCALE_X86

template <int W, int E>
__attribute__((target("popcnt"))) void popcnt(const Columns& a, std::size_t queries, const Columns& b,
                                              std::size_t candidates, int radius, std::vector<Hit>& hits) {
    scalar_body<W, E>(a, queries, b, candidates, radius, hits);
}

// --- 8 candidates

// Set bits of each byte of x: two look-ups of 4 bits.
__attribute__((target("avx2"))) [[gnu::always_inline]] inline __m256i bytes_set(__m256i x) {
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2,
                                           2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i nibble = _mm256_set1_epi8(15);
    return _mm256_add_epi8(_mm256_shuffle_epi8(table, _mm256_and_si256(x, nibble)),
                           _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble)));
}

// The sum of the four bytes of every 32-bit lane.
__attribute__((target("avx2"))) [[gnu::always_inline]] inline __m256i lane_sums(__m256i bytes) {
    return _mm256_madd_epi16(_mm256_maddubs_epi16(bytes, _mm256_set1_epi8(1)), _mm256_set1_epi16(1));
}

template <int W, int E>
__attribute__((target("avx2"))) void avx2(const Columns& a, std::size_t queries, const Columns& b,
                                          std::size_t candidates, int radius, std::vector<Hit>& hits) {
    const __m256i beyond = _mm256_set1_epi32(radius + 1);
    const __m256i order = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (std::size_t first = 0; first < candidates; first += 8) {
        const __m256i live = _mm256_cmpgt_epi32(
            _mm256_set1_epi32(static_cast<int>(candidates - first < 8 ? candidates - first : 8)), order);
        const auto column = [&](int w) __attribute__((always_inline, target("avx2"))) {
            return _mm256_maskload_epi32(reinterpret_cast<const int*>(b.words + w * b.stride + first), live);
        };
        __m256i mine[E];
        for (int w = 0; w < E; ++w) mine[w] = column(w);
        for (std::size_t q = 0; q < queries; ++q) {
            __m256i bytes = _mm256_setzero_si256();
            for (int w = 0; w < E; ++w) {
                const __m256i word = _mm256_set1_epi32(static_cast<int>(a.words[w * a.stride + q]));
                bytes = _mm256_add_epi8(bytes, bytes_set(_mm256_xor_si256(word, mine[w])));
            }
            __m256i within = _mm256_and_si256(live, _mm256_cmpgt_epi32(beyond, lane_sums(bytes)));
            if (_mm256_testz_si256(within, within)) [[likely]]
                continue;
            for (int w = E; w < W; ++w) {
                const __m256i word = _mm256_set1_epi32(static_cast<int>(a.words[w * a.stride + q]));
                bytes = _mm256_add_epi8(bytes, bytes_set(_mm256_xor_si256(word, column(w))));
            }
            const __m256i sums = lane_sums(bytes);
            within = _mm256_and_si256(live, _mm256_cmpgt_epi32(beyond, sums));
            alignas(32) std::uint32_t distances[8];
            _mm256_store_si256(reinterpret_cast<__m256i*>(distances), sums);
            append(static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(within))), distances, q,
                   first, hits);
        }
    }
}

// --- 16 candidates

#define AVX512 __attribute__((target("avx512f,avx512vpopcntdq")))

template <int W, int E>
AVX512 void avx512(const Columns& a, std::size_t queries, const Columns& b, std::size_t candidates,
                   int radius, std::vector<Hit>& hits) {
    const __m512i limit = _mm512_set1_epi32(radius);
    for (std::size_t first = 0; first < candidates; first += 16) {
        const std::size_t left = candidates - first;
        const auto live = static_cast<__mmask16>(left < 16 ? (1u << left) - 1 : 0xffff);
        __m512i mine[E];
        for (int w = 0; w < E; ++w) mine[w] = _mm512_maskz_loadu_epi32(live, b.words + w * b.stride + first);
        for (std::size_t q = 0; q < queries; ++q) {
            __m512i sums = _mm512_setzero_si512();
            for (int w = 0; w < E; ++w) {
                const __m512i word = _mm512_set1_epi32(static_cast<int>(a.words[w * a.stride + q]));
                sums = _mm512_add_epi32(sums, _mm512_popcnt_epi32(_mm512_xor_si512(word, mine[w])));
            }
            __mmask16 within = _mm512_mask_cmple_epi32_mask(live, sums, limit);
            if (within == 0) [[likely]]
                continue;
            for (int w = E; w < W; ++w) {
                const __m512i word = _mm512_set1_epi32(static_cast<int>(a.words[w * a.stride + q]));
                const __m512i theirs = _mm512_maskz_loadu_epi32(live, b.words + w * b.stride + first);
                sums = _mm512_add_epi32(sums, _mm512_popcnt_epi32(_mm512_xor_si512(word, theirs)));
            }
            within = _mm512_mask_cmple_epi32_mask(live, sums, limit);
            alignas(64) std::uint32_t distances[16];
            _mm512_store_si512(distances, sums);
            append(within, distances, q, first, hits);
        }
    }
}

#endif

}  // namespace

std::vector<Kernels> kernels() {
    std::vector<Kernels> here = {
        {"portable", portable<2, 2>, portable<8, 8>, portable<8, 5>, portable<8, 3>}};
#ifdef HPCSCALE_X86
    if (__builtin_cpu_supports("popcnt"))
        here.push_back({"popcnt", popcnt<2, 2>, popcnt<8, 8>, popcnt<8, 5>, popcnt<8, 3>});
    if (__builtin_cpu_supports("avx2"))
        here.push_back({"avx2", avx2<2, 2>, avx2<8, 8>, avx2<8, 5>, avx2<8, 3>});
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vpopcntdq")) {
        here.push_back({"avx512vpopcntdq", avx512<2, 2>, avx512<8, 8>, avx512<8, 5>, avx512<8, 3>});
    }
#endif
    return here;
}

}  // namespace hpcscale
