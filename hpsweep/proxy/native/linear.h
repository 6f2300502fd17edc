// y = W x and its gradients, for a matrix that is dense, sparse or in bfloat16; model.py's _linear.
//
// Features are rows and tokens columns: x is (in x n), y (out x n), n a multiple of LANES.
#pragma once
#include "tensors.h"

INLINE void sparse_rows(const int columns, int rows, const int32_t *start, const int32_t *index, const float *value,
                        const float *x, float *y, long row, int add) {
    for (int i = 0; i < rows; i++) {
        vec sum[PANEL];
        for (int j = 0; j < columns; j++) sum[j] = add ? load(y + i * row + j * LANES) : (vec){0};
        for (int p = start[i]; p < start[i + 1]; p++) {
            const float *from = x + index[p] * row;
            vec w = broadcast(value[p]);
            for (int j = 0; j < columns; j++) sum[j] += w * load(from + j * LANES);
        }
        for (int j = 0; j < columns; j++) store(y + i * row + j * LANES, sum[j]);
    }
}

// y (+)= the rows' nonzeros times the rows of x that they name.
static void sparse_product(int rows, int n, const int32_t *start, const int32_t *index, const float *value,
                           const float *x, float *y, int add) {
    for (int j = 0; j < n; j += PANEL * LANES)
        BY_COLUMNS(sparse_rows, smaller(PANEL, (n - j) / LANES), rows, start, index, value, x + j, y + j, n, add)
}

INLINE void sampled_sums(const int columns, long count, const int32_t *row, const int32_t *column, const float *dy,
                         const float *x, float *gradient, long stride) {
    vec d[PANEL];
    int here = -1; // the row of dy in d
    for (long p = 0; p < count; p += LANES) {
        int some = smaller(LANES, count - p);
        vec sum[LANES];
        for (int l = 0; l < LANES; l++) {
            sum[l] = (vec){0};
            if (l >= some) continue;
            if (row[p + l] != here) {
                here = row[p + l];
                for (int j = 0; j < columns; j++) d[j] = load(dy + here * stride + j * LANES);
            }
            const float *from = x + column[p + l] * stride;
            for (int j = 0; j < columns; j++) sum[l] += d[j] * load(from + j * LANES);
        }
        vec total = lane_sums(sum);
        for (int l = 0; l < some; l++) gradient[p + l] += total[l];
    }
}

// gradient[p] += dy[row[p]] . x[column[p]] over the n tokens: the product of two dense matrices, where a weight exists.
static void sampled_product(long count, int n, const int32_t *row, const int32_t *column, const float *dy, const float *x,
                            float *gradient) {
    for (int j = 0; j < n; j += PANEL * LANES)
        BY_COLUMNS(sampled_sums, smaller(PANEL, (n - j) / LANES), count, row, column, dy + j, x + j, gradient, n)
}

// What is derived from the values, once per step: they have changed.
static void refresh(matrix *w, float *spare) {
    if (w->way == SPARSE) {
        for (long p = 0; p < w->weight.count; p++) w->transposed[p] = w->weight.value[w->place[p]];
    } else if (w->way == HALF) {
        long in = padded(w->in);
        pair_columns(w->out, in, w->weight.value, in, w->pairs, pairs_of(in));
        pair_rows(w->out, in, w->weight.value, in, (pair *)spare, in);
        transpose((w->out + 1) / 2, w->in, spare, in, (float *)w->pairs_transposed, pairs_of(w->out));
    }
}

// y (+)= W x.
static void linear(const matrix *w, int n, const float *x, float *y, int add, float *spare) {
    long in = padded(w->in);
    if (w->way == SPARSE) {
        sparse_product(w->out, n, w->start, w->column, w->weight.value, x, y, add);
    } else if (w->way == HALF) {
        pair_rows(w->in, n, x, n, (pair *)spare, n);
        half_product(w->out, n, (w->in + 1) / 2, w->pairs, pairs_of(in), (pair *)spare, n, y, n, add);
    } else {
        product(w->out, n, w->in, w->weight.value, in, 1, x, n, y, n, add);
    }
}

// dx (+)= W^T dy; the weight's gradient += dy x^T, still without the mask.
static void linear_backward(matrix *w, int n, const float *x, const float *dy, float *dx, int add, float *spare) {
    long in = padded(w->in);
    float *gradient = w->weight.gradient;
    if (w->way == SPARSE) {
        sparse_product(w->in, n, w->start_transposed, w->row_transposed, w->transposed, dy, dx, add);
        sampled_product(w->weight.count, n, w->row, w->column, dy, x, gradient);
    } else if (w->way == HALF) {
        long half = pairs_of(n);
        pair *first = (pair *)spare, *second = first + (in > w->out ? in : w->out) * half;
        pair_rows(w->out, n, dy, n, first, n);
        half_product(w->in, n, (w->out + 1) / 2, w->pairs_transposed, pairs_of(w->out), first, n, dx, n, add);
        pair_columns(w->in, n, x, n, second, half);
        transpose(w->in, n / 2, (float *)second, half, (float *)first, in);
        pair_columns(w->out, n, dy, n, second, half);
        half_product(w->out, in, n / 2, second, half, first, in, gradient, in, 1);
    } else {
        product(w->in, n, w->out, w->weight.value, 1, in, dy, n, dx, n, add);
        transpose(w->in, n, x, n, spare, in);
        product(w->out, in, n, dy, n, 1, spare, in, gradient, in, 1);
    }
}

// The gradient of weights that do not exist is zero.
static void mask_gradient(matrix *w) {
    if (w->mask)
        for (long p = 0; p < w->weight.count; p++) w->weight.gradient[p] *= w->mask[p];
}
