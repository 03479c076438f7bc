/* The kernel in the compiler's own vectors: any machine, two roundings where the others fuse. */

#include "kernel.h"

#define NF_ISA_PORTABLE 0
#define NF_ISA NF_ISA_PORTABLE
#define NF_BITS 32
#include "kernel_body.inc"
#undef NF_BITS
#define NF_BITS 64
#include "kernel_body.inc"
