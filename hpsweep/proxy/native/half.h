// Dense products in bfloat16 with sums in float32: by AMX tiles, by AVX-512's bfloat16 products, or by widening.
//
// Factors are pairs of bfloat16, two consecutive values of the summed index in one 32-bit word, the first in the low
// half: a (m x k/2 words) row by row, b (k/2 x n words) pair by pair.
#pragma once
#include "product.h"

typedef uint32_t pair;
typedef uint16_t __attribute__((may_alias)) half; // of a pair
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "pairs are written for machines with the low half first"
#endif

// Words of a row of `n` values.
INLINE long pairs_of(long n) { return padded((n + 1) / 2); }

#if defined(__AMX_BF16__) && defined(__AVX512BF16__)
#define HALF_UNIT "amx"
#elif defined(__AVX512BF16__)
#define HALF_UNIT "avx512_bf16"
#else
#define HALF_UNIT "widened"
#endif

// The bfloat16 nearest to x, ties to even, in the low half of each lane; a NaN stays one.
INLINE uvec rounded(vec x) {
    uvec bits = (uvec)x, nan = (uvec)(x != x);
    uvec up = bits + 0x7fff + ((bits >> 16) & 1);
    return ((nan & (bits | 0x400000)) | (~nan & up)) >> 16;
}

INLINE uvec packed(vec first, vec second) { return rounded(first) | (rounded(second) << 16); }

// b[i / 2][j] = the pair a[i][j], a[i + 1][j]: what is summed over the rows of a. An odd last row is paired with 0.
static void pair_rows(int rows, int columns, const float *a, long a_row, pair *b, long b_row) {
    for (int i = 0; i < rows; i += 2)
        for (int j = 0; j < columns; j += LANES) {
            vec second = i + 1 < rows ? load(a + (i + 1) * a_row + j) : (vec){0};
            store((float *)(b + i / 2 * b_row + j), (vec)packed(load(a + i * a_row + j), second));
        }
}

// b[i][j / 2] = the pair a[i][j], a[i][j + 1]: what is summed over the columns of a, an even number of them.
static void pair_columns(int rows, int columns, const float *a, long a_row, pair *b, long b_row) {
    for (int i = 0; i < rows; i++) {
        half *to = (half *)(b + i * b_row);
        const float *from = a + i * a_row;
        for (int j = 0; j < columns; j++) {
            uint32_t bits;
            memcpy(&bits, from + j, 4);
            uint32_t up = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
            to[j] = from[j] != from[j] ? (bits | 0x400000) >> 16 : up;
        }
    }
}

// sum + the products of the two halves of a and b.
INLINE vec pair_product(vec sum, pair a, vec b) {
#if defined(__AVX512BF16__) && LANES == 16
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(a), (__m512bh)b);
#else
    float low, high;
    pair low_bits = a << 16, high_bits = a & 0xffff0000u;
    memcpy(&low, &low_bits, 4);
    memcpy(&high, &high_bits, 4);
    sum += low * (vec)((uvec)b << 16);
    return sum + high * (vec)((ivec)b & (int32_t)0xffff0000);
#endif
}

INLINE void pair_tile(const int rows, const int columns, int k, const pair *a, long a_row, const pair *b, long b_row,
                      float *c, long c_row, int add) {
    sums sum;
    begin_sums(rows, columns, sum, c, c_row, add);
#pragma GCC unroll 4
    for (int l = 0; l < k; l++) {
        vec x[COLUMNS];
        for (int j = 0; j < columns; j++) x[j] = load((const float *)(b + l * b_row + j * LANES));
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < columns; j++) sum[i][j] = pair_product(sum[i][j], a[i * a_row + l], x[j]);
    }
    end_sums(rows, columns, sum, c, c_row, add);
}

#define PAIR_TILE(r, c) case 8 * r + c: pair_tile(r, c, k, a, a_row, b, b_row, out, out_row, add); break;
static void any_pair_tile(int rows, int columns, int k, const pair *a, long a_row, const pair *b, long b_row, float *out,
                          long out_row, int add) {
    switch (8 * rows + columns) {
        EACH_TILE(PAIR_TILE)
    }
}

// c (m x n) (+)= a b over the k pairs of each sum.
static void pair_product_by_vectors(int m, int n, int k, const pair *a, long a_row, const pair *b, long b_row, float *c,
                                    long c_row, int add) {
    for (int l = 0; l < k; l += DEPTH)
        for (int j = 0; j < n; j += COLUMNS * LANES)
            for (int i = 0; i < m; i += ROWS)
                any_pair_tile(smaller(ROWS, m - i), smaller(COLUMNS, (n - j) / LANES), smaller(DEPTH, k - l),
                              a + i * a_row + l, a_row, b + l * b_row + j, b_row, c + i * c_row + j, c_row, add || l);
}

#if defined(__AMX_BF16__) || defined(EMULATE_AMX)
#include "amx.h"
#endif

static void half_product(int m, int n, int k, const pair *a, long a_row, const pair *b, long b_row, float *c, long c_row,
                         int add) {
#if defined(__AMX_BF16__) || defined(EMULATE_AMX)
    int rows = m / 32 * 32, columns = n / 32 * 32, pairs = k / 16 * 16;
    tiles_product(rows, columns, pairs, a, a_row, b, b_row, c, c_row, add);
    if (pairs < k) // what is left of the sums, of the columns, and of the rows
        pair_product_by_vectors(rows, columns, k - pairs, a + pairs, a_row, b + pairs * b_row, b_row, c, c_row,
                                add || pairs);
    if (columns < n)
        pair_product_by_vectors(rows, n - columns, k, a, a_row, b + columns, b_row, c + columns, c_row, add);
    if (rows < m) pair_product_by_vectors(m - rows, n, k, a + rows * a_row, a_row, b, b_row, c + rows * c_row, c_row, add);
#else
    pair_product_by_vectors(m, n, k, a, a_row, b, b_row, c, c_row, add);
#endif
}
