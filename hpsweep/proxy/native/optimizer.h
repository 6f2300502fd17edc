// Clipping and AdamW, as torch has them (clip_grad_norm_, torch.optim.AdamW); optimizer.py.
#pragma once
#include "tensors.h"

// The sum of the squares of a gradient.
static double squares(const tensor *t) {
    double total = 0;
    for (long p = 0; p < t->count; p += 4096) {
        long end = p + 4096 < t->count ? p + 4096 : t->count;
        vec sum = {0};
        for (long q = p; q + LANES <= end; q += LANES) sum += load(t->gradient + q) * load(t->gradient + q);
        total += lane_sum(sum);
        for (long q = p + (end - p) / LANES * LANES; q < end; q++) total += t->gradient[q] * t->gradient[q];
    }
    return total;
}

// One step (the `step`-th, from 1) with gradients multiplied by `scale`. Arrays are padded to whole vectors.
static void adamw(tensor *t, const model *m, long step, float factor, float scale) {
    const double lr = t->lr * factor;
    const float size = lr / (1 - pow(m->beta1, step)), root = 1 / sqrt(1 - pow(m->beta2, step));
    const float keep = 1 - lr * t->decay, eps = m->eps, old = m->beta2, new = 1 - m->beta2, toward = 1 - m->beta1;
    for (long p = 0; p < t->count; p += LANES) {
        vec g = load(t->gradient + p) * scale;
        vec first = load(t->first + p), second = load(t->second + p) * old;
        first += (g - first) * toward;
        second += g * g * new;
        store(t->first + p, first);
        store(t->second + p, second);
        store(t->value + p, load(t->value + p) * keep - size * first / (square_root(second) * root + eps));
    }
}
