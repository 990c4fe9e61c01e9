#include "runners/llm_sched.h"

#include "core/mem.h"

#include <assert.h>
#include <string.h>

#define WEIGHT_PROMPT 1 /* what a token counts in its client's turn */
#define WEIGHT_ANSWER 2

struct at_llm_client {
    char *name;
    uint64_t served;
    struct at_llm_seq *first, *last; /* waiting */
    size_t running;
    struct at_llm_client *prev, *next;
};

/* A sequence number of the engine and what its cache holds there. */
struct slot {
    struct at_llm_seq *seq; /* NULL: free, or kept as prefix */
    int32_t *kept;          /* tokens of a kept prefix */
    uint32_t *cells;        /* of each token */
    size_t n, room;
    uint64_t used_at;
};

struct at_llm_sched {
    struct at_llm_sched_options options;
    struct at_llm_cache cache;
    struct slot *slots;
    size_t n_slots;
    uint16_t *shares; /* of each cell: slots that hold it */
    uint16_t *live;   /* of them running ones */
    size_t n_live;    /* cells that some running one holds */
    uint32_t *free_cells;
    size_t n_free;
    struct at_llm_seq **running; /* in the order of admission */
    size_t n_running;
    struct at_llm_client *clients;
    size_t n_waiting;
    size_t gap_steps; /* for so many there is a gap between those that run */
    uint64_t floor;   /* where a client that comes (back) begins */
    uint64_t ticks, orders, preemptions, reused;
};

int at_llm_sched_slots(const struct at_llm_sched_options *options)
{
    return (int)(options->sequences_max +
                 (options->reuse && !options->split ? AT_LLM_KEPT_MAX : 0));
}

struct at_llm_sched *at_llm_sched_new(const struct at_llm_sched_options *options,
                                      const struct at_llm_cache *cache)
{
    struct at_llm_sched *s = AT_NEW(struct at_llm_sched);
    assert(options->sequences_max >= 1);
    assert(options->step_tokens_max >= 1);
    s->options = *options;
    s->cache = *cache;
    s->n_slots = (size_t)at_llm_sched_slots(options);
    s->slots = at_alloc(s->n_slots * sizeof *s->slots);
    s->shares = at_alloc(options->cells * sizeof *s->shares);
    s->live = at_alloc(options->cells * sizeof *s->live);
    s->free_cells = at_alloc(options->cells * sizeof *s->free_cells);
    s->running = at_alloc(options->sequences_max * sizeof *s->running);
    for (size_t i = 0; i < options->cells; i++) {
        s->free_cells[s->n_free++] = (uint32_t)(options->cells - 1 - i);
    }
    return s;
}

static void client_free(struct at_llm_sched *s, struct at_llm_client *c)
{
    *(c->prev != NULL ? &c->prev->next : &s->clients) = c->next;
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    at_free(c->name);
    at_free(c);
}

void at_llm_sched_free(struct at_llm_sched *s)
{
    if (s == NULL) {
        return;
    }
    while (s->clients != NULL) {
        client_free(s, s->clients);
    }
    for (size_t i = 0; i < s->n_slots; i++) {
        at_free(s->slots[i].kept);
        at_free(s->slots[i].cells);
    }
    at_free(s->slots);
    at_free(s->shares);
    at_free(s->live);
    at_free(s->free_cells);
    at_free(s->running);
    at_free(s);
}

/* --- cells --- */

static void live_add(struct at_llm_sched *s, uint32_t cell)
{
    s->n_live += s->live[cell]++ == 0;
}

static void live_drop(struct at_llm_sched *s, uint32_t cell)
{
    assert(s->live[cell] > 0);
    s->n_live -= --s->live[cell] == 0;
}

static void slot_cut(struct at_llm_sched *s, size_t index, size_t from)
{
    struct slot *slot = &s->slots[index];
    if (slot->n <= from) {
        return;
    }
    for (size_t i = from; i < slot->n; i++) {
        uint32_t cell = slot->cells[i];
        assert(s->shares[cell] > 0);
        if (slot->seq != NULL) {
            live_drop(s, cell);
        }
        if (--s->shares[cell] == 0) {
            s->free_cells[s->n_free++] = cell;
        }
    }
    slot->n = from;
    s->cache.drop(s->cache.ctx, (int)index, from);
}

static void slot_room(struct slot *slot, size_t n)
{
    if (slot->room < n) {
        slot->room = n + n / 2 + 64;
        slot->cells = at_realloc(slot->cells, slot->room * sizeof *slot->cells);
    }
}

static void slot_grow(struct at_llm_sched *s, struct slot *slot, size_t n)
{
    assert(s->n_free >= n);
    slot_room(slot, slot->n + n);
    for (size_t i = 0; i < n; i++) {
        uint32_t cell = s->free_cells[--s->n_free];
        assert(s->shares[cell] == 0);
        s->shares[cell] = 1;
        live_add(s, cell);
        slot->cells[slot->n++] = cell;
    }
}

/* The first n tokens of one slot for another, which is empty. false: there they are not. */
static bool slot_share(struct at_llm_sched *s, size_t from, size_t to, size_t n)
{
    struct slot *source = &s->slots[from], *target = &s->slots[to];
    assert(target->n == 0);
    assert(source->n >= n);
    if (!s->cache.copy(s->cache.ctx, (int)from, (int)to, n)) {
        return false;
    }
    if (s->options.split) {
        slot_grow(s, target, n);
        return true;
    }
    slot_room(target, n);
    for (size_t i = 0; i < n; i++) {
        target->cells[i] = source->cells[i];
        s->shares[source->cells[i]]++;
        live_add(s, source->cells[i]);
    }
    target->n = n;
    return true;
}

/* A kept prefix gets a sequence again, which goes on behind its first n tokens. */
static void slot_resume(struct at_llm_sched *s, size_t index, size_t n)
{
    struct slot *slot = &s->slots[index];
    assert(slot->seq == NULL);
    assert(slot->kept != NULL);
    at_free(slot->kept);
    slot->kept = NULL;
    slot_cut(s, index, n);
    for (size_t i = 0; i < slot->n; i++) {
        live_add(s, slot->cells[i]);
    }
}

static void slot_empty(struct at_llm_sched *s, size_t index)
{
    slot_cut(s, index, 0);
    at_free(s->slots[index].kept);
    s->slots[index].kept = NULL;
    s->slots[index].seq = NULL;
    s->slots[index].used_at = 0;
}

/* The kept prefix that was used longest ago; SIZE_MAX: none. */
static size_t oldest_kept(const struct at_llm_sched *s, size_t except)
{
    size_t oldest = SIZE_MAX;
    for (size_t i = 0; i < s->n_slots; i++) {
        if (s->slots[i].kept != NULL && i != except &&
            (oldest == SIZE_MAX || s->slots[i].used_at < s->slots[oldest].used_at)) {
            oldest = i;
        }
    }
    return oldest;
}

static bool make_room(struct at_llm_sched *s, size_t n, size_t except)
{
    size_t oldest;
    while (s->n_free < n && (oldest = oldest_kept(s, except)) != SIZE_MAX) {
        slot_empty(s, oldest);
    }
    return s->n_free >= n;
}

/* --- clients and their turns --- */

static struct at_llm_client *client_of(struct at_llm_sched *s, const char *name)
{
    struct at_llm_client *c = s->clients;
    while (c != NULL && strcmp(c->name, name) != 0) {
        c = c->next;
    }
    if (c == NULL) {
        c = AT_NEW(struct at_llm_client);
        c->name = at_strdup(name);
        c->served = s->floor;
        c->next = s->clients;
        if (s->clients != NULL) {
            s->clients->prev = c;
        }
        s->clients = c;
    }
    return c;
}

static void client_settle(struct at_llm_sched *s, struct at_llm_client *c)
{
    if (c->first == NULL && c->running == 0) {
        client_free(s, c);
    }
    uint64_t least = UINT64_MAX;
    for (const struct at_llm_client *each = s->clients; each != NULL; each = each->next) {
        least = each->served < least ? each->served : least;
    }
    s->floor = least != UINT64_MAX && least > s->floor ? least : s->floor;
}

static void wait_in(struct at_llm_sched *s, struct at_llm_seq *seq, bool first)
{
    struct at_llm_client *c = seq->owner;
    seq->slot = -1;
    seq->prev = first ? NULL : c->last;
    seq->next = first ? c->first : NULL;
    *(seq->prev != NULL ? &seq->prev->next : &c->first) = seq;
    *(seq->next != NULL ? &seq->next->prev : &c->last) = seq;
    s->n_waiting++;
}

static void wait_out(struct at_llm_sched *s, struct at_llm_seq *seq)
{
    struct at_llm_client *c = seq->owner;
    *(seq->prev != NULL ? &seq->prev->next : &c->first) = seq->next;
    *(seq->next != NULL ? &seq->next->prev : &c->last) = seq->prev;
    seq->prev = seq->next = NULL;
    assert(s->n_waiting > 0);
    s->n_waiting--;
}

void at_llm_sched_add(struct at_llm_sched *s, struct at_llm_seq *seq)
{
    assert(seq->n_prompt >= 1);
    assert(seq->tokens_max <= s->options.cells / (s->options.split ? s->options.sequences_max : 1));
    seq->owner = client_of(s, seq->client);
    seq->n_done = seq->n_reused = seq->preemptions = 0;
    seq->admitted = false;
    wait_in(s, seq, false);
}

/* --- running --- */

static void running_out(struct at_llm_sched *s, struct at_llm_seq *seq)
{
    size_t i = 0;
    while (s->running[i] != seq) {
        i++;
        assert(i < s->n_running);
    }
    memmove(&s->running[i], &s->running[i + 1], (s->n_running - i - 1) * sizeof *s->running);
    s->n_running--;
    assert(seq->owner->running > 0);
    seq->owner->running--;
}

static void preempt(struct at_llm_sched *s, struct at_llm_seq *seq)
{
    running_out(s, seq);
    slot_empty(s, (size_t)seq->slot);
    seq->n_done = 0;
    seq->preemptions++;
    s->preemptions++;
    wait_in(s, seq, true);
}

bool at_llm_sched_shrink(struct at_llm_sched *s)
{
    size_t kept = oldest_kept(s, SIZE_MAX);
    if (kept != SIZE_MAX) {
        slot_empty(s, kept);
        return true;
    }
    if (s->n_running < 2) {
        return false;
    }
    preempt(s, s->running[s->n_running - 1]);
    return true;
}

static void chunk_add(struct at_llm_sched *s, struct at_llm_seq *seq, size_t n,
                      struct at_llm_chunk *chunks, size_t *n_chunks)
{
    chunks[(*n_chunks)++] = (struct at_llm_chunk){.seq = seq, .from = seq->n_done, .n = n};
    slot_grow(s, &s->slots[seq->slot], n);
    s->slots[seq->slot].used_at = ++s->ticks;
}

static size_t pending(const struct at_llm_seq *seq)
{
    return seq->n_tokens - seq->n_done;
}

/* One token for each that answers; for room, whoever was admitted last gives way. */
static size_t plan_answers(struct at_llm_sched *s, struct at_llm_chunk *chunks, size_t *budget)
{
    size_t n = 0;
    for (size_t i = 0; i<s->n_running && * budget> 0; i++) {
        struct at_llm_seq *seq = s->running[i];
        if (pending(seq) != 1) {
            continue;
        }
        while (!make_room(s, 1, SIZE_MAX) && s->n_running > i + 1) {
            preempt(s, s->running[s->n_running - 1]);
        }
        if (s->n_free == 0) { /* it is itself the last, and those before it have taken all */
            preempt(s, seq);
            break;
        }
        chunk_add(s, seq, 1, chunks, &n);
        (*budget)--;
    }
    return n;
}

static void plan_prompts(struct at_llm_sched *s, struct at_llm_chunk *chunks, size_t *n_chunks,
                         size_t *budget)
{
    for (size_t i = 0; i<s->n_running && * budget> 0; i++) {
        struct at_llm_seq *seq = s->running[i];
        size_t n = pending(seq) < *budget ? pending(seq) : *budget;
        if (pending(seq) <= 1) {
            continue;
        }
        (void)make_room(s, n, SIZE_MAX);
        while (s->n_free == 0 && s->n_running > i + 1) {
            preempt(s, s->running[s->n_running - 1]);
        }
        n = n < s->n_free ? n : s->n_free;
        if (n != 0) {
            chunk_add(s, seq, n, chunks, n_chunks);
            *budget -= n;
        }
    }
}

/* --- admission --- */

static size_t common_prefix(const int32_t *a, size_t a_n, const int32_t *b, size_t b_n)
{
    size_t most = a_n < b_n ? a_n : b_n;
    size_t n = 0;
    while (n < most && a[n] == b[n]) {
        n++;
    }
    return n;
}

struct match {
    size_t slot, n; /* what can be shared now */
    bool coming;    /* a longer one is being computed */
};

static struct match best_match(const struct at_llm_sched *s, const struct at_llm_seq *seq)
{
    struct match best = {.slot = SIZE_MAX};
    size_t coming = 0;
    for (size_t i = 0; i < s->n_slots && s->options.reuse; i++) {
        const struct slot *slot = &s->slots[i];
        const int32_t *tokens = slot->seq != NULL ? slot->seq->tokens : slot->kept;
        if (tokens == NULL) {
            continue;
        }
        /* The last token is always computed: what comes after it is asked of the engine. */
        size_t n = common_prefix(tokens, slot->n, seq->tokens, seq->n_tokens - 1);
        if (slot->seq != NULL && slot->seq->n_done < slot->seq->n_prompt) {
            size_t later =
                common_prefix(tokens, slot->seq->n_prompt, seq->tokens, seq->n_tokens - 1);
            coming = later > coming ? later : coming;
            n = n < slot->seq->n_done ? n : slot->seq->n_done; /* the rest is only planned */
        }
        if (n >= AT_LLM_PREFIX_MIN && n > best.n) {
            best.n = n;
            best.slot = i;
        }
    }
    best.coming = coming >= best.n + AT_LLM_PREFIX_WAIT;
    return best;
}

static size_t free_slot(struct at_llm_sched *s, size_t except)
{
    for (size_t i = 0; i < s->n_slots; i++) {
        if (s->slots[i].seq == NULL && s->slots[i].kept == NULL) {
            return i;
        }
    }
    size_t oldest = oldest_kept(s, except);
    if (oldest != SIZE_MAX) {
        slot_empty(s, oldest);
    }
    return oldest;
}

/* Cells that nobody needs who runs. */
static size_t kept_cells(const struct at_llm_sched *s)
{
    return s->options.cells - s->n_free - s->n_live;
}

/* --- a split cache --- */

/* The engine computes neighbours together, and others after one another: slots that run stay side
 * by side. [first, last] of them; false: none runs. */
static bool running_span(const struct at_llm_sched *s, size_t *ret_first, size_t *ret_last,
                         size_t *ret_gap)
{
    *ret_first = *ret_gap = SIZE_MAX;
    for (size_t i = 0; i < s->n_slots; i++) {
        if (s->slots[i].seq != NULL) {
            *ret_first = *ret_first != SIZE_MAX ? *ret_first : i;
            *ret_last = i;
        }
    }
    for (size_t i = *ret_first; *ret_first != SIZE_MAX && i < *ret_last; i++) {
        if (s->slots[i].seq == NULL) {
            *ret_gap = i;
            break;
        }
    }
    return *ret_first != SIZE_MAX;
}

static size_t kept_prefix(const struct slot *slot, const struct at_llm_seq *seq)
{
    return slot->kept != NULL ? common_prefix(slot->kept, slot->n, seq->tokens, seq->n_tokens - 1)
                              : 0;
}

/* Among those that keep the running ones together: a gap before an end, then what has most of seq,
 * then what is empty, then what was used longest ago. */
static size_t choose_split_slot(const struct at_llm_sched *s, const struct at_llm_seq *seq,
                                size_t *ret_own)
{
    size_t first, last = 0, gap, best = SIZE_MAX;
    bool any = running_span(s, &first, &last, &gap);
    for (size_t i = 0; i < s->n_slots; i++) {
        const struct slot *slot = &s->slots[i];
        bool inside = any && i > first && i < last;
        bool near = !any || inside || (gap == SIZE_MAX && (i + 1 == first || i == last + 1));
        if (slot->seq != NULL || !near) {
            continue;
        }
        size_t own = kept_prefix(slot, seq);
        if (best == SIZE_MAX || own > *ret_own ||
            (own == *ret_own && slot->used_at < s->slots[best].used_at)) {
            best = i;
            *ret_own = own;
        }
    }
    assert(best != SIZE_MAX);
    return best;
}

/* A slot for seq of a split cache, with what it had already or what was copied from match. */
static size_t take_split_slot(struct at_llm_sched *s, const struct at_llm_seq *seq,
                              struct match *match)
{
    size_t own = 0;
    size_t slot = choose_split_slot(s, seq, &own);
    own = own >= AT_LLM_PREFIX_MIN && s->options.reuse ? own : 0;
    if (own != 0 && own >= match->n) {
        slot_resume(s, slot, own);
        *match = (struct match){.slot = slot, .n = own};
        return slot;
    }
    slot_empty(s, slot);
    if (match->n != 0 && !slot_share(s, match->slot, slot, match->n)) {
        match->n = 0;
    }
    return slot;
}

/* A gap that nobody fills for some steps is closed by one of the ends, that with less to copy. */
static void close_gap(struct at_llm_sched *s)
{
    size_t first, last = 0, gap;
    if (!running_span(s, &first, &last, &gap) || gap == SIZE_MAX || s->n_waiting != 0) {
        s->gap_steps = 0;
        return;
    }
    if (++s->gap_steps < AT_LLM_GAP_STEPS) {
        return;
    }
    size_t from = s->slots[first].n < s->slots[last].n ? first : last;
    struct at_llm_seq *seq = s->slots[from].seq;
    assert(s->slots[from].n == seq->n_done);
    slot_empty(s, gap);
    if (slot_share(s, from, gap, seq->n_done)) {
        slot_empty(s, from);
        s->slots[gap].seq = seq;
        s->slots[gap].used_at = ++s->ticks;
        seq->slot = (int)gap;
    }
    s->gap_steps = 0;
}

static bool has_room(const struct at_llm_sched *s, const struct at_llm_seq *seq, size_t shared)
{
    size_t need = seq->n_tokens - shared + 1;
    size_t spare = seq->preemptions != 0 ? s->options.cells / 16 : 0; /* lest it go at once again */
    return s->n_running == 0 || s->options.split || need + spare <= s->n_free + kept_cells(s);
}

/* A slot for seq of a shared cache, and what it takes over from match. */
static size_t take_slot(struct at_llm_sched *s, struct match *match)
{
    size_t slot = free_slot(s, match->slot);
    if (slot == SIZE_MAX) { /* only the prefix itself is left to be given up */
        slot = free_slot(s, SIZE_MAX);
        *match = (struct match){.slot = SIZE_MAX};
    }
    assert(slot != SIZE_MAX);
    if (match->n != 0 && !slot_share(s, match->slot, slot, match->n)) {
        match->n = 0;
    }
    return slot;
}

static bool admit(struct at_llm_sched *s, struct at_llm_seq *seq)
{
    struct match match = best_match(s, seq);
    if (match.coming || !has_room(s, seq, match.n)) {
        return false;
    }
    size_t slot = s->options.split ? take_split_slot(s, seq, &match) : take_slot(s, &match);
    wait_out(s, seq);
    s->slots[slot].seq = seq;
    if (match.n != 0) {
        s->slots[match.slot].used_at = ++s->ticks;
        s->reused += match.n;
    }
    seq->slot = (int)slot;
    seq->n_done = match.n;
    seq->n_reused = seq->admitted ? seq->n_reused : match.n;
    seq->admitted = true;
    seq->order = ++s->orders;
    seq->owner->running++;
    s->running[s->n_running++] = seq;
    return true;
}

/* The client served least that has somebody waiting and was not tried in this step. */
static struct at_llm_client *next_client(const struct at_llm_sched *s,
                                         const struct at_llm_client *const *tried, size_t n_tried)
{
    struct at_llm_client *best = NULL;
    for (struct at_llm_client *c = s->clients; c != NULL; c = c->next) {
        bool skip = c->first == NULL;
        for (size_t i = 0; i < n_tried && !skip; i++) {
            skip = tried[i] == c;
        }
        if (!skip && (best == NULL || c->served <= best->served)) {
            best = c; /* of equals the one that came first, which stands last */
        }
    }
    return best;
}

static void plan_admissions(struct at_llm_sched *s, struct at_llm_chunk *chunks, size_t *n_chunks,
                            size_t *budget)
{
    const struct at_llm_client *tried[AT_LLM_TRIES_MAX];
    size_t n_tried = 0;
    while (*budget > 0 && s->n_running < s->options.sequences_max && n_tried < AT_LLM_TRIES_MAX) {
        struct at_llm_client *c = next_client(s, tried, n_tried);
        if (c == NULL) {
            return;
        }
        struct at_llm_seq *seq = c->first;
        if (!admit(s, seq)) {
            tried[n_tried++] = c;
            continue;
        }
        size_t n = pending(seq) < *budget ? pending(seq) : *budget;
        (void)make_room(s, n, SIZE_MAX);
        n = n < s->n_free ? n : s->n_free;
        c->served += WEIGHT_PROMPT * (seq->preemptions == 0 ? pending(seq) : 0);
        if (n != 0) {
            chunk_add(s, seq, n, chunks, n_chunks);
            *budget -= n;
        }
    }
}

size_t at_llm_sched_plan(struct at_llm_sched *s, struct at_llm_chunk *chunks)
{
    size_t budget = s->options.step_tokens_max;
    if (s->options.split) {
        close_gap(s);
    }
    size_t n = plan_answers(s, chunks, &budget);
    plan_prompts(s, chunks, &n, &budget);
    plan_admissions(s, chunks, &n, &budget);
    /* One that gave way after it had its place in this step has left it. */
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (chunks[i].seq->slot >= 0) {
            chunks[kept++] = chunks[i];
        }
    }
    return kept;
}

void at_llm_sched_ran(struct at_llm_sched *s, const struct at_llm_chunk *chunks, size_t n)
{
    (void)s;
    for (size_t i = 0; i < n; i++) {
        chunks[i].seq->n_done += chunks[i].n;
        assert(chunks[i].seq->n_done <= chunks[i].seq->n_tokens);
    }
}

void at_llm_sched_undo(struct at_llm_sched *s, const struct at_llm_chunk *chunks, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        slot_cut(s, (size_t)chunks[i].seq->slot, chunks[i].seq->n_done);
    }
}

void at_llm_sched_token(struct at_llm_sched *s, struct at_llm_seq *seq, int32_t token)
{
    (void)s;
    assert(seq->n_tokens < seq->tokens_max);
    seq->tokens[seq->n_tokens++] = token;
    seq->owner->served += WEIGHT_ANSWER;
}

void at_llm_sched_finish(struct at_llm_sched *s, struct at_llm_seq *seq, bool keep)
{
    struct at_llm_client *owner = seq->owner;
    if (seq->slot < 0) {
        wait_out(s, seq);
        client_settle(s, owner);
        return;
    }
    size_t slot = (size_t)seq->slot;
    running_out(s, seq);
    slot_cut(s, slot, seq->n_done);
    size_t kept = 0;
    for (size_t i = 0; i < s->n_slots; i++) {
        kept += s->slots[i].kept != NULL;
    }
    if (keep && s->options.reuse && seq->n_done >= AT_LLM_PREFIX_MIN) {
        if (kept >= AT_LLM_KEPT_MAX) {
            slot_empty(s, oldest_kept(s, SIZE_MAX));
        }
        s->slots[slot].kept = at_alloc(seq->n_done * sizeof(int32_t));
        memcpy(s->slots[slot].kept, seq->tokens, seq->n_done * sizeof(int32_t));
        for (size_t i = 0; i < s->slots[slot].n; i++) {
            live_drop(s, s->slots[slot].cells[i]);
        }
        s->slots[slot].seq = NULL;
        s->slots[slot].used_at = ++s->ticks;
    } else {
        slot_empty(s, slot);
    }
    seq->slot = -1;
    client_settle(s, owner);
}

struct at_llm_sched_counts at_llm_sched_count(const struct at_llm_sched *s)
{
    return (struct at_llm_sched_counts){.running = s->n_running,
                                        .waiting = s->n_waiting,
                                        .cells_used = s->options.cells - s->n_free,
                                        .cells_kept = kept_cells(s),
                                        .preemptions = s->preemptions,
                                        .reused_tokens = s->reused};
}
