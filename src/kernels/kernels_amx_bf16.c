/* kernels_amx_bf16.c - bf16 in AMX. */
#include "vec_avx512.h"

#include "num_bf16_avx512.h"

#define TILE_DOT _tile_dpbf16ps
#include "tile_amx.h"

#define KERNELS bf16_amx
#define VECTORS bf16_avx512
#include "amx_tmpl.h"
