/* Private: what each instruction set provides, and how a model lies in memory. */

#ifndef NEUROFAIL_KERNEL_H
#define NEUROFAIL_KERNEL_H

#include "neurofail.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define NF_X86 1
#else
#define NF_X86 0
#endif

/* One layer, packed. Offsets count reals from the start of a lane block's golden values. */
typedef struct nf_packed {
    int32_t inputs;
    int32_t neurons;
    int32_t activation;
    int32_t pitch;       /* neurons, filled up to whole vectors */
    int32_t height;      /* rows of weights in a panel; the last panel may have fewer */
    const void *columns; /* (inputs, pitch): what one source sends to every neuron */
    const void *panels;  /* panel by panel, (inputs, rows of the panel): a matrix product's left side */
    const void *biases;
    double parameters[2];
    size_t s; /* golden pre-activations (neurons, lanes) */
    size_t y; /* golden outputs (neurons, lanes) */
} nf_packed;

/* What bounds evaluations, so that most need not be run: slopes.inc and kinks.inc. */
enum nf_bounded { NF_SLOPES = 1, NF_KINKS = 2 };

/* The golden values of a lane block, each row one real per lane: the inputs, then per layer s and y; for
 * the output layer W y alone (s); then the gaps F_k - F_class, the weights of the class, the class, and the
 * error below which it cannot change. */
typedef struct nf_model {
    int32_t isa;
    int32_t bits;
    int32_t layers;
    int32_t lanes; /* of a block */
    int64_t inputs;
    int64_t blocks;
    int64_t tile;  /* blocks that are worked on together */
    int64_t late;  /* the same where only the last hidden layer fails; no fewer */
    size_t stride; /* reals of a block */
    size_t gap;
    size_t own;
    size_t category;
    size_t threshold;
    nf_packed *layer;
    int64_t *order; /* by lane: its input */
    char *golden;
    int32_t bounded;     /* an nf_bounded, or 0 */
    int32_t most;        /* failures of a configuration before the last hidden layer */
    int32_t sifted;      /* whether there are moves.inc's tables */
    size_t slopes_bytes; /* of a block's slopes or kinks */
    char *slopes;
    const void *outgoing; /* the last hidden layer's weights again, for bounds */
    const nf_sites *sites; /* of kinks: what they are of, by row its record or -1, by record its operation */
    int32_t *record_of;
    int64_t *record_at;
    int32_t records;
} nf_model;

/* What every workspace begins with. */
typedef struct nf_desk {
    const nf_model *model;
    const nf_sites *sites;
    int32_t slots;
} nf_desk;

/* One instruction set and one real type. */
typedef struct nf_kernel {
    int32_t lanes;
    size_t (*model_bytes)(int layers, const nf_layer *layer, int64_t inputs, const nf_sites *sites, int most,
                          int alone);
    void (*model_init)(int layers, const nf_layer *layer, int64_t inputs, const nf_sites *sites, int most, int alone,
                       const void *x, void *memory);
    void (*golden)(nf_model *model, int64_t first, int64_t last, int arrange);
    size_t (*workspace_bytes)(const nf_model *model, int slots);
    void (*workspace_init)(const nf_model *model, const nf_sites *sites, int slots, void *workspace);
    void (*evaluate)(void *workspace, int64_t n, const int32_t *rows, const double *levels, int share, int64_t first,
                     int64_t last, double *errors, int64_t *sdc, int64_t *due, double *each);
    void (*activate)(int activation, const double *parameters, int64_t n, const void *in, void *out);
} nf_kernel;

extern const nf_kernel nf_kernel_f32_portable, nf_kernel_f64_portable;
#if NF_X86
extern const nf_kernel nf_kernel_f32_avx2, nf_kernel_f64_avx2;
extern const nf_kernel nf_kernel_f32_avx512, nf_kernel_f64_avx512;
#endif

#endif
