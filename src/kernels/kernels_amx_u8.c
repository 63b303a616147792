/* kernels_amx_u8.c - u8 by s8 in AMX. */
#include "vec_avx512.h"

#include "num_u8_avx512.h"

#define TILE_DOT _tile_dpbusd
#include "tile_amx.h"

#define KERNELS u8_amx
#define VECTORS u8_avx512
#include "amx_tmpl.h"
