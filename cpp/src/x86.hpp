// HPCSCALE_X86: the variants for instructions of x86-64 are built. Elsewhere, and where HPCSCALE_PLAIN asks
// for it, the plain variants are the only ones.
#pragma once

#if defined(__x86_64__) && !defined(HPCSCALE_PLAIN)
#define HPCSCALE_X86
#include <immintrin.h>
#endif
