// Vectors of LANES floats by the compiler's own vector extensions: one source for AVX-512, AVX2, NEON and SSE.
//
// Memory is aligned to a vector wherever load and store are used. maximum, minimum and exponential keep a NaN in
// their first argument, so that a diverging trial is seen to diverge.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#define EACH_LANE(f, h) f(0, h), f(1, h), f(2, h), f(3, h), f(4, h), f(5, h), f(6, h), f(7, h), \
    f(8, h), f(9, h), f(10, h), f(11, h), f(12, h), f(13, h), f(14, h), f(15, h)
#elif defined(__AVX__)
#define LANES 8
#define EACH_LANE(f, h) f(0, h), f(1, h), f(2, h), f(3, h), f(4, h), f(5, h), f(6, h), f(7, h)
#else
#define LANES 4
#define EACH_LANE(f, h) f(0, h), f(1, h), f(2, h), f(3, h)
#endif

#define INLINE static inline __attribute__((always_inline))
#define UNUSED __attribute__((unused))

typedef float vec __attribute__((vector_size(4 * LANES), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), may_alias));

INLINE int smaller(int a, int b) { return a < b ? a : b; }
INLINE long padded(long n) { return (n + 15) / 16 * 16; } // whole vectors of any length, and whole cache lines

INLINE vec load(const float *x) { return *(const vec *)x; }
INLINE void store(float *x, vec a) { *(vec *)x = a; }
INLINE vec broadcast(float x) { return x - (vec){0}; }
INLINE vec choose(ivec where, vec a, vec b) { return (vec)((where & (ivec)a) | (~where & (ivec)b)); }
INLINE vec maximum(vec a, vec b) { return choose(a < b, b, a); }
INLINE vec minimum(vec a, vec b) { return choose(a > b, b, a); }

INLINE vec square_root(vec x) {
#if defined(__AVX512F__)
    return (vec)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX__)
    return (vec)_mm256_sqrt_ps((__m256)x);
#else
    for (int i = 0; i < LANES; i++) x[i] = sqrtf(x[i]);
    return x;
#endif
}

// e^x to about 1e-7 relative, x held within -87 and 88 (Cephes' polynomial on [-ln 2 / 2, ln 2 / 2]).
INLINE vec exponential(vec x) {
    const float magic = 12582912.0f; // 1.5 x 2^23: adding it rounds to an integer
    x = minimum(maximum(x, broadcast(-87.0f)), broadcast(88.0f));
    vec n = (x * 1.44269504f + magic) - magic;
    vec r = x - n * 0.693145752f;
    r = r - n * 1.42860677e-6f;
    vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (vec)((__builtin_convertvector(n, ivec) + 127) << 23);
}

// Of two vectors: where bit `h` of the lane is clear the first's lane, else the second's lane - h; and its complement.
#define LOW(l, h) (((l) & (h)) ? LANES + (l) - (h) : (l))
#define HIGH(l, h) (((l) & (h)) ? LANES + (l) : (l) + (h))
#if defined(__clang__)
#define SHUFFLE(a, b, f, h) __builtin_shufflevector(a, b, EACH_LANE(f, h))
#else
#define SHUFFLE(a, b, f, h) __builtin_shuffle(a, b, (ivec){EACH_LANE(f, h)})
#endif

#define TRANSPOSE_STAGE(x, h)                                   \
    for (int i = 0; i < LANES; i++)                             \
        if (!(i & (h))) {                                       \
            vec low = SHUFFLE(x[i], x[i + (h)], LOW, h);        \
            x[i + (h)] = SHUFFLE(x[i], x[i + (h)], HIGH, h);    \
            x[i] = low;                                         \
        }

// b[j][i] = a[i][j] for i < rows and j < columns. Rows of b are written as whole vectors, zero beyond `rows`; rows
// of a are read as whole vectors.
static void transpose(int rows, int columns, const float *a, long a_row, float *b, long b_row) {
    for (int i = 0; i < rows; i += LANES)
        for (int j = 0; j < columns; j += LANES) {
            vec x[LANES];
            for (int l = 0; l < LANES; l++) x[l] = i + l < rows ? load(a + (i + l) * a_row + j) : (vec){0};
#if LANES >= 16
            TRANSPOSE_STAGE(x, 8)
#endif
#if LANES >= 8
            TRANSPOSE_STAGE(x, 4)
#endif
            TRANSPOSE_STAGE(x, 2)
            TRANSPOSE_STAGE(x, 1)
            for (int l = 0; l < LANES && j + l < columns; l++) store(b + (j + l) * b_row + i, x[l]);
        }
}

#define SUM_STAGE(x, h) \
    for (int i = 0; i < (h); i++) x[i] = SHUFFLE(x[i], x[i + (h)], LOW, h) + SHUFFLE(x[i], x[i + (h)], HIGH, h);

// Lane i of the result: the sum over the lanes of x[i]. Overwrites x.
INLINE vec lane_sums(vec x[LANES]) {
#if LANES >= 16
    SUM_STAGE(x, 8)
#endif
#if LANES >= 8
    SUM_STAGE(x, 4)
#endif
    SUM_STAGE(x, 2)
    SUM_STAGE(x, 1)
    return x[0];
}

INLINE float lane_sum(vec x) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += x[i];
    return total;
}

#define PANEL 8 // vectors of tokens that are treated together, where each has a sum in a register

// f with a constant number of columns (1 to PANEL) as its first argument, so that its loops over them are unrolled.
#define BY_COLUMNS(f, columns, ...)             \
    switch (columns) {                          \
        case 1: f(1, __VA_ARGS__); break;       \
        case 2: f(2, __VA_ARGS__); break;       \
        case 3: f(3, __VA_ARGS__); break;       \
        case 4: f(4, __VA_ARGS__); break;       \
        case 5: f(5, __VA_ARGS__); break;       \
        case 6: f(6, __VA_ARGS__); break;       \
        case 7: f(7, __VA_ARGS__); break;       \
        case 8: f(8, __VA_ARGS__); break;       \
    }
