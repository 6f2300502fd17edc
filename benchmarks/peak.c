/* What a core can do at most, GFLOP/s: independent fused multiply-adds, best of many short stretches.
 *
 * Prints a line per precision, "float32 GFLOP/s", and "bfloat16 GFLOP/s" where the machine multiplies bfloat16.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <time.h>
#if defined(__AVX512BF16__) || defined(__AMX_BF16__)
#include <immintrin.h>
#endif
#ifdef __AMX_BF16__
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* Chains of dependent multiply-adds, enough to hide their latency in two units; variables, as an array is spilled. */
#define TWELVE(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#if defined(__AVX512F__)
#define BYTES 64
#define CHAINS 16
#define EACH_CHAIN(DO) TWELVE(DO) DO(12) DO(13) DO(14) DO(15)
#else
#if defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#define CHAINS 12
#define EACH_CHAIN(DO) TWELVE(DO)
#endif
typedef float Vector __attribute__((vector_size(BYTES)));

enum { TIMES = 40, REPEATS = 200000 };

/* Stops the compiler from working anything out beforehand or leaving it out. */
#if defined(__x86_64__)
#define KEPT(vector) "+v"(vector)
#elif defined(__aarch64__)
#define KEPT(vector) "+w"(vector)
#else
#define KEPT(vector) "+m"(vector)
#endif
#define KEEP(vector) __asm__ volatile("" : KEPT(vector))

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

static double float32(void) { /* seconds of REPEATS x CHAINS vectors */
#define BEGIN(i) Vector sum##i = {0};
#define MULTIPLY_ADD(i) sum##i = sum##i * a + b; KEEP(sum##i);
  EACH_CHAIN(BEGIN)
  Vector a, b;
  for (unsigned i = 0; i < BYTES / 4; i++) a[i] = 0.5f, b[i] = 1.0f;
  KEEP(a);
  KEEP(b);
  double start = now();
  for (int k = 0; k < REPEATS; k++) {
    EACH_CHAIN(MULTIPLY_ADD)
  }
  return now() - start;
#undef BEGIN
#undef MULTIPLY_ADD
}

#ifdef __AVX512BF16__
static double avx512(void) {
#define BEGIN(i) __m512 sum##i = _mm512_setzero_ps();
#define MULTIPLY_ADD(i) sum##i = _mm512_dpbf16_ps(sum##i, a, a); KEEP(sum##i);
  EACH_CHAIN(BEGIN)
  __m512i bits = _mm512_set1_epi16(0x3f00); /* 0.5 */
  __m512bh a;
  memcpy(&a, &bits, sizeof a);
  double start = now();
  for (int k = 0; k < REPEATS; k++) {
    EACH_CHAIN(MULTIPLY_ADD)
  }
  return now() - start;
#undef BEGIN
#undef MULTIPLY_ADD
}
#endif

#ifdef __AMX_BF16__
static int amx_allowed(void) { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; } /* ARCH_REQ_XCOMP_PERM, tile data */

static double amx(void) { /* seconds of REPEATS x 4 tiles */
  struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  } shape;
  memset(&shape, 0, sizeof shape);
  shape.palette = 1;
  for (int i = 0; i < 8; i++) shape.bytes[i] = 64, shape.rows[i] = 16;
  _tile_loadconfig(&shape);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  double start = now();
  for (int k = 0; k < REPEATS; k++) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  double took = now() - start;
  _tile_release();
  return took;
}
#endif

static void say(const char *precision, double (*seconds)(void), double flops) {
  double best = 1e30;
  for (int i = 0; i < TIMES; i++) {
    double took = seconds();
    best = took < best ? took : best;
  }
  printf("%s %.1f\n", precision, 1e-9 * flops * REPEATS / best);
}

int main(void) {
  say("float32", float32, CHAINS * 2.0 * BYTES / 4);
#ifdef __AMX_BF16__
  if (amx_allowed()) {
    say("bfloat16", amx, 4 * 2.0 * 16 * 16 * 32);
    return 0;
  }
#endif
#ifdef __AVX512BF16__
  say("bfloat16", avx512, CHAINS * 2.0 * 32);
#endif
  return 0;
}
