/* What this machine can do, in the instruction mix of fault simulation; nothing of neurofail is in here.
 *
 * limits.py compiles it once for each instruction set, with -DBYTES=16, 32 or 64 (the vector's size). Every
 * function runs `repeats` times and returns the seconds of its own thread's CPU time, so that what else runs
 * on the machine counts as little as it can. */

#define _GNU_SOURCE
#include <stdint.h>
#include <time.h>

#if BYTES > 16
#include <immintrin.h>
#endif

typedef float f32 __attribute__((vector_size(BYTES)));
typedef double f64 __attribute__((vector_size(BYTES)));
typedef int32_t i32 __attribute__((vector_size(BYTES)));

#define LANES (BYTES / 4)
#if BYTES == 64
#define MAX(a, b) ((f32)_mm512_max_ps((__m512)(a), (__m512)(b)))
#define MIN(a, b) ((f32)_mm512_min_ps((__m512)(a), (__m512)(b)))
#define MAX_BITS(a, b) ((f32)_mm512_max_epi32((__m512i)(a), (__m512i)(b)))
#elif BYTES == 32
#define MAX(a, b) ((f32)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define MIN(a, b) ((f32)_mm256_min_ps((__m256)(a), (__m256)(b)))
#define MAX_BITS(a, b) ((f32)_mm256_max_epi32((__m256i)(a), (__m256i)(b)))
#else
/* No intrinsics: any processor. A comparison of vectors is a mask of all ones or none. */
#define CHOOSE(mask, a, b) ((f32)(((i32)(a) & (mask)) | ((i32)(b) & ~(mask))))
#define MAX(a, b) CHOOSE((a) > (b), a, b)
#define MIN(a, b) CHOOSE((a) < (b), a, b)
#define MAX_BITS(a, b) CHOOSE((i32)(a) > (i32)(b), a, b)
#endif
/* Enough chains to hide a multiply-add's latency, few enough for the registers. */
#define CHAINS (BYTES == 64 ? 16 : 12)
/* The compiler must take the vector as changed, and keep it in a register. */
#if BYTES == 64
#define OPAQUE(vector) __asm__ volatile("" : "+v"(vector))
#else
#define OPAQUE(vector) __asm__ volatile("" : "+x"(vector))
#endif
/* Loops over arrays that are to live in registers. */
#define UNROLLED _Pragma("GCC unroll 16")
#define CACHED 2048 /* floats of an array that stays in the first-level cache */

static volatile float sink;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- Multiply-add peak: CHAINS vectors, no memory ---- */

#define PEAK(real, vec)                                           \
    double peak_##real(long repeats)                              \
    {                                                             \
        vec sum[CHAINS];                                          \
        volatile real one = 1;                                    \
        vec a = (vec){0} + one, b = a;                            \
        UNROLLED for (int i = 0; i < CHAINS; i++)                          \
            sum[i] = a;                                           \
        double began = now();                                     \
        for (long n = 0; n < repeats; n++) {                      \
            OPAQUE(a);                                            \
            UNROLLED for (int i = 0; i < CHAINS; i++) {                    \
                sum[i] = a * b + sum[i];                          \
                OPAQUE(sum[i]);                                   \
            }                                                     \
        }                                                         \
        double seconds = now() - began;                           \
        UNROLLED for (int i = 1; i < CHAINS; i++)                          \
            sum[0] += sum[i];                                     \
        sink = (float)sum[0][0];                                  \
        return seconds;                                           \
    }                                                             \
    long peak_##real##_flops(void) { return 2L * CHAINS * (long)(BYTES / sizeof(real)); }
typedef float float32;
typedef double float64;
PEAK(float32, f32)
PEAK(float64, f64)

/* ---- Activations of an array in the first-level cache ---- */

/* 1 / (1 + e^-x) with e^r = (g + r) / (g - r), g = r coth(r / 2); absolute error below 2e-7. */
static inline f32 sigmoid(f32 x)
{
    f32 limit = (f32){0} + 80.0f;
    x = MIN(MAX(x, -limit), limit);
    f32 shifted = x * 1.44269504f + (12582912.0f + 127.0f);
    f32 r = x - (shifted - (12582912.0f + 127.0f)) * 0.69314718f;
    f32 r2 = r * r;
    f32 g = r2 * (r2 * -0.0027698388f + 0.16666655f) + 2.0f;
    f32 top = (g + r) * (f32)((i32)shifted << 23);
    return top / (top + (g - r));
}

static inline f32 relu(f32 x)
{
    f32 zero = {0};
    return MAX(x, zero);
}

/* The larger of acc and |x|: sign-free patterns order as numbers do, and NaN stays. */
static inline f32 larger(f32 acc, f32 x) { return MAX_BITS(acc, (i32)x & 0x7fffffff); }

#define ACTIVATE(name)                                                               \
    double activate_##name(long repeats)                                             \
    {                                                                                \
        _Alignas(64) float in[CACHED], out[CACHED];                                  \
        for (int i = 0; i < CACHED; i++)                                             \
            in[i] = -4.0f + 8.0f * (float)i / CACHED;                                \
        double began = now();                                                        \
        for (long n = 0; n < repeats; n++) {                                         \
            for (int i = 0; i < CACHED; i += 2 * LANES) {                            \
                f32 left = name(*(f32 *)(in + i)), right = name(*(f32 *)(in + i + LANES)); \
                *(f32 *)(out + i) = left;                                            \
                *(f32 *)(out + i + LANES) = right;                                   \
            }                                                                        \
            __asm__ volatile("" ::: "memory");                                       \
        }                                                                            \
        double seconds = now() - began;                                              \
        sink = out[1];                                                               \
        return seconds;                                                              \
    }
ACTIVATE(sigmoid)
ACTIVATE(relu)

long activate_count(void) { return CACHED; }

/* ---- Reduction: multiply-add, magnitude, maximum, as failures of the last hidden layer need ---- */

double reduce(long repeats)
{
    _Alignas(64) float base[CACHED];
    for (int i = 0; i < CACHED; i++)
        base[i] = (float)i;
    volatile float one = 1.0f;
    f32 w = (f32){0} + one, d = w, most[8];
    UNROLLED for (int k = 0; k < 8; k++)
        most[k] = w;
    double began = now();
    for (long n = 0; n < repeats; n++) {
        OPAQUE(w);
        for (int i = 0; i < CACHED; i += 8 * LANES)
            UNROLLED for (int k = 0; k < 8; k++)
                most[k] = larger(most[k], w * d + *(f32 *)(base + i + k * LANES));
    }
    double seconds = now() - began;
    UNROLLED for (int k = 1; k < 8; k++)
        most[0] = larger(most[0], most[k]);
    sink = most[0][0];
    return seconds;
}

/* ---- Triad a = b + s c over arrays of n floats ---- */

double triad(long repeats, float *a, const float *b, const float *c, long n)
{
    volatile float three = 3.0f;
    double began = now();
    for (long r = 0; r < repeats; r++) {
        f32 s = (f32){0} + three;
        for (long i = 0; i < n; i += LANES)
            *(f32 *)(a + i) = *(const f32 *)(b + i) + s * *(const f32 *)(c + i);
        __asm__ volatile("" ::: "memory");
    }
    double seconds = now() - began;
    sink = a[n / 2];
    return seconds;
}

/* ---- The plain trial kernel: what workload W2a does, in one fused pass without any tuning.
 * It is the yardstick of the regression check: the kernel's instruction mix, in code that never changes. ---- */

#define WIDTH 128
#define OUTPUTS 10
#define CONFIGURATIONS 64

typedef struct desk {
    _Alignas(64) float base[WIDTH * LANES], golden[WIDTH * LANES], deviation[LANES];
    float column[WIDTH + CONFIGURATIONS], out[WIDTH * OUTPUTS];
} desk;

#define TRIAL(name)                                                                          \
    static f32 pass_##name(const desk *at, const float *column)                              \
    {                                                                                        \
        f32 sum[OUTPUTS], d = *(const f32 *)at->deviation, most = {0};                       \
        UNROLLED for (int k = 0; k < OUTPUTS; k++)                                           \
            sum[k] = (f32){0};                                                               \
        for (int j = 0; j < WIDTH; j++) {                                                    \
            f32 y = name(*(const f32 *)(at->base + j * LANES) + d * column[j]);              \
            y -= *(const f32 *)(at->golden + j * LANES);                                     \
            UNROLLED for (int k = 0; k < OUTPUTS; k++)                                       \
                sum[k] += y * at->out[j * OUTPUTS + k];                                      \
        }                                                                                    \
        UNROLLED for (int k = 0; k < OUTPUTS; k++)                                           \
            most = larger(most, sum[k]);                                                     \
        return most;                                                                         \
    }                                                                                        \
    double trial_##name(long repeats)                                                        \
    {                                                                                        \
        desk at;                                                                             \
        for (int i = 0; i < WIDTH * LANES; i++)                                              \
            at.base[i] = (float)(i % 17) / 8 - 1, at.golden[i] = 0.5f;                       \
        for (int i = 0; i < WIDTH + CONFIGURATIONS; i++)                                     \
            at.column[i] = (float)(i % 13) / 64;                                             \
        for (int i = 0; i < WIDTH * OUTPUTS; i++)                                            \
            at.out[i] = (float)(i % 11) / 64 - 0.08f;                                        \
        for (int i = 0; i < LANES; i++)                                                      \
            at.deviation[i] = (float)i / LANES - 0.5f;                                       \
        f32 most = {0};                                                                      \
        double began = now();                                                                \
        for (long n = 0; n < repeats; n++)                                                   \
            for (int c = 0; c < CONFIGURATIONS; c++) {                                       \
                __asm__ volatile("" ::: "memory");                                           \
                most = larger(most, pass_##name(&at, at.column + c));                        \
            }                                                                                \
        double seconds = now() - began;                                                      \
        sink = most[0];                                                                      \
        return seconds;                                                                      \
    }
TRIAL(sigmoid)
TRIAL(relu)

long trial_evaluations(void) { return (long)CONFIGURATIONS * LANES; }
