/* The public C interface. Everything is caller-allocated; nothing here allocates, locks or keeps state.
 * Every function returns an nf_status unless it says otherwise. Layers count from 1 (the first hidden
 * layer); layer `layers` is the linear output layer. Sizes are in elements, not bytes, unless said. */

#ifndef NEUROFAIL_H
#define NEUROFAIL_H

#include <stddef.h>
#include <stdint.h>

enum nf_status { NF_OK = 0, NF_BAD_ARGUMENT = 1, NF_NO_ISA = 2 };

enum nf_isa { NF_PORTABLE = 0, NF_AVX2 = 1, NF_AVX512 = 2 };

enum nf_activation {
    NF_ACT_IDENTITY = 0,
    NF_ACT_RELU,
    NF_ACT_LEAKY_RELU,
    NF_ACT_RELU6,
    NF_ACT_SIGMOID,
    NF_ACT_TANH,
    NF_ACT_HARD_SIGMOID,
    NF_ACT_CLIP,
    NF_ACT_SOFTPLUS,
    NF_ACT_ELU,
    NF_ACT_GELU,
    NF_ACT_SILU,
    NF_ACT_SOFTSIGN
};

/* What a row of the site table does: y is a neuron's output, s a pre-activation. */
enum nf_action {
    NF_SET = 0,    /* y <- value */
    NF_SHIFT = 1,  /* y <- golden y + value */
    NF_ADD = 2,    /* y <- y + value */
    NF_SYNAPSE = 3 /* s_neuron <- s_neuron + weight * y_source + value */
};

/* A dense layer. weights is row-major (neurons, inputs), biases (neurons); both float or double as the
 * model's bits say. The activation's gain is already folded into both. */
typedef struct nf_layer {
    int32_t inputs;
    int32_t neurons;
    int32_t activation;
    double parameters[2];
    const void *weights;
    const void *biases;
} nf_layer;

/* The site table: row r owns the operations first[r] .. first[r + 1] - 1, all at one stage: 2 l - 1 acts on
 * the pre-activations of layer l, 2 l on its outputs. The value used is value + level * span. */
typedef struct nf_sites {
    int64_t rows;
    const int64_t *first;
    const int32_t *stage;
    const int32_t *action;
    const int32_t *neuron;
    const int32_t *source;
    const double *weight;
    const double *value;
    const double *span;
} nf_sites;

/* A plan as flat tables (plans.py says what they mean). A sampled one is drawn from the seed; an exhaustive one
 * has no thresholds.
 * block: 3 numbers each: places, choices, strata.
 * choice: 5 numbers each: first row, variants, joint, drawn, most failures.
 * size: per stratum, one count for each choice of its block.
 * end: per stratum, the configurations of its block up to and with it; NULL in a sampled plan, and in an exhaustive
 * one of 2^63 configurations or more.
 * threshold: per stratum, the high and the low half of its cumulative share of 2^128 (sampled plans). */
typedef struct nf_plan {
    int32_t sampled;
    uint64_t seed;
    int32_t slots;
    int32_t targets;
    int32_t blocks;
    const int64_t *block;
    const int64_t *choice;
    const int32_t *size;
    const int64_t *end;
    const uint64_t *threshold;
    const int32_t *stage;
} nf_plan;

/* What is kept of many configurations. The histogram counts configurations by their worst error, in
 * quarter octaves from 2^-64 (entry 1) to 2^64 (entry 512); entries 0 and 513 hold what lies outside. */
typedef struct nf_totals {
    int64_t worst;
    double error;
    int64_t sdc;
    int64_t due;
    int64_t exceeded;
    int64_t histogram[514];
} nf_totals;

/* Room for n configurations: rows (n, slots), levels (n, slots) or NULL, and of each its worst error, and the numbers
 * of inputs with a silent corruption and with a NaN or infinite output. */
typedef struct nf_records {
    int32_t *rows;
    double *levels;
    double *errors;
    int64_t *sdc;
    int64_t *due;
} nf_records;

/* Whether this machine (and this build) can run an instruction set: 1 or 0. */
int nf_supported(int isa);

/* out[i] = activation(in[i]) for n numbers of `bits` 32 or 64, with an instruction set's own code. */
int nf_activate(int isa, int bits, int activation, const double *parameters, int64_t n, const void *in,
                void *out);

/* A model is a network packed for one instruction set together with its golden run over a set of inputs.
 * Its memory is the caller's: nf_model_bytes bytes, aligned to 64, neither moved nor changed afterwards.
 * With `sites`, whose rows must point inside the model, and which it then keeps, it holds what bounds the failures of
 * neurons of the two last hidden layers, where that can be, for configurations with no more than `most` in the first of
 * these: most evaluations then need not be run to know the worst error. `alone` says that there are configurations in
 * which only these fail. It pays for many configurations, and changes nothing else.
 * nf_model_bytes and nf_workspace_bytes return 0 for arguments that cannot be served. */
size_t nf_model_bytes(int isa, int bits, int layers, const nf_layer *layer, int64_t inputs, const nf_sites *sites,
                      int most, int alone);
int nf_model_init(int isa, int bits, int layers, const nf_layer *layer, int64_t inputs, const nf_sites *sites, int most,
                  int alone, const void *x, void *memory);

/* Inputs are run in blocks of lanes; this is the number of blocks. */
int64_t nf_model_blocks(const void *model);

/* The golden run of blocks first .. last - 1. Such ranges are independent: threads may share them out. A range's inputs
 * may change places, with `arrange` so that those with the same golden class lie together; it pays where neighbouring
 * configurations fail in the last hidden layer. It changes nothing but the time they take. */
int nf_model_golden(void *model, int64_t first, int64_t last, int arrange);

/* Whether every row of the table points inside the model: NF_OK, or NF_BAD_ARGUMENT. What follows relies on it and
 * does not repeat it. */
int nf_sites_check(const void *model, const nf_sites *sites);

/* One thread's working memory, nf_workspace_bytes bytes, aligned to 64, for configurations of up to `slots` rows of a
 * checked table: the model's own, if it was made with one. It is for this model (whose golden run is made) and this
 * table as they are, and remembers what one call found out for the next. */
size_t nf_workspace_bytes(const void *model, int slots);
int nf_workspace_init(const void *model, const nf_sites *sites, int slots, void *workspace);

/* Evaluates n configurations on the inputs of blocks first .. last - 1.
 * rows: (n, slots), each configuration's rows by ascending stage, no two for the output of one neuron, unused slots at
 * the end -1. levels: (n, slots) or NULL. share: whether neighbours tend to agree in their leading rows.
 * errors (n): raised to the configuration's worst error over these inputs (infinity for NaN).
 * sdc, due (n): raised by its numbers of silent corruptions and of NaN or infinite outputs.
 * each: NULL, or (n, inputs): every evaluation's error. */
int nf_evaluate(void *workspace, int64_t n, const int32_t *rows, const double *levels, int share, int64_t first,
                int64_t last, double *errors, int64_t *sdc, int64_t *due, double *each);

/* Writes the rows (and the levels, unless NULL) of n configurations, first .. first + n - 1. The state has the joint
 * choice, then per block the stratum and per choice its positions and variants (most failures each), then `slots`
 * numbers of room. It is where an exhaustive plan without `end` begins instead, and advances; else it is but room. */
int nf_rows(const nf_plan *plan, int32_t *state, uint64_t first, int64_t n, int32_t *rows, double *levels);

/* The totals of n evaluated configurations; `worst` is the first with the largest error, or -1 where n is 0. */
int nf_tally(int64_t n, const double *errors, const int64_t *sdc, const int64_t *due, double epsilon,
             nf_totals *totals);

/* All of that for the configurations that nf_rows would write, on all inputs: the records and the totals become
 * theirs. */
int nf_campaign(void *workspace, const nf_plan *plan, int32_t *state, uint64_t first, int64_t n,
                const nf_records *records, double epsilon, nf_totals *totals);

#endif
