// Products of pairs of bfloat16 by the tile unit (AMX): 16 x 16 sums of 16 pairs each in one instruction.
//
// EMULATE_AMX replaces the instructions by the functions below, so that everything around them is tested on any machine.
#pragma once

#if defined(EMULATE_AMX)
static _Thread_local pair tiles[8][16][16];
static void emulated_zero(int t) { memset(tiles[t], 0, sizeof tiles[t]); }
static void emulated_load(int t, const void *from, long bytes) {
    for (int i = 0; i < 16; i++) memcpy(tiles[t][i], (const char *)from + i * bytes, 64);
}
static void emulated_store(int t, void *to, long bytes) {
    for (int i = 0; i < 16; i++) memcpy((char *)to + i * bytes, tiles[t][i], 64);
}
static float half_of(pair x, int high) {
    pair bits = high ? x & 0xffff0000u : x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
static void emulated_product(int c, int a, int b) {
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++) {
            float sum;
            memcpy(&sum, &tiles[c][i][j], 4);
            for (int l = 0; l < 16; l++)
                for (int high = 0; high < 2; high++)
                    sum += half_of(tiles[a][i][l], high) * half_of(tiles[b][l][j], high);
            memcpy(&tiles[c][i][j], &sum, 4);
        }
}
#define TILE_ZERO(t) emulated_zero(t)
#define TILE_LOAD(t, from, bytes) emulated_load(t, from, bytes)
#define TILE_STORE(t, to, bytes) emulated_store(t, to, bytes)
#define TILE_PRODUCT(c, a, b) emulated_product(c, a, b)
static void configure_tiles(void) {}
#else
#define TILE_ZERO(t) _tile_zero(t)
#define TILE_LOAD(t, from, bytes) _tile_loadd(t, from, bytes)
#define TILE_STORE(t, to, bytes) _tile_stored(t, to, bytes)
#define TILE_PRODUCT(c, a, b) _tile_dpbf16ps(c, a, b)

// Eight tiles of 16 rows of 64 bytes, on this thread.
static void configure_tiles(void) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } __attribute__((packed)) shape = {.palette = 1};
    for (int i = 0; i < 8; i++) shape.bytes[i] = 64, shape.rows[i] = 16;
    _tile_loadconfig(&shape);
}
#endif

// c (m x n) (+)= a b over k pairs; m and n multiples of 32, k of 16.
static void tiles_product(int m, int n, int k, const pair *a, long a_row, const pair *b, long b_row, float *c,
                          long c_row, int add) {
    if (!k) return;
    configure_tiles();
    for (int j = 0; j < n; j += 32)
        for (int i = 0; i < m; i += 32) {
            float *corner = c + i * c_row + j;
            if (add) {
                TILE_LOAD(0, corner, 4 * c_row);
                TILE_LOAD(1, corner + 16, 4 * c_row);
                TILE_LOAD(2, corner + 16 * c_row, 4 * c_row);
                TILE_LOAD(3, corner + 16 * c_row + 16, 4 * c_row);
            } else {
                TILE_ZERO(0);
                TILE_ZERO(1);
                TILE_ZERO(2);
                TILE_ZERO(3);
            }
            for (int l = 0; l < k; l += 16) {
                TILE_LOAD(4, a + i * a_row + l, 4 * a_row);
                TILE_LOAD(5, a + (i + 16) * a_row + l, 4 * a_row);
                TILE_LOAD(6, b + l * b_row + j, 4 * b_row);
                TILE_LOAD(7, b + l * b_row + j + 16, 4 * b_row);
                TILE_PRODUCT(0, 4, 6);
                TILE_PRODUCT(1, 4, 7);
                TILE_PRODUCT(2, 5, 6);
                TILE_PRODUCT(3, 5, 7);
            }
            TILE_STORE(0, corner, 4 * c_row);
            TILE_STORE(1, corner + 16, 4 * c_row);
            TILE_STORE(2, corner + 16 * c_row, 4 * c_row);
            TILE_STORE(3, corner + 16 * c_row + 16, 4 * c_row);
        }
}
