/* Plans: successive configurations of an exhaustive plan, and any of a sampled one. plans.py is the
 * definition; a test holds the two together. */

#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "neurofail.h"

enum { PLACES, CHOICES, STRATA, BLOCK_FIELDS };
enum { FIRST_ROW, VARIANTS, JOINT, DRAWN, MOST, CHOICE_FIELDS };

/* One block's place in the plan's tables and in the state. */
typedef struct block {
    const int64_t *field;
    const int64_t *choice;
    const int32_t *size;
    const int64_t *end;
    int32_t *state; /* the stratum, then per choice its positions and variants */
} block;

/* Block `index`; for the number of blocks, only `state` is meant: where the last block's ends. */
static block block_at(const nf_plan *plan, int index, int32_t *state)
{
    block here = {plan->block, plan->choice, plan->size, plan->end, state + 1};
    for (int b = 0; b < index; b++) {
        here.size += here.field[STRATA] * here.field[CHOICES];
        here.end += plan->end ? here.field[STRATA] : 0;
        here.state += 1;
        for (int k = 0; k < here.field[CHOICES]; k++, here.choice += CHOICE_FIELDS)
            here.state += 2 * here.choice[MOST];
        here.field += BLOCK_FIELDS;
    }
    return here;
}

static int32_t *positions_of(const block *at, int k)
{
    int32_t *positions = at->state + 1;
    for (int i = 0; i < k; i++)
        positions += 2 * at->choice[i * CHOICE_FIELDS + MOST];
    return positions;
}

static const int32_t *sizes_of(const block *at)
{
    return at->size + at->state[0] * at->field[CHOICES];
}

/* Places that the choices before k leave free. */
static int64_t free_places(const block *at, int k)
{
    int64_t left = at->field[PLACES];
    for (int i = 0; i < k; i++)
        left -= sizes_of(at)[i];
    return left;
}

/* ---- Random numbers: Philox 4x32-10 (philox.py says from where) ---- */

enum { ROUNDS = 10, WORDS = 4, ABREAST = 4 /* blocks of words made together, two to a vector */ };

/* Two blocks' worth of one word, each in the low half. What the high halves hold is nobody's concern. */
typedef uint64_t pair __attribute__((vector_size(16)));

static inline pair product(pair word, uint32_t factor)
{
#ifdef __SSE2__
    return (pair)_mm_mul_epu32((__m128i)word, _mm_set1_epi64x(factor));
#else
    return (word & 0xFFFFFFFF) * (pair){factor, factor};
#endif
}

/* A seed's key for each round. */
typedef struct schedule {
    uint32_t key[ROUNDS][2];
} schedule;

static schedule schedule_of(uint64_t seed)
{
    schedule of = {{{(uint32_t)seed, (uint32_t)(seed >> 32)}}};
    for (int round = 1; round < ROUNDS; round++) {
        of.key[round][0] = of.key[round - 1][0] + 0x9E3779B9;
        of.key[round][1] = of.key[round - 1][1] + 0xBB67AE85;
    }
    return of;
}

/* ABREAST blocks: `each` (1, 2 or 4) successive ones, from `block` on, for each of as many successive
 * configurations, from `index` on, as that leaves. */
static void make(const schedule *of, uint64_t index, int each, uint32_t block, uint32_t *word)
{
    pair c[WORDS][ABREAST / 2];
    for (int i = 0; i < ABREAST / 2; i++) {
        const int left = 2 * i, right = left + 1, shift = each / 2; /* each is 1 << shift */
        pair configuration = (pair){index + (uint64_t)(left >> shift), index + (uint64_t)(right >> shift)};
        c[0][i] = configuration;
        c[1][i] = configuration >> 32;
        c[2][i] = (pair){block + (uint32_t)(left & (each - 1)), block + (uint32_t)(right & (each - 1))};
        c[3][i] = (pair){0, 0};
    }
    for (int round = 0; round < ROUNDS; round++) {
        const uint64_t k0 = of->key[round][0], k1 = of->key[round][1];
        for (int i = 0; i < ABREAST / 2; i++) {
            pair p = product(c[0][i], 0xD2511F53), q = product(c[2][i], 0xCD9E8D57);
            c[0][i] = (q >> 32) ^ c[1][i] ^ (pair){k0, k0};
            c[1][i] = q;
            c[2][i] = (p >> 32) ^ c[3][i] ^ (pair){k1, k1};
            c[3][i] = p;
        }
    }
    for (int i = 0; i < ABREAST; i++)
        for (int w = 0; w < WORDS; w++)
            word[i * WORDS + w] = (uint32_t)c[w][i / 2][i % 2];
}

/* The words of one configuration. */
typedef struct stream {
    const schedule *of;
    uint64_t index;
    uint32_t block; /* the first not made yet */
    int left;       /* of those made */
    const uint32_t *next;
    uint32_t word[WORDS * ABREAST];
} stream;

static inline uint32_t next_word(stream *from)
{
    if (!from->left) {
        make(from->of, from->index, ABREAST, from->block, from->word);
        from->next = from->word;
        from->left = WORDS * ABREAST;
        from->block += ABREAST;
    }
    from->left--;
    return *from->next++;
}

/* Below `bound`, each number equally likely (Lemire's rejection). */
static uint32_t below(stream *from, uint32_t bound)
{
    uint64_t product = (uint64_t)next_word(from) * bound;
    if ((uint32_t)product < bound) {
        uint32_t threshold = -bound % bound;
        while ((uint32_t)product < threshold)
            product = (uint64_t)next_word(from) * bound;
    }
    return (uint32_t)(product >> 32);
}

static double unit(stream *from)
{
    uint64_t high = next_word(from), low = next_word(from);
    return (double)(high << 21 | low >> 11) * 0x1p-53;
}

/* The stratum whose cumulative share is the first above a 128-bit number. */
static int32_t stratum_of(stream *from, const uint64_t *threshold, int64_t strata)
{
    uint64_t half[2];
    for (int i = 0; i < 2; i++) {
        uint64_t word = next_word(from);
        half[i] = word << 32 | next_word(from);
    }
    int64_t low = 0, high = strata - 1;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        const uint64_t *at = threshold + 2 * middle;
        if (half[0] < at[0] || (half[0] == at[0] && half[1] < at[1]))
            high = middle;
        else
            low = middle + 1;
    }
    return (int32_t)low;
}

/* Floyd's algorithm, its members kept ascending. Among few members no branch depends on what is drawn, for none
 * could be predicted; many are moved at once. */
static void subset(stream *from, int64_t places, int32_t size, int32_t *members)
{
    const int32_t few = 32;
    for (int32_t count = 0; count < size; count++) {
        int32_t last = (int32_t)(places - size + count);
        int32_t added = (int32_t)below(from, (uint32_t)last + 1), rank = 0;
        for (int32_t i = 0; i < count; i++)
            rank += members[i] < added;
        members[count] = last;
        int known = members[rank] == added;
        added = known ? last : added;
        if (count >= few) {
            rank = known ? count : rank;
            memmove(members + rank + 1, members + rank, (size_t)(count - rank) * sizeof *members);
            members[rank] = added;
            continue;
        }
        for (int32_t i = 0; i < count; i++) {
            int32_t member = members[i];
            members[i] = member < added ? member : added;
            added = member < added ? added : member;
        }
        members[count] = added;
    }
}

/* ---- What a block chose, as rows ---- */

/* Writes a row in its place among those written: by stage, then by number. */
static int insert(const nf_plan *plan, int32_t row, double level, int32_t *rows, double *levels, int count)
{
    int i = count;
    for (; i > 0 && (plan->stage[rows[i - 1]] > plan->stage[row] ||
                     (plan->stage[rows[i - 1]] == plan->stage[row] && rows[i - 1] > row));
         i--) {
        rows[i] = rows[i - 1];
        if (levels)
            levels[i] = levels[i - 1];
    }
    rows[i] = row;
    if (levels)
        levels[i] = level;
    return count + 1;
}

/* The place at a position among those that `taken` (ascending) leaves. */
static int32_t place_at(int32_t position, const int32_t *taken, int count)
{
    for (int i = 0; i < count && taken[i] <= position; i++)
        position++;
    return position;
}

/* Writes the rows of a block's selection; values drawn at random take their levels from `from`. Places
 * taken by earlier choices are kept, ascending, in `taken`. */
static int write_block(const nf_plan *plan, const block *at, int32_t target, stream *from, int32_t *taken,
                       int32_t *rows, double *levels, int count)
{
    int held = 0, choices = (int)at->field[CHOICES];
    for (int k = 0; k < choices; k++) {
        const int64_t *choice = at->choice + k * CHOICE_FIELDS;
        const int32_t *positions = positions_of(at, k), *variants = positions + choice[MOST];
        int before = held;
        for (int32_t i = 0; i < sizes_of(at)[k]; i++) {
            int32_t place = place_at(positions[i], taken, before);
            int32_t variant = choice[JOINT] ? target : variants[i];
            double level = from && choice[DRAWN] ? unit(from) : 0;
            count = insert(plan, (int32_t)(choice[FIRST_ROW] + place * choice[VARIANTS] + variant), level, rows,
                           levels, count);
            if (choices > 1)
                taken[held++] = place;
        }
        /* Ascending again, for the next choice: both halves are. */
        for (int i = before; i < held; i++)
            for (int j = i; j > 0 && taken[j - 1] > taken[j]; j--) {
                int32_t swap = taken[j];
                taken[j] = taken[j - 1];
                taken[j - 1] = swap;
            }
    }
    return count;
}

static void pad(int32_t *rows, int count, int slots)
{
    for (; count < slots; count++)
        rows[count] = -1;
}

/* ---- Enumeration ---- */

static void first_of(const block *at, int k)
{
    int32_t size = sizes_of(at)[k], *positions = positions_of(at, k);
    for (int32_t i = 0; i < size; i++)
        positions[i] = i;
    memset(positions + at->choice[k * CHOICE_FIELDS + MOST], 0, (size_t)size * sizeof *positions);
}

/* The next variants, or the next combination with the first variants; 0 when there is none. */
static int next_of(const block *at, int k)
{
    const int64_t *choice = at->choice + k * CHOICE_FIELDS;
    int32_t size = sizes_of(at)[k], *positions = positions_of(at, k), *variants = positions + choice[MOST];
    int64_t places = free_places(at, k);
    if (!choice[JOINT])
        for (int32_t i = size - 1; i >= 0; i--) {
            if (++variants[i] < choice[VARIANTS])
                return 1;
            variants[i] = 0;
        }
    for (int32_t i = size - 1; i >= 0; i--)
        if (positions[i] < places - size + i) {
            positions[i]++;
            for (int32_t j = i + 1; j < size; j++)
                positions[j] = positions[j - 1] + 1;
            return 1;
        }
    return 0;
}

static int next_block(const block *at)
{
    int choices = (int)at->field[CHOICES];
    for (int k = choices - 1; k >= 0; k--) {
        if (next_of(at, k)) {
            for (int i = k + 1; i < choices; i++)
                first_of(at, i);
            return 1;
        }
    }
    int more = at->state[0] + 1 < at->field[STRATA];
    at->state[0] = more ? at->state[0] + 1 : 0;
    for (int k = 0; k < choices; k++)
        first_of(at, k);
    return more;
}

/* How many subsets of k of n things have, which must fit. */
static int64_t combinations(int64_t n, int64_t k)
{
    int64_t count = 1;
    k = k < n - k ? k : n - k;
    for (int64_t i = 1; i <= k; i++) {
        /* The next is count * factor / i. Divided first, no product is larger than what comes of it. */
        int64_t factor = n - k + i, rest = count % i;
        count = count / i * factor + rest * factor / i;
    }
    return k < 0 ? 0 : count;
}

/* The subset of this rank, ascending (combinations.py says how): as it mirrors the order, the largest m with
 * C(m, i) <= what is left gives the next member. */
static void unrank(int64_t rank, int64_t places, int32_t size, int32_t *members)
{
    int64_t left = combinations(places, size) - 1 - rank, above = places;
    for (int32_t i = size; i > 0; i--) {
        int64_t low = i - 1, high = above - 1;
        /* Where most places fail, most members follow on the one before. */
        if (combinations(high, i) <= left)
            low = high;
        while (low < high) {
            int64_t middle = (low + high + 1) / 2;
            if (combinations(middle, i) <= left)
                low = middle;
            else
                high = middle - 1;
        }
        left -= combinations(low, i);
        members[size - i] = (int32_t)(places - 1 - low);
        above = low;
    }
}

/* Puts the state where configuration `index` of an exhaustive plan is: Exhaustive.select, in numbers that fit. */
static void seek(const nf_plan *plan, int64_t index, int32_t *state)
{
    for (int b = plan->blocks - 1; b >= 0; b--) {
        block at = block_at(plan, b, state);
        int64_t low = 0, high = at.field[STRATA] - 1, digit = index % at.end[high];
        index /= at.end[high];
        while (low < high) {
            int64_t middle = (low + high) / 2;
            if (digit < at.end[middle])
                high = middle;
            else
                low = middle + 1;
        }
        digit -= low ? at.end[low - 1] : 0;
        at.state[0] = (int32_t)low;
        for (int k = (int)at.field[CHOICES] - 1; k >= 0; k--) {
            const int64_t *choice = at.choice + k * CHOICE_FIELDS;
            int32_t size = sizes_of(&at)[k], *positions = positions_of(&at, k), *variants = positions + choice[MOST];
            for (int32_t i = size - 1; i >= 0; i--) {
                variants[i] = choice[JOINT] ? 0 : (int32_t)(digit % choice[VARIANTS]);
                digit /= choice[JOINT] ? 1 : choice[VARIANTS];
            }
            int64_t places = free_places(&at, k), subsets = combinations(places, size);
            unrank(digit % subsets, places, size, positions);
            digit /= subsets;
        }
    }
    state[0] = (int32_t)index;
}

/* Whether the last block's last row is simply the last to be written, and is all that most steps change. */
static int plain(const nf_plan *plan, const block *last, int32_t *state)
{
    if (plan->blocks < 1 || last->field[CHOICES] != 1 || (last->choice[VARIANTS] > 1 && !last->choice[JOINT]))
        return 0;
    for (int b = 0; b + 1 < plan->blocks; b++) {
        block at = block_at(plan, b, state);
        int64_t final = at.choice[FIRST_ROW] + at.field[PLACES] * at.choice[VARIANTS] - 1;
        if (plan->stage[final] > plan->stage[last->choice[FIRST_ROW]])
            return 0;
    }
    return 1;
}

static void enumerate(const nf_plan *plan, int32_t *state, int64_t n, int32_t *rows)
{
    int32_t *taken = block_at(plan, plan->blocks, state).state;
    block last = block_at(plan, plan->blocks > 0 ? plan->blocks - 1 : 0, state);
    int quick = plain(plan, &last, state);
    for (int64_t c = 0; c < n; c++, rows += plan->slots) {
        int count = 0;
        for (int b = 0; b < plan->blocks; b++) {
            block at = block_at(plan, b, state);
            count = write_block(plan, &at, state[0], NULL, taken, rows, NULL, count);
        }
        pad(rows, count, plan->slots);
        int32_t size = quick ? sizes_of(&last)[0] : 0, *end = size ? positions_of(&last, 0) + size - 1 : NULL;
        int64_t run = end ? last.field[PLACES] - 1 - *end : 0;
        run = run < n - 1 - c ? run : n - 1 - c;
        if (run > 0) {
            for (int slot = 0; slot < plan->slots; slot++) {
                int32_t row = rows[slot], step = slot == count - 1 ? (int32_t)last.choice[VARIANTS] : 0;
                for (int64_t i = 1; i <= run; i++)
                    rows[i * plan->slots + slot] = row += step;
            }
            *end += (int32_t)run;
            c += run;
            rows += run * plan->slots;
        }
        int b = plan->blocks - 1;
        for (; b >= 0; b--) {
            block at = block_at(plan, b, state);
            if (next_block(&at))
                break;
        }
        if (b < 0)
            state[0]++;
    }
}

/* ---- Sampling ---- */

static void draw_block(stream *from, const block *at, const uint64_t *threshold)
{
    int64_t strata = at->field[STRATA];
    at->state[0] = strata > 1 ? stratum_of(from, threshold, strata) : 0;
    for (int k = 0; k < at->field[CHOICES]; k++) {
        const int64_t *choice = at->choice + k * CHOICE_FIELDS;
        int32_t size = sizes_of(at)[k], *positions = positions_of(at, k);
        subset(from, free_places(at, k), size, positions);
        for (int32_t i = 0; i < size; i++)
            positions[choice[MOST] + i] =
                choice[VARIANTS] > 1 && !choice[JOINT] ? (int32_t)below(from, (uint32_t)choice[VARIANTS]) : 0;
    }
}

static void draw(const nf_plan *plan, stream *from, int32_t *state, int32_t *taken, int32_t *rows, double *levels)
{
    int count = 0;
    state[0] = plan->targets > 1 ? (int32_t)below(from, (uint32_t)plan->targets) : 0;
    const uint64_t *threshold = plan->threshold;
    for (int b = 0; b < plan->blocks; b++) {
        block at = block_at(plan, b, state);
        draw_block(from, &at, threshold);
        threshold += 2 * at.field[STRATA];
    }
    for (int b = 0; b < plan->blocks; b++) {
        block at = block_at(plan, b, state);
        count = write_block(plan, &at, state[0], from, taken, rows, levels, count);
    }
    pad(rows, count, plan->slots);
    for (; levels && count < plan->slots; count++)
        levels[count] = 0;
}

/* Whether a place is all there is to draw of a failure: a single kind in each block, and one way to fail. */
static int direct(const nf_plan *plan)
{
    for (int b = 0; b < plan->blocks; b++)
        if (plan->block[b * BLOCK_FIELDS + CHOICES] != 1 || plan->choice[b * CHOICE_FIELDS + VARIANTS] != 1 ||
            plan->choice[b * CHOICE_FIELDS + DRAWN])
            return 0;
    return plan->targets <= 1;
}

/* What `draw` does, for a direct plan: places go straight into the rows. */
static void draw_direct(const nf_plan *plan, stream *from, int32_t *rows)
{
    const int64_t *field = plan->block, *choice = plan->choice;
    const int32_t *size = plan->size;
    const uint64_t *threshold = plan->threshold;
    int count = 0;
    for (int b = 0; b < plan->blocks; b++) {
        int64_t strata = field[STRATA];
        int32_t failures = size[strata > 1 ? stratum_of(from, threshold, strata) : 0];
        subset(from, field[PLACES], failures, rows + count);
        for (int32_t end = count + failures; count < end;)
            count = insert(plan, (int32_t)choice[FIRST_ROW] + rows[count], 0, rows, NULL, count);
        size += strata;
        threshold += 2 * strata;
        field += BLOCK_FIELDS;
        choice += CHOICE_FIELDS;
    }
    pad(rows, count, plan->slots);
}

static void sample(const nf_plan *plan, uint64_t first, int64_t n, int32_t *state, int32_t *rows, double *levels)
{
    int32_t *taken = block_at(plan, plan->blocks, state).state;
    const schedule of = schedule_of(plan->seed);
    const int straight = !levels && direct(plan), each = plan->slots <= WORDS ? 1 : plan->slots <= 2 * WORDS ? 2 : ABREAST;
    uint32_t word[WORDS * ABREAST];
    for (int64_t c = 0; c < n; c++, rows += plan->slots, levels += levels ? plan->slots : 0) {
        const int at = (int)(c & (ABREAST / each - 1));
        const uint64_t index = first + (uint64_t)c;
        if (!at)
            make(&of, index, each, 0, word);
        stream from;
        from.of = &of;
        from.index = index;
        from.block = (uint32_t)each;
        from.left = WORDS * each;
        from.next = word + WORDS * each * at;
        if (straight)
            draw_direct(plan, &from, rows);
        else
            draw(plan, &from, state, taken, rows, levels);
    }
}

int nf_rows(const nf_plan *plan, int32_t *state, uint64_t first, int64_t n, int32_t *rows, double *levels)
{
    if (!plan || n < 0 || !state || (n && plan->slots && !rows))
        return NF_BAD_ARGUMENT;
    if (plan->sampled) {
        sample(plan, first, n, state, rows, levels);
        return NF_OK;
    }
    if (plan->end)
        seek(plan, (int64_t)first, state);
    enumerate(plan, state, n, rows);
    if (levels)
        memset(levels, 0, (size_t)n * (size_t)plan->slots * sizeof *levels);
    return NF_OK;
}
