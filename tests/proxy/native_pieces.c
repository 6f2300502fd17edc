// The native engine's functions one at a time, for tests/proxy/test_native_pieces.py, compiled together with the engine.
// Whole numbers are ints and matrices contiguous rows unless a row's length is given.
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
// After each of a chunk's arrays 16 floats that nobody may touch.
static void leave_gap(float *array, long count) {
    __asan_unpoison_memory_region(array, 4 * count);
    __asan_poison_memory_region(array + count, 64);
}
#define LEAVE_GAP(array, count) at += 16; if (array) leave_gap(array, count)
#endif
#include "engine.c"

#include <stddef.h>
#include <stdlib.h>

// Where the fields of the structures lie that Python mirrors; -1 for a name that is none.
#define FIELD(type, field) if (!strcmp(name, #type "." #field)) return size ? sizeof(((type *)0)->field) : offsetof(type, field);
static long field(const char *name, int size) {
    FIELD(tensor, count) FIELD(tensor, value) FIELD(tensor, gradient) FIELD(tensor, first) FIELD(tensor, second)
    FIELD(tensor, lr) FIELD(tensor, decay)
    FIELD(matrix, weight) FIELD(matrix, out) FIELD(matrix, in) FIELD(matrix, way) FIELD(matrix, mask)
    FIELD(matrix, start) FIELD(matrix, row) FIELD(matrix, column) FIELD(matrix, start_transposed)
    FIELD(matrix, row_transposed) FIELD(matrix, place) FIELD(matrix, transposed) FIELD(matrix, pairs)
    FIELD(matrix, pairs_transposed)
    FIELD(block, norm1) FIELD(block, norm2) FIELD(block, qkv) FIELD(block, out) FIELD(block, mlp_in) FIELD(block, mlp_out)
    FIELD(model, width) FIELD(model, depth) FIELD(model, heads) FIELD(model, head_size) FIELD(model, context)
    FIELD(model, batch) FIELD(model, vocabulary) FIELD(model, tied) FIELD(model, embedding) FIELD(model, attention)
    FIELD(model, readout) FIELD(model, beta1) FIELD(model, beta2) FIELD(model, eps) FIELD(model, clip) FIELD(model, token)
    FIELD(model, position) FIELD(model, blocks) FIELD(model, norm) FIELD(model, untied) FIELD(model, scratch)
    return -1;
}
int piece_offset(const char *name) { return field(name, 0); }
int piece_size(const char *name) { return field(name, 1); }
int piece_size_of_tensor(void) { return sizeof(tensor); }
int piece_size_of_matrix(void) { return sizeof(matrix); }

void piece_exponential(int count, float *x) {
    for (int i = 0; i < count; i += LANES) store(x + i, exponential(load(x + i)));
}

void piece_maximum(int count, float *a, const float *b) {
    for (int i = 0; i < count; i += LANES) store(a + i, maximum(load(a + i), load(b + i)));
}

void piece_minimum(int count, float *a, const float *b) {
    for (int i = 0; i < count; i += LANES) store(a + i, minimum(load(a + i), load(b + i)));
}

void piece_square_root(int count, float *x) {
    for (int i = 0; i < count; i += LANES) store(x + i, square_root(load(x + i)));
}

void piece_transpose(int rows, int columns, const float *a, int a_row, float *b, int b_row) {
    transpose(rows, columns, a, a_row, b, b_row);
}

// LANES rows of LANES values, and one sum for each.
void piece_lane_sums(const float *rows, float *sums) {
    vec x[LANES];
    for (int i = 0; i < LANES; i++) x[i] = load(rows + i * LANES);
    store(sums, lane_sums(x));
}

void piece_product(int m, int n, int k, const float *a, int a_row, int a_step, const float *b, int b_row, float *c,
                   int c_row, int add) {
    product(m, n, k, a, a_row, a_step, b, b_row, c, c_row, add);
}

int piece_pairs_of(int n) { return pairs_of(n); }

void piece_pair_rows(int rows, int columns, const float *a, int a_row, pair *b, int b_row) {
    pair_rows(rows, columns, a, a_row, b, b_row);
}

void piece_pair_columns(int rows, int columns, const float *a, int a_row, pair *b, int b_row) {
    pair_columns(rows, columns, a, a_row, b, b_row);
}

void piece_half_product(int m, int n, int k, const pair *a, int a_row, const pair *b, int b_row, float *c, int c_row,
                        int add) {
    half_product(m, n, k, a, a_row, b, b_row, c, c_row, add);
}

void piece_sparse_product(int rows, int n, const int32_t *start, const int32_t *index, const float *value, const float *x,
                          float *y, int add) {
    sparse_product(rows, n, start, index, value, x, y, add);
}

void piece_sampled_product(int count, int n, const int32_t *row, const int32_t *column, const float *dy, const float *x,
                           float *gradient) {
    sampled_product(count, n, row, column, dy, x, gradient);
}

void piece_norm(int width, int n, const float *x, const float *gain, float factor, float *normed, float *rstd, float *y) {
    norm(width, n, x, gain, factor, normed, rstd, y);
}

void piece_scaled(int width, int n, const float *normed, const float *gain, float factor, float *y) {
    scaled(width, n, normed, gain, factor, y);
}

void piece_norm_backward(int width, int n, const float *dy, const float *gain, float factor, const float *normed,
                         const float *rstd, float *dgain, float *dx) {
    norm_backward(width, n, dy, gain, factor, normed, rstd, dgain, dx);
}

void piece_gelu(int count, float *x, float *slope) { gelu(count, x, slope); }
void piece_gelu_backward(int count, const float *slope, float *d) { gelu_backward(count, slope, d); }

// A chunk of `sequences` in memory of its own; `end` gives it back.
static chunk begin(const model *m, int sequences) {
    long floats;
    lay_out(m, sequences, 0, &floats);
    return lay_out(m, sequences, aligned_alloc(64, sizeof(float) * floats), 0);
}
static void end(chunk *c) { free(c->first.normed1); }

// qkv: 3 heads x size rows of sequences x padded(context) columns; so are mixed and its gradient, and dqkv.
void piece_attention(int heads, int size, int context, int sequences, float scale, const float *qkv, float *mixed,
                     const float *dmixed, float *dqkv) {
    model m = {.width = heads * size, .depth = 1, .heads = heads, .head_size = size, .context = context,
               .batch = sequences, .vocabulary = 16, .attention = scale};
    chunk c = begin(&m, sequences);
    saved s = saved_of(&c, 0);
    long bytes = sizeof(float) * m.width * c.n;
    memcpy(s.qkv, qkv, 3 * bytes);
    attention(&m, &c, &s);
    memcpy(mixed, s.mixed, bytes);
    memcpy(c.dinner, dmixed, bytes);
    attention_backward(&m, &c, &s, c.dinner);
    memcpy(dqkv, c.dqkv, 3 * bytes);
    end(&c);
}

// logits: vocabulary rows of sequences x padded(context) columns, replaced by their gradient.
void piece_cross_entropy(int vocabulary, int context, int sequences, const int32_t *tokens, float weight, float *logits,
                         double *losses) {
    model m = {.width = 16, .depth = 1, .heads = 1, .head_size = 16, .context = context, .batch = sequences,
               .vocabulary = vocabulary};
    chunk c = begin(&m, sequences);
    long bytes = sizeof(float) * vocabulary * c.n;
    take_tokens(&m, &c, tokens);
    memcpy(c.logits, logits, bytes);
    cross_entropy(&m, &c, weight, losses);
    memcpy(logits, c.logits, bytes);
    end(&c);
}

// x: width rows of sequences x padded(context) columns.
void piece_look_up(const model *m, int sequences, const int32_t *tokens, float *x) {
    chunk c = begin(m, sequences);
    take_tokens(m, &c, tokens);
    look_up(m, &c);
    memcpy(x, c.x, sizeof(float) * m->width * c.n);
    end(&c);
}

void piece_look_up_backward(model *m, int sequences, const int32_t *tokens, const float *dx) {
    chunk c = begin(m, sequences);
    take_tokens(m, &c, tokens);
    memcpy(c.dx, dx, sizeof(float) * m->width * c.n);
    look_up_backward(m, &c);
    end(&c);
}

// y = W x of a matrix of the model, and from dy the gradients of x and W; `sequences` of m's context are the columns.
void piece_linear(const model *m, matrix *w, int sequences, const float *x, float *y, int add, const float *dy, float *dx,
                  int dx_add) {
    chunk c = begin(m, sequences);
    refresh(w, c.spare);
    linear(w, c.n, x, y, add, c.spare);
    linear_backward(w, c.n, x, dy, dx, dx_add, c.spare);
    mask_gradient(w);
    end(&c);
}
