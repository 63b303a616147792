/* amx_emulator.c - AMX instructions, decoded and executed in a signal handler as Intel's manual has them. */
#define _GNU_SOURCE /* REG_RIP */
#include "amx_emulator.h"

#if defined(__x86_64__) && defined(__linux__)
#include <immintrin.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>

#include "cpu.h"
#include "support.h"

/* ---- The registers of a thread ---- */

enum { TILES = 8, ROWS = 16, ROW_BYTES = 64, ROW_WORDS = 16 }; /* of palette 1 */

struct tile {
    uint32_t rows, row_bytes; /* 0: it cannot be used */
    _Alignas(64) uint8_t data[ROWS][ROW_BYTES];
};

static _Thread_local struct {
    bool configured;
    struct tile tiles[TILES];
    struct amx_counts counts;
} amx;

struct amx_counts amx_counts(void) {
    return amx.counts;
}

bool amx_configured(void) {
    return amx.configured;
}

/* What the processor would answer with an exception. */
static void require(bool condition, const char *what) {
    if (!condition)
        fail_msg("AMX: %s", what);
}

static struct tile *use(uint32_t index) {
    require(amx.configured, "the tiles are not configured (#UD)");
    require(index < TILES, "there is no such tile (#UD)");
    require(amx.tiles[index].rows != 0, "a tile without rows is used (#UD)");
    return &amx.tiles[index];
}

/* ---- Configuration ---- */

static uint32_t read_u16(const uint8_t *from) {
    return from[0] | (uint32_t)from[1] << 8;
}

static bool all_zero(const uint8_t *from, uint32_t begin, uint32_t end) {
    for (uint32_t i = begin; i < end; i++)
        if (from[i])
            return false;
    return true;
}

static void release(void) {
    amx.counts.releases++;
    amx.configured = false;
    memset(amx.tiles, 0, sizeof amx.tiles);
}

static void configure(const uint8_t *memory) {
    uint8_t config[64];
    memcpy(config, memory, sizeof config);
    amx.counts.configures++;
    require(config[0] == 1, "the palette is not 1 (#GP)");
    require(config[1] == 0, "the first row is not 0: allowed, but no kernel means it");
    require(all_zero(config, 2, 16) && all_zero(config, 32, 48) && all_zero(config, 56, 64),
            "reserved bytes of a configuration are not 0 (#GP)");
    memset(amx.tiles, 0, sizeof amx.tiles);
    for (uint32_t i = 0; i < TILES; i++) {
        struct tile *tile = &amx.tiles[i];
        tile->row_bytes = read_u16(config + 16 + 2 * i);
        tile->rows = config[48 + i];
        require(tile->row_bytes <= ROW_BYTES && tile->rows <= ROWS, "a tile is configured too large (#GP)");
        require(!tile->rows == !tile->row_bytes, "a tile has rows without columns, or columns without rows (#GP)");
    }
    amx.configured = true;
}

/* ---- Loads and stores ---- */

static void load(struct tile *tile, const uint8_t *from, ptrdiff_t stride) {
    amx.counts.loads++;
    memset(tile->data, 0, sizeof tile->data);
    for (uint32_t row = 0; row < tile->rows; row++)
        memcpy(tile->data[row], from + (ptrdiff_t)row * stride, tile->row_bytes);
}

static void store(const struct tile *tile, uint8_t *to, ptrdiff_t stride) {
    amx.counts.stores++;
    for (uint32_t row = 0; row < tile->rows; row++)
        memcpy(to + (ptrdiff_t)row * stride, tile->data[row], tile->row_bytes);
}

/* ---- Products ---- */

/* The three operands of a product: sums[m][n] += x[m][k] . w[k][n]. */
struct operands {
    struct tile *sums;
    const struct tile *x, *w;
};

static struct operands operands_of(uint32_t sums, uint32_t x, uint32_t w) {
    struct operands o = {use(sums), use(x), use(w)};
    amx.counts.products++;
    require(sums != x && sums != w && x != w, "a product names a tile twice (#UD)");
    require(o.sums->row_bytes % 4 == 0 && o.x->row_bytes % 4 == 0 && o.w->row_bytes % 4 == 0,
            "a tile of a product has no whole words (#UD)");
    require(o.sums->rows == o.x->rows, "sums and left operand differ in rows (#UD)");
    require(o.sums->row_bytes == o.w->row_bytes, "sums and right operand differ in columns (#UD)");
    require(o.x->row_bytes / 4 == o.w->rows, "the left operand's columns are not the right operand's rows (#UD)");
    return o;
}

/* TDPBUSD: four unsigned by signed bytes to a word; sums wrap. All columns are computed: the unused are cleared. */
static void product_u8_s8(struct operands o) {
    for (uint32_t m = 0; m < o.sums->rows; m++) {
        uint32_t sums[ROW_WORDS];
        memcpy(sums, o.sums->data[m], sizeof sums);
        for (uint32_t k = 0; k < o.w->rows; k++)
            for (uint32_t n = 0; n < ROW_WORDS; n++)
                for (uint32_t i = 0; i < 4; i++)
                    sums[n] += (uint32_t)(o.x->data[m][4 * k + i] * (int8_t)o.w->data[k][4 * n + i]);
        memcpy(o.sums->data[m], sums, o.sums->row_bytes);
    }
}

/* Element `i` of two bf16 in each of the words. */
__attribute__((target("avx512f"))) static inline __m512 widen(__m512i pairs, uint32_t i) {
    return _mm512_castsi512_ps(i ? _mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000))
                                 : _mm512_slli_epi32(pairs, 16));
}

/* TDPBF16PS: the first and the second numbers of the pairs are summed apart, each by fused multiply-adds in the order
 * of the words, from 0; then both are added, and the result is added to the sum. Denormals count as zeros, and round to
 * nearest is used, whatever the thread has set. */
__attribute__((target("avx512f"))) static void product_bf16(struct operands o) {
    const uint32_t before = _mm_getcsr();
    _mm_setcsr(0x1f80U | 0x8040U);
    for (uint32_t m = 0; m < o.sums->rows; m++) {
        __m512 part[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
        for (uint32_t k = 0; k < o.w->rows; k++)
            for (uint32_t i = 0; i < 2; i++) {
                int32_t pair;
                memcpy(&pair, o.x->data[m] + 4 * k, sizeof pair);
                part[i] = _mm512_fmadd_ps(widen(_mm512_set1_epi32(pair), i), widen(_mm512_load_si512(o.w->data[k]), i),
                                          part[i]);
            }
        __m512 sum = _mm512_add_ps(_mm512_load_ps(o.sums->data[m]), _mm512_add_ps(part[0], part[1]));
        memcpy(o.sums->data[m], &sum, o.sums->row_bytes);
    }
    _mm_setcsr(before);
}

/* ---- Decoding ---- */

enum prefix { NP, P66, PF3, PF2 }; /* VEX.pp */

/* An instruction of VEX map 0F38, W0, 128 bits. */
struct instruction {
    const uint8_t *next; /* the byte behind it */
    enum prefix prefix;
    uint8_t opcode;
    uint32_t mod, reg, rm, vvvv;
    bool has_sib;
    const uint8_t *base; /* of a memory operand, displacement included */
    ptrdiff_t stride;    /* scaled index */
};

/* A register by its number in an instruction. */
static int64_t general(const ucontext_t *context, uint32_t number) {
    static const int places[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                   REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    return context->uc_mcontext.gregs[places[number]];
}

static int32_t displacement(const uint8_t *code, uint32_t bytes) {
    int32_t value = (int8_t)code[0];
    if (bytes == 4)
        memcpy(&value, code, sizeof value);
    return bytes ? value : 0;
}

/* The memory operand whose ModRM byte `code` is behind. */
static void decode_memory(struct instruction *in, const uint8_t *code, const uint8_t *vex, const ucontext_t *context) {
    const uint32_t base_high = vex[1] & 0x20 ? 0 : 8, index_high = vex[1] & 0x40 ? 0 : 8; /* B and X, inverted */
    uint32_t base = in->rm;
    in->has_sib = in->rm == 4;
    if (in->has_sib) {
        const uint32_t sib = *code++, index = (sib >> 3 & 7) | index_high;
        base = sib & 7;
        in->stride = index == 4 ? 0 : (ptrdiff_t)((uint64_t)general(context, index) << (sib >> 6));
    }
    const bool bare = in->mod == 0 && base == 5; /* no base but a displacement: from the next instruction without SIB */
    const uint32_t bytes = in->mod == 1 ? 1 : in->mod == 2 || bare ? 4 : 0;
    in->next = code + bytes;
    const int64_t start = !bare ? general(context, base | base_high) : in->has_sib ? 0 : (int64_t)(intptr_t)in->next;
    in->base = (const uint8_t *)(intptr_t)(start + displacement(code, bytes));
}

/* False where it is of another kind than AMX's. */
static bool decode(struct instruction *in, const uint8_t *code, const ucontext_t *context) {
    if (code[0] != 0xc4 || (code[1] & 0x1f) != 2 || (code[2] & 0x84) != 0)
        return false;
    *in = (struct instruction){.prefix = (enum prefix)(code[2] & 3),
                               .opcode = code[3],
                               .mod = code[4] >> 6,
                               .reg = (code[4] >> 3 & 7) | (code[1] & 0x80 ? 0U : 8U),
                               .rm = code[4] & 7,
                               .vvvv = ~(uint32_t)code[2] >> 3 & 15};
    if (in->mod == 3) {
        in->rm |= code[1] & 0x20 ? 0U : 8U;
        in->next = code + 5;
    } else
        decode_memory(in, code + 5, code, context);
    return true;
}

/* ---- Execution ---- */

/* Opcode 49: configuration, and zeroing. */
static bool execute_configuration(const struct instruction *in) {
    const bool memory = in->mod != 3;
    if (in->vvvv != 0)
        return false;
    if (memory && in->prefix == NP && in->reg == 0)
        configure(in->base + in->stride);
    else if (!memory && in->prefix == NP && in->reg == 0 && in->rm == 0)
        release();
    else if (!memory && in->prefix == PF2 && in->rm == 0)
        memset(use(in->reg)->data, 0, sizeof amx.tiles[0].data);
    else
        return false;
    return true;
}

/* Opcode 4B: loads (with or without the hint that data is not used again) and stores. */
static bool execute_move(const struct instruction *in) {
    if (in->mod == 3 || !in->has_sib || in->vvvv != 0)
        return false;
    if (in->prefix == PF2 || in->prefix == P66)
        load(use(in->reg), in->base, in->stride);
    else if (in->prefix == PF3)
        store(use(in->reg), (uint8_t *)(uintptr_t)in->base, in->stride);
    else
        return false;
    return true;
}

static bool execute_product(const struct instruction *in) {
    if (in->mod != 3)
        return false;
    if (in->opcode == 0x5e && in->prefix == P66)
        product_u8_s8(operands_of(in->reg, in->rm, in->vvvv));
    else if (in->opcode == 0x5c && in->prefix == PF3)
        product_bf16(operands_of(in->reg, in->rm, in->vvvv));
    else
        return false;
    return true;
}

static void on_illegal_instruction(int signal_number, siginfo_t *info, void *raw) {
    ucontext_t *context = raw;
    const uint8_t *code = (const uint8_t *)(intptr_t)context->uc_mcontext.gregs[REG_RIP];
    struct instruction in = {0};
    (void)signal_number;
    (void)info;
    bool known = decode(&in, code, context) && (in.opcode == 0x49   ? execute_configuration(&in)
                                                : in.opcode == 0x4b ? execute_move(&in)
                                                                    : execute_product(&in));
    if (!known)
        fail_msg("illegal instruction %02x %02x %02x %02x %02x", code[0], code[1], code[2], code[3], code[4]);
    context->uc_mcontext.gregs[REG_RIP] = (greg_t)(intptr_t)in.next;
}

bool amx_emulate(void) {
    if (cpu_kernels(RESNET_ISA_AMX))
        return false;
    /* Not blocked meanwhile, and so not afterwards: a failing test leaves the handler by a jump. */
    struct sigaction action = {.sa_sigaction = on_illegal_instruction, .sa_flags = SA_SIGINFO | SA_NODEFER};
    assert_int_equal(sigaction(SIGILL, &action, NULL), 0);
    return true;
}
#endif
