// The native engine with a sampler: where the process is whenever its profiling timer rings, callers included.
//
// Callers are found by frame pointers, so this is to be compiled with -fno-omit-frame-pointer and without tail calls.
#define _GNU_SOURCE
#include "engine.c"
#include <signal.h>
#include <sys/time.h>
#include <ucontext.h>

enum { CALLERS = 16, SAMPLES = 1 << 16 };
static long samples[SAMPLES][CALLERS]; // offsets in this library, the innermost first, then zeros
static volatile int taken;

extern char __ehdr_start __attribute__((visibility("hidden"))), etext __attribute__((visibility("hidden")));
static int ours(const char *address) { return address > &__ehdr_start && address < &etext; }

static void sample(int number, siginfo_t *info, void *context) {
    (void)number, (void)info;
    const mcontext_t *machine = &((ucontext_t *)context)->uc_mcontext;
#if defined(__x86_64__)
    const char *at = (const char *)machine->gregs[REG_RIP];
    char *const *frame = (char *const *)machine->gregs[REG_RBP];
#elif defined(__aarch64__)
    const char *at = (const char *)machine->pc;
    char *const *frame = (char *const *)machine->regs[29];
#endif
    if (!ours(at) || taken == SAMPLES) return;
    long *to = samples[taken++];
    for (int depth = 0; depth < CALLERS && ours(at); depth++) {
        *to++ = at - &__ehdr_start;
        at = frame[1] - 1; // of the call, not of what follows it
        frame = (char *const *)frame[0];
    }
}

// Begin to sample anew, every `microseconds` of the process's time (the system may round up); 0 ends it.
void native_sample(long microseconds) {
    if (microseconds) taken = 0;
    struct sigaction action = {.sa_sigaction = sample, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(SIGPROF, &action, 0);
    struct itimerval every = {{0, microseconds}, {0, microseconds}};
    setitimer(ITIMER_PROF, &every, 0);
}

// How many samples there are; `*rows` is the first of them, of native_sample_depth() offsets each.
int native_samples(const long **rows) { return *rows = samples[0], taken; }
int native_sample_depth(void) { return CALLERS; }
