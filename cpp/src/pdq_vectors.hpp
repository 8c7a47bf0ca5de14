// Vectors of L floats, for every width that a variant of PDQ's kernels may have. For pdq_kernels.cpp alone.
#pragma once

#include <cstddef>
#include <cstring>

// Vectors are passed by reference only, so the convention for passing them by value does not matter.
#pragma GCC diagnostic ignored "-Wpsabi"

// What is inlined is compiled for the instructions of the variant that calls it.
#define INLINE [[gnu::always_inline]] inline

namespace hpcscale {

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

}  // namespace hpcscale
