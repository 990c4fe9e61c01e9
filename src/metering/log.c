#include "metering/log.h"

#include "core/mem.h"
#include "sys/file.h"

#include <assert.h>
#include <string.h>

#define SPARE_BYTES (64 * 1024) /* kept for the ends of requests that have begun */

struct busy {
    const struct at_meter_who *who;
    struct at_meter_what *what;
    uint32_t next_free;
};

struct at_meter_log {
    char *folder;
    uint32_t run, loop;
    struct at_meter_segment *first; /* the book's */
    struct at_meter_segment *last;  /* the loop's */
    _Atomic(struct at_meter_segment *) prepared;
    _Atomic uint32_t next_number;
    struct at_mapped slots_file;
    struct at_meter_slot *slots;
    struct busy *busy;
    uint32_t free, n_used; /* slots from n_used on were never used */
    uint64_t counter;
    uint32_t next_model;
    uint32_t *key_segment; /* by id: the segment that it was last named in */
    size_t n_keys;
};

static struct at_meter_segment *segment_new(const char *folder, uint32_t run, uint32_t loop,
                                            uint32_t number, struct at_err *err)
{
    struct at_mapped file;
    AT_CLEANUP(at_cleanup_free)
    char *path = at_asprintf("%s/r%u-l%u-%u.log", folder, run, loop, number);
    if (at_mapped_new(path, AT_METER_SEGMENT_BYTES, &file, err) != AT_OK) {
        return NULL;
    }
    struct at_meter_segment *s = AT_NEW(struct at_meter_segment);
    s->file = file;
    s->number = number;
    return s;
}

enum at_rc at_meter_log_new(const char *folder, uint32_t run, uint32_t loop,
                            struct at_meter_log **ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/r%u-l%u.slots", folder, run, loop);
    struct at_mapped slots;
    enum at_rc rc = at_mapped_new(path, AT_METER_SLOTS * sizeof(struct at_meter_slot), &slots, err);
    if (rc != AT_OK) {
        return rc;
    }
    struct at_meter_segment *first = segment_new(folder, run, loop, 1, err);
    if (first == NULL) {
        at_mapped_close(&slots);
        (void)!at_file_remove(path, NULL);
        return AT_IO;
    }
    struct at_meter_log *log = AT_NEW(struct at_meter_log);
    log->folder = at_strdup(folder);
    log->run = run;
    log->loop = loop;
    log->first = log->last = first;
    atomic_init(&log->next_number, 2);
    log->slots_file = slots;
    log->slots = (struct at_meter_slot *)(void *)slots.data;
    log->busy = at_alloc(AT_METER_SLOTS * sizeof *log->busy);
    log->free = AT_METER_SLOTS;
    *ret = log;
    return AT_OK;
}

static void segment_free(struct at_meter_segment *s)
{
    at_mapped_close(&s->file);
    at_free(s);
}

void at_meter_log_free(struct at_meter_log *log)
{
    if (log == NULL) {
        return;
    }
    struct at_meter_segment *prepared = atomic_load(&log->prepared);
    while (log->first != NULL) {
        struct at_meter_segment *next = atomic_load(&log->first->next);
        segment_free(log->first);
        log->first = next;
    }
    if (prepared != NULL) {
        segment_free(prepared);
    }
    at_mapped_close(&log->slots_file);
    at_free(log->busy);
    at_free(log->key_segment);
    at_free(log->folder);
    at_free(log);
}

uint32_t at_meter_log_loop(const struct at_meter_log *log)
{
    return log->loop;
}

struct at_meter_segment *at_meter_log_first(struct at_meter_log *log)
{
    return log->first;
}

void at_meter_log_drop_first(struct at_meter_log *log)
{
    struct at_meter_segment *s = log->first;
    AT_CLEANUP(at_cleanup_free)
    char *path = at_asprintf("%s/r%u-l%u-%u.log", log->folder, log->run, log->loop, s->number);
    log->first = atomic_load(&s->next);
    assert(log->first != NULL);
    segment_free(s);
    (void)!at_file_remove(path, NULL); /* what stays is known to be in the book */
}

void at_meter_log_prepare(struct at_meter_log *log)
{
    if (atomic_load(&log->prepared) == NULL) {
        struct at_meter_segment *s = segment_new(log->folder, log->run, log->loop,
                                                 atomic_fetch_add(&log->next_number, 1), NULL);
        struct at_meter_segment *none = NULL;
        if (s != NULL && !atomic_compare_exchange_strong(&log->prepared, &none, s)) {
            segment_free(s);
        }
    }
}

static unsigned char *room(struct at_meter_log *log, size_t len)
{
    struct at_meter_segment *s = log->last;
    size_t head = atomic_load_explicit(&s->head, memory_order_relaxed);
    return s->file.len - head >= len ? s->file.data + head : NULL;
}

static void written(struct at_meter_log *log, size_t len)
{
    struct at_meter_segment *s = log->last;
    size_t head = atomic_load_explicit(&s->head, memory_order_relaxed);
    atomic_store_explicit(&s->head, head + len, memory_order_release);
}

static void name_key(struct at_meter_log *log, const struct at_meter_who *who)
{
    if (who->id >= log->n_keys) {
        size_t n = log->n_keys * 2 > who->id + 64 ? log->n_keys * 2 : who->id + 64;
        log->key_segment = at_realloc(log->key_segment, n * sizeof *log->key_segment);
        memset(log->key_segment + log->n_keys, 0, (n - log->n_keys) * sizeof *log->key_segment);
        log->n_keys = n;
    }
    if (log->key_segment[who->id] != log->last->number) {
        size_t len = at_meter_key_bytes(who);
        at_meter_key_write(who, room(log, len));
        written(log, len);
        log->key_segment[who->id] = log->last->number;
    }
}

static void name_model(struct at_meter_log *log, struct at_meter_what *what)
{
    if (what->id == 0) {
        what->id = ++log->next_model;
    }
    if (what->segment != log->last->number) {
        size_t len = at_meter_model_bytes(what->model);
        at_meter_model_write(what->id, what->model, room(log, len));
        written(log, len);
        what->segment = log->last->number;
    }
}

/* The longest that one request may need: both names, and its end. */
static size_t most(const struct at_meter_who *who, const struct at_meter_what *what)
{
    return at_meter_key_bytes(who) + at_meter_model_bytes(what->model) +
           at_meter_fixed_bytes(AT_METER_USE);
}

/* Goes on in a new file, which must be readable without the old ones: what is under way is named
 * anew there. */
static bool roll(struct at_meter_log *log)
{
    struct at_meter_segment *s = atomic_exchange(&log->prepared, NULL);
    if (s == NULL) {
        s = segment_new(log->folder, log->run, log->loop, atomic_fetch_add(&log->next_number, 1),
                        NULL);
    }
    if (s == NULL) {
        return false;
    }
    struct at_meter_segment *full = log->last;
    log->last = s;
    for (uint32_t i = 0; i < log->n_used; i++) {
        if (log->busy[i].who != NULL) {
            name_key(log, log->busy[i].who);
            name_model(log, log->busy[i].what);
        }
    }
    atomic_store_explicit(&full->next, s, memory_order_release);
    return true;
}

/* Is there room for need bytes, and beside them for the ends of all that is under way? */
static bool has_room(struct at_meter_log *log, size_t need)
{
    if (room(log, need + SPARE_BYTES) != NULL) {
        return true;
    }
    return roll(log) && room(log, need + SPARE_BYTES) != NULL;
}

static uint32_t take_slot(struct at_meter_log *log)
{
    uint32_t i = log->free;
    if (i != AT_METER_SLOTS) {
        log->free = log->busy[i].next_free;
    } else if (log->n_used < AT_METER_SLOTS) {
        i = log->n_used++;
    }
    return i;
}

enum at_rc at_meter_log_begin(struct at_meter_log *log, const struct at_meter_who *who,
                              struct at_meter_what *what, int32_t day, uint32_t *ret_slot)
{
    if (!has_room(log, most(who, what))) {
        return AT_IO;
    }
    uint32_t i = take_slot(log);
    if (i == AT_METER_SLOTS) {
        return AT_EXHAUSTED;
    }
    name_key(log, who);
    name_model(log, what);
    struct at_meter_slot *slot = &log->slots[i];
    slot->key = who->id;
    slot->model = what->id;
    slot->day = day;
    atomic_store_explicit(&slot->prompt, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->completion, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->cost_nanousd, 0, memory_order_relaxed);
    uint64_t id = (uint64_t)log->run << 44 | (uint64_t)log->loop << 36 | ++log->counter;
    atomic_store_explicit(&slot->id, id, memory_order_release);
    log->busy[i] = (struct busy){.who = who, .what = what};
    *ret_slot = i;
    return AT_OK;
}

void at_meter_log_update(struct at_meter_log *log, uint32_t slot, uint64_t prompt,
                         uint64_t completion, int64_t cost_nanousd)
{
    struct at_meter_slot *s = &log->slots[slot];
    atomic_store_explicit(&s->prompt, prompt, memory_order_relaxed);
    atomic_store_explicit(&s->completion, completion, memory_order_relaxed);
    atomic_store_explicit(&s->cost_nanousd, cost_nanousd, memory_order_relaxed);
}

void at_meter_log_end(struct at_meter_log *log, uint32_t slot, const struct at_meter_use *use)
{
    struct at_meter_slot *s = &log->slots[slot];
    struct at_meter_use whole = *use;
    size_t len = at_meter_fixed_bytes(AT_METER_USE);
    whole.id = atomic_load_explicit(&s->id, memory_order_relaxed);
    whole.key = s->key;
    whole.model = s->model;
    assert(log->busy[slot].who != NULL);
    unsigned char *out = room(log, len);
    if (out == NULL && roll(log)) {
        out = room(log, len);
    }
    if (out == NULL) {
        /* The disk is full, and so is the reserve: the slot keeps what it cost until it is read
         * at the next start, and takes no other request. */
        at_meter_log_update(log, slot, use->prompt, use->completion, use->cost_nanousd);
        log->busy[slot] = (struct busy){0};
        return;
    }
    at_meter_fixed_write(AT_METER_USE, &whole, out);
    written(log, len);
    atomic_store_explicit(&s->id, 0, memory_order_release);
    log->busy[slot] = (struct busy){.next_free = log->free};
    log->free = slot;
}
