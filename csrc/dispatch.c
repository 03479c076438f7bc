/* Chooses the instruction set, and checks what comes from outside before a kernel sees it. */

#include <string.h>

#include "kernel.h"

int nf_supported(int isa)
{
    if (isa == NF_PORTABLE)
        return 1;
#if NF_X86
    __builtin_cpu_init();
    if (isa == NF_AVX2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi");
    if (isa == NF_AVX512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi");
#endif
    return 0;
}

static const nf_kernel *find(int isa, int bits)
{
    if ((bits != 32 && bits != 64) || !nf_supported(isa))
        return NULL;
#if NF_X86
    if (isa == NF_AVX512)
        return bits == 32 ? &nf_kernel_f32_avx512 : &nf_kernel_f64_avx512;
    if (isa == NF_AVX2)
        return bits == 32 ? &nf_kernel_f32_avx2 : &nf_kernel_f64_avx2;
#endif
    return bits == 32 ? &nf_kernel_f32_portable : &nf_kernel_f64_portable;
}

static int known(int activation) { return activation >= NF_ACT_IDENTITY && activation <= NF_ACT_SOFTSIGN; }

static int fits(int layers, const nf_layer *layer, int64_t inputs)
{
    if (layers < 2 || !layer || inputs < 1)
        return 0;
    for (int l = 0; l < layers; l++)
        if (layer[l].inputs < 1 || layer[l].neurons < 1 || !known(layer[l].activation) ||
            (l && layer[l].inputs != layer[l - 1].neurons))
            return 0;
    return 1;
}

/* Every operation that a row can name points inside the model, whose layers have `neurons`, `step` bytes apart. */
static int sound(const nf_sites *sites, int layers, int inputs, const int32_t *neurons, size_t step)
{
    for (int64_t r = 0; r < sites->rows; r++) {
        const int stage = sites->stage[r], l = (stage + 1) / 2, synapse = stage % 2;
        const int64_t first = sites->first[r], last = sites->first[r + 1];
        if (l < 1 || l > layers || (!synapse && l == layers))
            return 0;
        if (first < 0 || last < first + 1 || (!synapse && last > first + 1))
            return 0;
        const char *width = (const char *)neurons + (size_t)(l - 1) * step;
        const int here = *(const int32_t *)width, before = l > 1 ? *(const int32_t *)(width - step) : inputs;
        for (int64_t o = first; o < last; o++)
            if (sites->neuron[o] < 0 || sites->neuron[o] >= here || (sites->action[o] == NF_SYNAPSE) != synapse ||
                sites->action[o] < NF_SET || sites->action[o] > NF_SYNAPSE ||
                (synapse && (sites->source[o] < 0 || sites->source[o] >= before)))
                return 0;
    }
    return 1;
}

/* What a model can be made of. */
static int makes_sense(int layers, const nf_layer *layer, int64_t inputs, const nf_sites *sites)
{
    return fits(layers, layer, inputs) &&
           (!sites || sound(sites, layers, layer[0].inputs, &layer[0].neurons, sizeof *layer));
}

int nf_activate(int isa, int bits, int activation, const double *parameters, int64_t n, const void *in,
                void *out)
{
    const nf_kernel *kernel = find(isa, bits);
    if (!kernel)
        return NF_NO_ISA;
    if (!known(activation) || !parameters || n < 0 || !in || !out)
        return NF_BAD_ARGUMENT;
    kernel->activate(activation, parameters, n, in, out);
    return NF_OK;
}

size_t nf_model_bytes(int isa, int bits, int layers, const nf_layer *layer, int64_t inputs, const nf_sites *sites,
                      int most, int alone)
{
    const nf_kernel *kernel = find(isa, bits);
    return kernel && makes_sense(layers, layer, inputs, sites)
               ? kernel->model_bytes(layers, layer, inputs, sites, most, alone)
               : 0;
}

int nf_model_init(int isa, int bits, int layers, const nf_layer *layer, int64_t inputs, const nf_sites *sites, int most,
                  int alone, const void *x, void *memory)
{
    const nf_kernel *kernel = find(isa, bits);
    if (!kernel)
        return NF_NO_ISA;
    if (!makes_sense(layers, layer, inputs, sites) || !x || !memory || (uintptr_t)memory % 64)
        return NF_BAD_ARGUMENT;
    for (int l = 0; l < layers; l++)
        if (!layer[l].weights || !layer[l].biases)
            return NF_BAD_ARGUMENT;
    kernel->model_init(layers, layer, inputs, sites, most, alone, x, memory);
    return NF_OK;
}

int64_t nf_model_blocks(const void *model) { return ((const nf_model *)model)->blocks; }

int nf_model_golden(void *memory, int64_t first, int64_t last, int arrange)
{
    nf_model *model = memory;
    if (!model || first < 0 || last < first || last > model->blocks)
        return NF_BAD_ARGUMENT;
    find(model->isa, model->bits)->golden(model, first, last, arrange);
    return NF_OK;
}

int nf_sites_check(const void *memory, const nf_sites *sites)
{
    const nf_model *model = memory;
    const int good = model && sites && sound(sites, model->layers, model->layer[1].inputs, &model->layer[1].neurons,
                                             sizeof *model->layer);
    return good ? NF_OK : NF_BAD_ARGUMENT;
}

size_t nf_workspace_bytes(const void *memory, int slots)
{
    const nf_model *model = memory;
    return slots < 0 ? 0 : find(model->isa, model->bits)->workspace_bytes(model, slots);
}

int nf_workspace_init(const void *memory, const nf_sites *sites, int slots, void *workspace)
{
    const nf_model *model = memory;
    if (!model || !sites || slots < 0 || !workspace || (uintptr_t)workspace % 64)
        return NF_BAD_ARGUMENT;
    if (model->sites && model->sites != sites)
        return NF_BAD_ARGUMENT;
    find(model->isa, model->bits)->workspace_init(model, sites, slots, workspace);
    return NF_OK;
}

int nf_evaluate(void *workspace, int64_t n, const int32_t *rows, const double *levels, int share, int64_t first,
                int64_t last, double *errors, int64_t *sdc, int64_t *due, double *each)
{
    if (!workspace)
        return NF_BAD_ARGUMENT;
    const nf_desk *desk = workspace;
    const nf_model *model = desk->model;
    const nf_sites *sites = desk->sites;
    const int slots = desk->slots;
    if (n < 0 || (n && slots && !rows) || first < 0 || last < first || last > model->blocks || !errors || !sdc ||
        !due)
        return NF_BAD_ARGUMENT;
    for (int64_t c = 0; c < n; c++)
        for (int slot = 0, stage = 0; slot < slots && rows[c * slots + slot] >= 0; slot++) {
            int32_t row = rows[c * slots + slot];
            if (row >= sites->rows || sites->stage[row] < stage)
                return NF_BAD_ARGUMENT;
            stage = sites->stage[row];
        }
    find(model->isa, model->bits)->evaluate(workspace, n, rows, levels, share, first, last, errors, sdc, due, each);
    return NF_OK;
}

int nf_tally(int64_t n, const double *errors, const int64_t *sdc, const int64_t *due, double epsilon,
             nf_totals *totals)
{
    const int octave = 4, lowest = -64, bins = 512;
    if (n < 0 || !errors || !sdc || !due || !totals)
        return NF_BAD_ARGUMENT;
    /* On the stack, where the compiler sees that no two of these are the same number. */
    nf_totals sum = {.worst = -1};
    for (int64_t i = 0; i < n; i++) {
        if (sum.worst < 0 || errors[i] > sum.error) {
            sum.worst = i;
            sum.error = errors[i];
        }
        sum.sdc += sdc[i];
        sum.due += due[i];
        sum.exceeded += errors[i] > epsilon;
        /* The exponent and the two leading bits of the fraction number the quarter octaves. */
        int64_t pattern, bin;
        memcpy(&pattern, &errors[i], sizeof pattern);
        bin = (pattern >> 50) - (int64_t)(1023 + lowest) * octave + 1;
        sum.histogram[bin < 1 ? 0 : bin > bins ? bins + 1 : bin]++;
    }
    *totals = sum;
    return NF_OK;
}

int nf_campaign(void *workspace, const nf_plan *plan, int32_t *state, uint64_t first, int64_t n,
                const nf_records *records, double epsilon, nf_totals *totals)
{
    const nf_desk *desk = workspace;
    if (!desk || !plan || plan->slots != desk->slots || n < 0 || !records || !records->errors || !records->sdc ||
        !records->due)
        return NF_BAD_ARGUMENT;
    int status = nf_rows(plan, state, first, n, records->rows, records->levels);
    if (status != NF_OK)
        return status;
    memset(records->errors, 0, (size_t)n * sizeof *records->errors);
    memset(records->sdc, 0, (size_t)n * sizeof *records->sdc);
    memset(records->due, 0, (size_t)n * sizeof *records->due);
    status = nf_evaluate(workspace, n, records->rows, records->levels, !plan->sampled, 0, desk->model->blocks,
                         records->errors, records->sdc, records->due, NULL);
    return status == NF_OK ? nf_tally(n, records->errors, records->sdc, records->due, epsilon, totals) : status;
}
