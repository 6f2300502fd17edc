// The native engine with one more function: a matrix alone, forward or both ways.
#include "engine.c"

// The first block's mlp.in over `chunks` chunks of tokens, as a step treats it: refreshed once.
void native_matrix(model *m, int chunks, int backward) {
    chunk c = lay_out(m, sequences_of(m), m->scratch, 0);
    saved s = saved_of(&c, 0);
    matrix *w = &m->blocks[0].mlp_in;
    refresh(w, c.spare);
    for (int i = 0; i < chunks; i++) {
        linear(w, c.n, c.inner, s.hidden, 0, c.spare);
        if (backward) linear_backward(w, c.n, c.inner, c.dinner, c.dqkv, 0, c.spare);
    }
}
