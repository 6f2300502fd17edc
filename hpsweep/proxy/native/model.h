// The GPT of model.py, function by function, for a chunk of whole sequences.
//
// Every activation is (features x n): rows are features, columns tokens, a sequence after the other, each padded to a
// multiple of 16. Padding carries token 0 and no loss; no real token attends to it, so its gradients are zero.
#pragma once
#include "linear.h"

#define TOKENS 128 // columns of a chunk, or one sequence if it is longer

// What the backward pass needs of a block.
typedef struct {
    float *normed1, *rstd1, *qkv, *probabilities, *mixed, *normed2, *rstd2, *hidden, *slope;
} saved;

// Memory of a chunk, carved out of model.scratch.
typedef struct {
    int sequences, span, n; // of this chunk; columns of a sequence; of the chunk
    saved first;            // of block 0; those of the others follow at `per_block`
    long per_block;
    float *x, *normed, *rstd, *inner, *logits, *dx, *dinner, *dqkv, *scores, *turned, *spare;
    int32_t *ids, *targets;
} chunk;

static long span_of(const model *m) { return padded(m->context); }
static int sequences_of(const model *m) { return span_of(m) < TOKENS ? smaller(m->batch, TOKENS / span_of(m)) : 1; }

#ifndef LEAVE_GAP // between arrays, where the tests' sanitizer sees that one is overrun
#define LEAVE_GAP(array, count)
#endif

// Where everything lies; with null as base only `*floats`, how much there is.
static chunk lay_out(const model *m, int sequences, float *base, long *floats) {
    chunk c = {.sequences = sequences, .span = span_of(m)};
    long n = c.n = sequences * c.span, width = padded(m->width), wide = 4 * width, vocabulary = padded(m->vocabulary);
    long square = (long)c.span * c.span, widest = wide > vocabulary ? wide : vocabulary;
    long at = 0;
#define TAKE(name, count) name = base ? base + at : 0, at += padded(count); LEAVE_GAP(name, padded(count))
    TAKE(c.first.normed1, width * n);
    TAKE(c.first.rstd1, n);
    TAKE(c.first.qkv, 3 * width * n);
    TAKE(c.first.probabilities, m->heads * sequences * square);
    TAKE(c.first.mixed, width * n);
    TAKE(c.first.normed2, width * n);
    TAKE(c.first.rstd2, n);
    TAKE(c.first.hidden, wide * n);
    TAKE(c.first.slope, wide * n);
    c.per_block = at;
    UNUSED float *others;
    TAKE(others, (m->depth - 1) * c.per_block);
    TAKE(c.x, width * n);
    TAKE(c.normed, width * n);
    TAKE(c.rstd, n);
    TAKE(c.inner, width * n);
    TAKE(c.logits, vocabulary * n);
    TAKE(c.dx, width * n);
    TAKE(c.dinner, wide * n);
    TAKE(c.dqkv, 3 * width * n);
    TAKE(c.scores, square);
    TAKE(c.turned, 2 * c.span * padded(m->head_size));
    TAKE(c.spare, 2 * widest * (n > width ? n : width));
    float *ids, *targets;
    TAKE(ids, n);
    TAKE(targets, n);
    c.ids = (int32_t *)ids, c.targets = (int32_t *)targets;
    if (floats) *floats = at;
    return c;
}

static saved saved_of(const chunk *c, int block) {
    saved s = c->first;
    float **field = (float **)&s;
    for (unsigned i = 0; i < sizeof s / sizeof *field; i++) field[i] += block * c->per_block;
    return s;
}

// The chunk's tokens out of sequences of context + 1 tokens.
static void take_tokens(const model *m, chunk *c, const int32_t *tokens) {
    for (int s = 0; s < c->sequences; s++)
        for (int t = 0; t < c->span; t++) {
            int here = s * c->span + t, real = t < m->context;
            c->ids[here] = real ? tokens[s * (m->context + 1) + t] : 0;
            c->targets[here] = real ? tokens[s * (m->context + 1) + t + 1] : -1;
        }
}

static void look_up(const model *m, const chunk *c) {
    long width = padded(m->width);
    for (int i = 0; i < c->n; i++) {
        const float *token = m->token.weight.value + c->ids[i] * width;
        const float *position = m->position.value + smaller(i % c->span, m->context - 1) * width;
        float *to = c->spare + i * width;
        for (long f = 0; f < width; f += LANES) store(to + f, (load(token + f) + load(position + f)) * m->embedding);
    }
    transpose(c->n, m->width, c->spare, width, c->x, c->n);
}

static void look_up_backward(model *m, const chunk *c) {
    long width = padded(m->width);
    transpose(m->width, c->n, c->dx, c->n, c->spare, width);
    for (int i = 0; i < c->n; i++) {
        if (c->targets[i] < 0) continue;
        float *token = m->token.weight.gradient + c->ids[i] * width;
        float *position = m->position.gradient + i % c->span * width;
        for (long f = 0; f < width; f += LANES) {
            vec d = load(c->spare + i * width + f) * m->embedding;
            store(token + f, load(token + f) + d);
            store(position + f, load(position + f) + d);
        }
    }
}

INLINE void norm_columns(const int columns, int width, long n, const float *x, const float *gain, float factor,
                         float *normed, float *rstd, float *y) {
    vec mean[PANEL], square[PANEL], r[PANEL];
    for (int j = 0; j < columns; j++) mean[j] = square[j] = (vec){0};
    for (int f = 0; f < width; f++)
        for (int j = 0; j < columns; j++) mean[j] += load(x + f * n + j * LANES);
    for (int j = 0; j < columns; j++) mean[j] /= (float)width;
    for (int f = 0; f < width; f++)
        for (int j = 0; j < columns; j++) {
            vec d = load(x + f * n + j * LANES) - mean[j];
            square[j] += d * d;
        }
    for (int j = 0; j < columns; j++) {
        vec variance = square[j] / (float)width;
        r[j] = (variance * 0.0f + 1.0f) / square_root(variance + 1e-5f); // beyond all numbers: no number
        store(rstd + j * LANES, r[j]);
    }
    for (int f = 0; f < width; f++)
        for (int j = 0; j < columns; j++) {
            vec z = (load(x + f * n + j * LANES) - mean[j]) * r[j];
            store(normed + f * n + j * LANES, z);
            store(y + f * n + j * LANES, z * (gain[f] * factor));
        }
}

// y = normed x gain x factor; normed has mean 0 and variance 1 over the features of every token (eps 1e-5).
static void norm(int width, int n, const float *x, const float *gain, float factor, float *normed, float *rstd, float *y) {
    for (int i = 0; i < n; i += PANEL * LANES)
        BY_COLUMNS(norm_columns, smaller(PANEL, (n - i) / LANES), width, n, x + i, gain, factor, normed + i, rstd + i,
                   y + i)
}

// y = normed x gain x factor, again.
static void scaled(int width, int n, const float *normed, const float *gain, float factor, float *y) {
    for (int f = 0; f < width; f++)
        for (int i = 0; i < n; i += LANES) store(y + f * n + i, load(normed + f * n + i) * (gain[f] * factor));
}

INLINE void norm_backward_columns(const int columns, int width, long n, const float *dy, const float *gain, float factor,
                                  const float *normed, const float *rstd, float *dgain, float *dx) {
    vec mean[PANEL], slope[PANEL], r[PANEL];
    for (int j = 0; j < columns; j++) mean[j] = slope[j] = (vec){0};
    for (int f = 0; f < width; f++) {
        vec along = {0};
        for (int j = 0; j < columns; j++) {
            vec d = load(dy + f * n + j * LANES), product = d * load(normed + f * n + j * LANES);
            along += product;
            mean[j] += d * (gain[f] * factor);
            slope[j] += product * (gain[f] * factor);
        }
        dgain[f] += lane_sum(along) * factor;
    }
    for (int j = 0; j < columns; j++) {
        mean[j] /= (float)width;
        slope[j] /= (float)width;
        r[j] = load(rstd + j * LANES);
    }
    for (int f = 0; f < width; f++)
        for (int j = 0; j < columns; j++) {
            vec d = load(dy + f * n + j * LANES) * (gain[f] * factor) - mean[j];
            d -= load(normed + f * n + j * LANES) * slope[j];
            store(dx + f * n + j * LANES, load(dx + f * n + j * LANES) + d * r[j]);
        }
}

// dx += what dy asks of x; the gain's gradient += what it asks of the gain.
static void norm_backward(int width, int n, const float *dy, const float *gain, float factor, const float *normed,
                          const float *rstd, float *dgain, float *dx) {
    for (int i = 0; i < n; i += PANEL * LANES)
        BY_COLUMNS(norm_backward_columns, smaller(PANEL, (n - i) / LANES), width, n, dy + i, gain, factor, normed + i,
                   rstd + i, dgain, dx + i)
}

#define QUERIES (2 * LANES) // treated together in the causal products: keys beyond them are left out

static ivec lane_numbers(int first) {
    ivec numbers;
    for (int l = 0; l < LANES; l++) numbers[l] = first + l;
    return numbers;
}

// p (keys x queries, `span` columns): scores of `queries` columns from `first` on -> probabilities; key <= query.
static void causal_softmax(int first, int queries, int keys, float scale, float *p, int span) {
    for (int i = first; i < first + queries; i += LANES) {
        ivec query = lane_numbers(i);
        vec largest = broadcast(-INFINITY), sum = {0};
        for (int j = 0; j < keys && j < i + LANES; j++)
            largest = maximum(largest, choose(query >= j, load(p + j * span + i) * scale, broadcast(-INFINITY)));
        for (int j = 0; j < keys; j++) {
            vec e = exponential(load(p + j * span + i) * scale - largest);
            e = choose(query >= j, e, (vec){0});
            store(p + j * span + i, e);
            sum += e;
        }
        vec inverse = 1.0f / sum;
        for (int j = 0; j < keys; j++) store(p + j * span + i, load(p + j * span + i) * inverse);
    }
}

static void attention(const model *m, const chunk *c, const saved *s) {
    int n = c->n, span = c->span, size = m->head_size;
    for (int head = 0; head < m->heads; head++)
        for (int sequence = 0; sequence < c->sequences; sequence++) {
            long at = (long)head * size * n + sequence * span, next = (long)m->width * n;
            const float *q = s->qkv + at, *k = q + next, *v = k + next;
            float *p = s->probabilities + ((long)head * c->sequences + sequence) * span * span;
            for (int i = 0; i < span; i += QUERIES) {
                int queries = smaller(QUERIES, span - i), keys = i + queries;
                product(keys, queries, size, k, 1, n, q + i, n, p + i, span, 0);
                causal_softmax(i, queries, keys, m->attention, p, span);
                product(size, queries, keys, v, n, 1, p + i, span, s->mixed + at + i, n, 0);
            }
        }
}

// From the gradient `dmixed` of what attention gave to that of queries, keys and values, in c->dqkv.
static void attention_backward(const model *m, const chunk *c, const saved *s, const float *dmixed) {
    int n = c->n, span = c->span, size = m->head_size;
    long wide = padded(size);
    float *ds = c->scores, *turned = c->turned, *sums = turned + span * wide;
    for (int head = 0; head < m->heads; head++)
        for (int sequence = 0; sequence < c->sequences; sequence++) {
            long at = (long)head * size * n + sequence * span, next = (long)m->width * n;
            const float *q = s->qkv + at, *k = q + next, *v = k + next, *dy = dmixed + at, *y = s->mixed + at;
            const float *p = s->probabilities + ((long)head * c->sequences + sequence) * span * span;
            float *dq = c->dqkv + at, *dk = dq + next, *dv = dk + next;
            transpose(size, span, dy, n, turned, wide);
            for (int j = 0; j < span; j += QUERIES) // the values' gradient: the keys from j on, the queries after
                product(smaller(QUERIES, span - j), wide, span - j, p + (long)j * span + j, span, 1, turned + j * wide,
                        wide, sums + j * wide, wide, 0);
            transpose(span, size, sums, wide, dv, n);
            for (int i = 0; i < span; i += QUERIES) {
                int queries = smaller(QUERIES, span - i), keys = i + queries;
                product(keys, queries, size, v, 1, n, dy + i, n, ds + i, span, 0);
                for (int l = i; l < i + queries; l += LANES) {
                    vec along = {0};
                    for (int f = 0; f < size; f++) along += load(dy + f * n + l) * load(y + f * n + l);
                    for (int j = 0; j < keys; j++) {
                        vec d = (load(ds + j * span + l) - along) * load(p + j * span + l);
                        store(ds + j * span + l, d * m->attention);
                    }
                }
                product(size, queries, keys, k, n, 1, ds + i, span, dq + i, n, 0);
            }
            transpose(size, span, q, n, turned, wide);
            for (int j = 0; j < span; j += QUERIES)
                product(smaller(QUERIES, span - j), wide, span - j, ds + (long)j * span + j, span, 1, turned + j * wide,
                        wide, sums + j * wide, wide, 0);
            transpose(span, size, sums, wide, dk, n);
        }
}

// x -> x Phi(x) in place, and its slope Phi(x) + x phi(x). Phi by Abramowitz and Stegun 7.1.26, to 1e-7.
static void gelu(long count, float *x, float *slope) {
    for (long i = 0; i < count; i += LANES) {
        vec z = load(x + i), size = (vec)((ivec)z & 0x7fffffff);
        vec e = exponential(z * z * -0.5f);
        vec t = 1.0f / (size * 0.2316418882f + 1.0f); // 0.3275911 / sqrt 2
        vec tail = t * 1.061405429f - 1.453152027f;
        tail = tail * t + 1.421413741f;
        tail = tail * t - 0.284496736f;
        tail = tail * t + 0.254829592f;
        tail = tail * t * e * 0.5f;
        vec phi = choose(z < 0, tail, 1.0f - tail);
        store(x + i, z * phi);
        store(slope + i, phi + z * e * 0.39894228f);
    }
}

static void gelu_backward(long count, const float *slope, float *d) {
    for (long i = 0; i < count; i += LANES) store(d + i, load(d + i) * load(slope + i));
}

// Logits -> their gradient in place, times `weight`; the cross-entropy of every token, nats, is added to its sequence.
static void cross_entropy(const model *m, const chunk *c, float weight, double *losses) {
    int n = c->n;
    for (int i = 0; i < n; i += LANES) {
        float *logits = c->logits + i;
        vec largest = broadcast(-INFINITY), sum = {0}, lost = {0}, real;
        for (int v = 0; v < m->vocabulary; v++) largest = maximum(largest, load(logits + (long)v * n));
        float picked[LANES];
        for (int l = 0; l < LANES; l++) {
            int target = c->targets[i + l];
            real[l] = target < 0 ? 0 : weight;
            picked[l] = target < 0 ? 0 : logits[(long)target * n + l];
        }
        for (int v = 0; v < m->vocabulary; v++) {
            vec e = exponential(load(logits + (long)v * n) - largest);
            store(logits + (long)v * n, e);
            vec next = sum + (e - lost); // a large vocabulary has many small terms: what rounding took is given back
            lost = (next - sum) - (e - lost);
            sum = next;
        }
        for (int l = 0; l < LANES; l++)
            if (c->targets[i + l] >= 0) losses[(i + l) / c->span] += log(sum[l]) + largest[l] - picked[l];
        if (!weight) continue;
        vec share = real / sum;
        for (int v = 0; v < m->vocabulary; v++) store(logits + (long)v * n, load(logits + (long)v * n) * share);
        for (int l = 0; l < LANES; l++)
            if (c->targets[i + l] >= 0) logits[(long)c->targets[i + l] * n + l] -= weight;
    }
}

static matrix *readout_of(model *m) { return m->tied ? &m->token : &m->untied; }

// Logits of a chunk whose tokens are taken.
static void forward(model *m, const chunk *c) {
    int n = c->n, width = m->width;
    look_up(m, c);
    for (int b = 0; b < m->depth; b++) {
        block *w = m->blocks + b;
        saved s = saved_of(c, b);
        norm(width, n, c->x, w->norm1.value, 1, s.normed1, s.rstd1, c->inner);
        linear(&w->qkv, n, c->inner, s.qkv, 0, c->spare);
        attention(m, c, &s);
        linear(&w->out, n, s.mixed, c->x, 1, c->spare);
        norm(width, n, c->x, w->norm2.value, 1, s.normed2, s.rstd2, c->inner);
        linear(&w->mlp_in, n, c->inner, s.hidden, 0, c->spare);
        gelu(4L * width * n, s.hidden, s.slope);
        linear(&w->mlp_out, n, s.hidden, c->x, 1, c->spare);
    }
    norm(width, n, c->x, m->norm.value, m->readout, c->normed, c->rstd, c->inner);
    linear(readout_of(m), n, c->inner, c->logits, 0, c->spare);
}

// Adds the chunk's part to every gradient; c->logits holds the gradient of the logits, c->inner the readout's input.
static void backward(model *m, const chunk *c) {
    int n = c->n, width = m->width;
    linear_backward(readout_of(m), n, c->inner, c->logits, c->dinner, 0, c->spare);
    memset(c->dx, 0, sizeof(float) * width * n);
    norm_backward(width, n, c->dinner, m->norm.value, m->readout, c->normed, c->rstd, m->norm.gradient, c->dx);
    for (int b = m->depth - 1; b >= 0; b--) {
        block *w = m->blocks + b;
        saved s = saved_of(c, b);
        linear_backward(&w->mlp_out, n, s.hidden, c->dx, c->dinner, 0, c->spare);
        gelu_backward(4L * width * n, s.slope, c->dinner);
        scaled(width, n, s.normed2, w->norm2.value, 1, c->inner);
        linear_backward(&w->mlp_in, n, c->inner, c->dinner, c->dqkv, 0, c->spare);
        norm_backward(width, n, c->dqkv, w->norm2.value, 1, s.normed2, s.rstd2, w->norm2.gradient, c->dx);
        linear_backward(&w->out, n, s.mixed, c->dx, c->dinner, 0, c->spare);
        attention_backward(m, c, &s, c->dinner);
        scaled(width, n, s.normed1, w->norm1.value, 1, c->inner);
        linear_backward(&w->qkv, n, c->inner, c->dqkv, c->dinner, 0, c->spare);
        norm_backward(width, n, c->dinner, w->norm1.value, 1, s.normed1, s.rstd1, w->norm1.gradient, c->dx);
    }
    look_up_backward(m, c);
}
