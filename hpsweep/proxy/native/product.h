// Dense matrix products over short columns: c (m x n) = a (m x k) b (k x n), n a multiple of LANES.
//
// The columns are tokens, at most a few hundred at a time, so that a panel of b stays in the cache and needs no packing.
#pragma once
#include "vectors.h"

#if defined(__AVX512F__) || defined(__aarch64__)
#define ROWS 6 // of a tile of sums kept in registers; there are 32
#define COLUMNS 4
#else
#define ROWS 6
#define COLUMNS 2
#endif
#define DEPTH 256 // rows of b between which sums go back to memory

typedef vec sums[ROWS][COLUMNS];

// What is added to is fetched while the sums are made: waiting for it first costs an eighth of a step at width 256.
INLINE void begin_sums(const int rows, const int columns, sums sum, const float *c, long c_row, int add) {
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) {
            if (add) __builtin_prefetch(c + i * c_row + j * LANES, 1);
            sum[i][j] = (vec){0};
        }
}

INLINE void end_sums(const int rows, const int columns, sums sum, float *c, long c_row, int add) {
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) {
            float *to = c + i * c_row + j * LANES;
            if (add) sum[i][j] += load(to);
            store(to, sum[i][j]);
        }
}

INLINE void tile(const int rows, const int columns, int k, const float *a, long a_row, long a_step, const float *b,
                 long b_row, float *c, long c_row, int add) {
    sums sum;
    begin_sums(rows, columns, sum, c, c_row, add);
#pragma GCC unroll 4
    for (int l = 0; l < k; l++) {
        vec x[COLUMNS];
        for (int j = 0; j < columns; j++) x[j] = load(b + l * b_row + j * LANES);
        for (int i = 0; i < rows; i++) {
            vec w = broadcast(a[i * a_row + l * a_step]);
            for (int j = 0; j < columns; j++) sum[i][j] += w * x[j];
        }
    }
    end_sums(rows, columns, sum, c, c_row, add);
}

// DO for every size of a tile at the edges of a product.
#define EACH_ROW(DO, c) DO(1, c) DO(2, c) DO(3, c) DO(4, c) DO(5, c) DO(6, c)
#if COLUMNS == 4
#define EACH_TILE(DO) EACH_ROW(DO, 1) EACH_ROW(DO, 2) EACH_ROW(DO, 3) EACH_ROW(DO, 4)
#else
#define EACH_TILE(DO) EACH_ROW(DO, 1) EACH_ROW(DO, 2)
#endif

#define TILE(r, c) case 8 * r + c: tile(r, c, k, a, a_row, a_step, b, b_row, out, out_row, add); break;
static void any_tile(int rows, int columns, int k, const float *a, long a_row, long a_step, const float *b, long b_row,
                     float *out, long out_row, int add) {
    switch (8 * rows + columns) {
        EACH_TILE(TILE)
    }
}

// c (+)= a b, with a[i][l] at a[i * a_row + l * a_step].
static void product(int m, int n, int k, const float *a, long a_row, long a_step, const float *b, long b_row, float *c,
                    long c_row, int add) {
    for (int l = 0; l < k; l += DEPTH)
        for (int j = 0; j < n; j += COLUMNS * LANES)
            for (int i = 0; i < m; i += ROWS)
                any_tile(smaller(ROWS, m - i), smaller(COLUMNS, (n - j) / LANES), smaller(DEPTH, k - l),
                         a + i * a_row + l * a_step, a_row, a_step, b + l * b_row + j, b_row, c + i * c_row + j, c_row,
                         add || l);
}
