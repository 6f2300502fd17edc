// What the engine is told of a trial: tensors with their numbers, and the three ways to multiply with a matrix.
// Mirrored by ctypes structures in memory.py; all memory belongs to Python.
#pragma once
#include "half.h"

// A parameter with its gradient, AdamW's moments and its own learning rate and weight decay.
typedef struct {
    long count; // stored values: padded rows of a dense matrix, nonzeros of a sparse one
    float *value, *gradient, *first, *second;
    double lr, decay;
} tensor;

enum { DENSE, SPARSE, HALF };

// A matrix (out x in) that multiplies features: y = W x for columns of tokens.
typedef struct {
    tensor weight; // DENSE and HALF: out rows of padded(in) values
    int out, in, way;
    const float *mask; // DENSE and HALF: 1 where a weight exists, 0 elsewhere; null if all do
    // SPARSE: nonzeros row by row; `start` has out + 1 entries
    const int32_t *start, *row, *column;
    // and column by column: which nonzero stands where; `start_transposed` has in + 1 entries
    const int32_t *start_transposed, *row_transposed, *place;
    float *transposed; // SPARSE: the values column by column
    pair *pairs, *pairs_transposed; // HALF: out rows of pairs_of(in), and in rows of pairs_of(out)
} matrix;

typedef struct {
    tensor norm1, norm2; // gains
    matrix qkv, out, mlp_in, mlp_out;
} block;

typedef struct {
    int width, depth, heads, head_size, context, batch, vocabulary, tied;
    float embedding, attention, readout; // forward multipliers
    double beta1, beta2, eps, clip;
    matrix token;    // (vocabulary x width), and the readout if it is tied
    tensor position; // context rows of padded(width)
    block *blocks;
    tensor norm;
    matrix untied; // the readout if it is not tied
    float *scratch; // of scratch_floats
} model;
