/* The kernel for AVX2. The target is set here, so that no file needs compiler flags of its own. */

#include "kernel.h"

#if NF_X86
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,bmi"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,bmi")
#endif

#include <immintrin.h>

#define NF_ISA_AVX2 1
#define NF_ISA NF_ISA_AVX2
#define NF_BITS 32
#include "kernel_body.inc"
#undef NF_BITS
#define NF_BITS 64
#include "kernel_body.inc"

#ifdef __clang__
#pragma clang attribute pop
#endif
#else
typedef int nf_no_avx2; /* ISO C wants something in every file */
#endif
