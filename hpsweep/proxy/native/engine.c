// The native engine: steps of training of one trial, and its evaluation. Called by engine.py; nothing is shared
// between trials, so any number of threads may train one each. Exported names begin with native_, lest libc has them.
#include "model.h"
#include "optimizer.h"
#if defined(__linux__) && defined(__AMX_BF16__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

int native_lanes(void) { return LANES; }
const char *native_half_unit(void) { return HALF_UNIT; }
long native_size_of_model(void) { return sizeof(model); }
long native_size_of_block(void) { return sizeof(block); }

// Ask the system for the tile unit, once per process; 0 if this build cannot run here.
int native_prepare_machine(void) {
#if defined(__linux__) && defined(__AMX_BF16__)
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0; // ARCH_REQ_XCOMP_PERM, tile data
#else
    return 1;
#endif
}

long native_scratch_floats(const model *m) {
    long floats;
    lay_out(m, sequences_of(m), 0, &floats);
    return floats;
}

typedef void visit_tensor(tensor *t, void *with);
typedef void visit_matrix(matrix *w, void *with);

static void each_matrix(model *m, visit_matrix *visit, void *with) {
    visit(&m->token, with);
    if (!m->tied) visit(&m->untied, with);
    for (int b = 0; b < m->depth; b++) {
        visit(&m->blocks[b].qkv, with);
        visit(&m->blocks[b].out, with);
        visit(&m->blocks[b].mlp_in, with);
        visit(&m->blocks[b].mlp_out, with);
    }
}

static void each_tensor(model *m, visit_tensor *visit, void *with) {
    visit(&m->token.weight, with);
    visit(&m->position, with);
    visit(&m->norm, with);
    if (!m->tied) visit(&m->untied.weight, with);
    for (int b = 0; b < m->depth; b++) {
        block *w = m->blocks + b;
        tensor *all[] = {&w->norm1, &w->norm2, &w->qkv.weight, &w->out.weight, &w->mlp_in.weight, &w->mlp_out.weight};
        for (int i = 0; i < 6; i++) visit(all[i], with);
    }
}

static void refresh_matrix(matrix *w, void *spare) { refresh(w, spare); }
static void mask_matrix(matrix *w, void *unused) { (void)unused, mask_gradient(w); }
static void clear(tensor *t, void *unused) { (void)unused, memset(t->gradient, 0, sizeof(float) * t->count); }
static void add_squares(tensor *t, void *total) { *(double *)total += squares(t); }

typedef struct {
    const model *m;
    long step;
    float factor, scale;
} update;
static void update_tensor(tensor *t, void *with) {
    const update *u = with;
    adamw(t, u->m, u->step, u->factor, u->scale);
}

// Mean cross-entropy of every sequence, nats/token; with a `weight` per token the gradients of all tensors as well.
static void pass(model *m, const int32_t *tokens, int sequences, float weight, double *losses) {
    chunk c = lay_out(m, sequences_of(m), m->scratch, 0);
    each_matrix(m, refresh_matrix, c.spare);
    for (int s = 0; s < sequences; s += sequences_of(m)) {
        c = lay_out(m, smaller(sequences_of(m), sequences - s), m->scratch, 0);
        take_tokens(m, &c, tokens + (long)s * (m->context + 1));
        for (int i = 0; i < c.sequences; i++) losses[s + i] = 0;
        forward(m, &c);
        cross_entropy(m, &c, weight, losses + s);
        if (weight) backward(m, &c);
        for (int i = 0; i < c.sequences; i++) losses[s + i] /= m->context;
    }
}

// `tokens`: sequences x (context + 1); `losses`: sequences.
void native_evaluate(model *m, const int32_t *tokens, int sequences, double *losses) { pass(m, tokens, sequences, 0, losses); }

// The mean loss of a batch (batch x (context + 1) tokens) and all gradients, zero where no weight exists. `losses`: batch.
double native_gradients(model *m, const int32_t *tokens, double *losses) {
    each_tensor(m, clear, 0);
    pass(m, tokens, m->batch, 1.0f / ((float)m->batch * m->context), losses);
    each_matrix(m, mask_matrix, 0);
    double total = 0;
    for (int i = 0; i < m->batch; i++) total += losses[i];
    return total / m->batch;
}

// Clipping and AdamW, the `step`-th from 1, all rates times `factor`; the gradients' norm before.
double native_update(model *m, long step, float factor) {
    double total = 0;
    each_tensor(m, add_squares, &total);
    double norm = sqrt(total), scale = m->clip / (norm + 1e-6);
    update u = {m, step, factor, scale < 1 ? scale : 1};
    each_tensor(m, update_tensor, &u);
    return norm;
}

// Trains `steps` steps, the first being number `first` from 0; losses[i] is step i's, nats/token, not a number if the
// gradient was not finite. Stops after a loss that is not at most `limit`. Returns how many steps it took. `each`: batch
// numbers to work with.
int native_train(model *m, const int32_t *tokens, int steps, long first, const float *factors, double limit, double *losses,
                 double *each) {
    for (int i = 0; i < steps; i++) {
        losses[i] = native_gradients(m, tokens + (long)i * m->batch * (m->context + 1), each);
        double norm = native_update(m, first + i + 1, factors[i]);
        if (!isfinite(norm)) losses[i] = NAN;
        if (!(losses[i] <= limit)) return i + 1;
    }
    return steps;
}
