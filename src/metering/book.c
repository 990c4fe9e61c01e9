#include "metering/book_priv.h"

#include "core/mem.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

struct key *at_meter_book_key(struct at_meter_book *book, struct at_str uid, struct at_str ns,
                              struct at_str name, struct at_str team)
{
    AT_CLEANUP(at_cleanup_free)
    char *text = at_asprintf("%.*s %.*s", (int)uid.len, uid.ptr, (int)team.len, team.ptr);
    struct key *key = at_map_get(book->keys, text);
    if (key == NULL) {
        key = AT_NEW(struct key);
        key->uid = at_strndup(uid.ptr, uid.len);
        key->ns = at_strndup(ns.ptr, ns.len);
        key->name = at_strndup(name.ptr, name.len);
        key->team = at_strndup(team.ptr, team.len);
        at_map_put(book->keys, text, key);
        key->next_of_uid = at_map_put(book->by_uid, key->uid, key);
    }
    return key;
}

const char *at_meter_book_model(struct at_meter_book *book, struct at_str name)
{
    const char *known = at_map_get_n(book->models, name.ptr, name.len);
    if (known == NULL) {
        char *copy = at_strndup(name.ptr, name.len);
        at_map_put(book->models, copy, copy);
        known = copy;
    }
    return known;
}

static struct part *part_new(struct at_meter_book *book, const char *ns, int32_t day,
                             uint32_t number)
{
    struct part *part = AT_NEW(struct part);
    part->pub = (struct at_meter_part){.ns = ns, .day = day, .number = number};
    book->parts = at_realloc(book->parts, (book->n_parts + 1) * sizeof *book->parts);
    book->parts[book->n_parts++] = part;
    return part;
}

/* number NULL: whichever has room. */
static struct part *part_of(struct at_meter_book *book, const char *ns, int32_t day,
                            const uint32_t *number)
{
    char name[300];
    snprintf(name, sizeof name, "%s %d", ns, day);
    struct part *open = at_map_get(book->open, name);
    for (size_t i = 0; number != NULL && i < book->n_parts; i++) {
        struct part *p = book->parts[book->n_parts - 1 - i];
        if (p->pub.day == day && p->pub.number == *number && strcmp(p->pub.ns, ns) == 0) {
            return p;
        }
    }
    if (number == NULL && open != NULL && open->pub.n_rows < AT_METER_PART_ROWS) {
        return open;
    }
    uint32_t next = number != NULL ? *number : open != NULL ? open->pub.number + 1 : 0;
    struct part *part = part_new(book, ns, day, next);
    if (open == NULL || open->pub.number < next) {
        at_map_put(book->open, name, part);
    }
    return part;
}

static void part_add(struct part *part, struct row *row)
{
    if (part->pub.n_rows == part->cap) {
        part->cap = part->cap != 0 ? part->cap * 2 : 8;
        part->rows = at_realloc(part->rows, part->cap * sizeof(struct row *));
    }
    row->part = part;
    part->rows[part->pub.n_rows++] = row;
    part->pub.rows = (const struct at_meter_row *const *)part->rows; /* pub is its first member */
}

struct row *at_meter_book_row(struct at_meter_book *book, struct key *key, const char *model,
                              int32_t day, const uint32_t *part)
{
    for (struct row *row = key->rows; row != NULL; row = row->next_of_key) {
        if (row->pub.day == day && row->pub.model == model) {
            return row;
        }
    }
    struct row *row = AT_NEW(struct row);
    row->key = key;
    row->pub = (struct at_meter_row){.uid = key->uid,
                                     .ns = key->ns,
                                     .key = key->name,
                                     .team = key->team,
                                     .model = model,
                                     .day = day};
    row->next_of_key = key->rows;
    key->rows = row;
    if (day != 0) {
        part_add(part_of(book, key->ns, day, part), row);
        row->is_new = true;
        row->part->n_new++;
    }
    return row;
}

void at_meter_names_key(struct names *names, uint32_t id, struct key *key)
{
    if (id >= AT_METER_KEYS_MAX * 4) {
        return;
    }
    if (id >= names->n_keys) {
        size_t n = (size_t)id * 2 + 16;
        names->keys = at_realloc(names->keys, n * sizeof(struct key *));
        memset(names->keys + names->n_keys, 0, (n - names->n_keys) * sizeof(struct key *));
        names->n_keys = n;
    }
    names->keys[id] = key;
}

void at_meter_names_model(struct names *names, uint32_t id, const char *model)
{
    if (id >= AT_METER_KEYS_MAX * 4) {
        return;
    }
    if (id >= names->n_models) {
        size_t n = (size_t)id * 2 + 16;
        names->models = at_realloc(names->models, n * sizeof(char *));
        memset(names->models + names->n_models, 0, (n - names->n_models) * sizeof(char *));
        names->n_models = n;
    }
    names->models[id] = model;
}

void at_meter_names_done(struct names *names)
{
    at_free(names->keys);
    at_free(names->models);
    *names = (struct names){0};
}

struct row *at_meter_book_row_of(struct at_meter_book *book, const struct names *names,
                                 uint32_t key, uint32_t model, int32_t day, const uint32_t *part)
{
    bool known = key < names->n_keys && names->keys[key] != NULL && model < names->n_models &&
                 names->models[model] != NULL;
    return known ? at_meter_book_row(book, names->keys[key], names->models[model], day, part)
                 : NULL;
}

void at_meter_row_add(struct row *row, const struct at_meter_use *use)
{
    struct at_meter_row *sum = &row->pub;
    sum->requests++;
    sum->errors += use->status >= 400 && use->status != 499;
    sum->cached += (use->flags & AT_METER_FLAG_CACHED) != 0;
    sum->prompt += use->prompt;
    sum->completion += use->completion;
    sum->cost_nanousd += use->cost_nanousd;
    if (row->part != NULL) {
        row->part->pub.dirty = true;
    }
}

enum at_rc at_meter_book_open(const struct at_meter_book_options *options,
                              struct at_meter_book **ret, char ret_damage[AT_ERR_MSG_BYTES_MAX],
                              struct at_err *err)
{
    enum at_rc rc = at_dir_make(options->folder, 0700, err);
    int fd = -1;
    if (rc == AT_OK) {
        AT_CLEANUP(at_cleanup_free) char *lock = at_asprintf("%s/lock", options->folder);
        rc = at_file_lock(lock, &fd, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    struct at_meter_book *book = AT_NEW(struct at_meter_book);
    book->options = *options;
    book->folder = at_strdup(options->folder);
    book->lock_fd = fd;
    book->keys = at_map_new();
    book->by_uid = at_map_new();
    book->models = at_map_new();
    book->open = at_map_new();
    ret_damage[0] = '\0';
    rc = at_meter_book_load(book, ret_damage, err);
    if (rc != AT_OK) {
        at_meter_book_free(book);
        return rc;
    }
    *ret = book;
    return AT_OK;
}

void at_meter_book_free(struct at_meter_book *book)
{
    if (book == NULL) {
        return;
    }
    void *value;
    for (size_t i = 0; i < book->n_logs; i++) {
        at_meter_log_free(book->logs[i]);
        at_meter_names_done(&book->names[i]);
    }
    for (size_t it = 0; at_map_next(book->keys, &it, NULL, &value);) {
        struct key *key = value;
        while (key->rows != NULL) {
            struct row *next = key->rows->next_of_key;
            at_free(key->rows);
            key->rows = next;
        }
        at_free(key->uid);
        at_free(key->ns);
        at_free(key->name);
        at_free(key->team);
        at_free(key);
    }
    for (size_t it = 0; at_map_next(book->models, &it, NULL, &value);) {
        at_free(value);
    }
    for (size_t i = 0; i < book->n_parts; i++) {
        at_free(book->parts[i]->rows);
        at_free(book->parts[i]);
    }
    at_map_free(book->keys);
    at_map_free(book->by_uid);
    at_map_free(book->models);
    at_map_free(book->open);
    at_file_unlock(book->lock_fd);
    at_buf_done(&book->text);
    at_free(book->ranges);
    at_free(book->parts);
    at_free(book->logs);
    at_free(book->names);
    at_free(book->folder);
    at_free(book);
}

const char *at_meter_book_meter(const struct at_meter_book *book)
{
    return book->meter;
}

enum at_rc at_meter_book_log(struct at_meter_book *book, struct at_meter_log **ret,
                             struct at_err *err)
{
    struct at_meter_log *log;
    size_t n = book->n_logs;
    enum at_rc rc = at_meter_log_new(book->folder, book->run, (uint32_t)n, &log, err);
    if (rc != AT_OK) {
        return rc;
    }
    book->logs = at_realloc(book->logs, (n + 1) * sizeof(struct at_meter_log *));
    book->names = at_realloc(book->names, (n + 1) * sizeof *book->names);
    book->names[n] = (struct names){0};
    book->logs[n] = log;
    book->n_logs++;
    *ret = log;
    return AT_OK;
}

/* --- rounds --- */

static void add_range(struct at_meter_book *book, struct at_meter_segment *segment, size_t to)
{
    if (book->n_ranges == book->cap_ranges) {
        book->cap_ranges = book->cap_ranges * 2 + 8;
        book->ranges = at_realloc(book->ranges, book->cap_ranges * sizeof *book->ranges);
    }
    book->ranges[book->n_ranges++] = (struct sync_range){segment, to};
}

bool at_meter_book_begin(struct at_meter_book *book)
{
    book->n_ranges = 0;
    for (size_t i = 0; i < book->n_logs; i++) {
        struct at_meter_segment *s = at_meter_log_first(book->logs[i]);
        while (s != NULL) {
            struct at_meter_segment *next = atomic_load_explicit(&s->next, memory_order_acquire);
            size_t head = atomic_load_explicit(&s->head, memory_order_acquire);
            if (head > s->synced) {
                add_range(book, s, head);
            }
            s = next;
        }
    }
    if (book->wants_text && at_meter_book_dump(book, &book->text) == AT_OK) {
        book->wants_text = false;
    } else {
        at_buf_clear(&book->text);
    }
    return book->n_ranges > 0 || book->text.len > 0;
}

bool at_meter_book_behind(const struct at_meter_book *book)
{
    bool behind = book->wants_text;
    for (size_t i = 0; i < book->n_logs && !behind; i++) {
        struct at_meter_segment *s = at_meter_log_first(book->logs[i]);
        for (; s != NULL && !behind; s = atomic_load(&s->next)) {
            behind = atomic_load(&s->head) > s->applied;
        }
    }
    return behind;
}

enum at_rc at_meter_book_sync(struct at_meter_book *book, struct at_err *err)
{
    enum at_rc rc = AT_OK;
    for (size_t i = 0; i < book->n_ranges && rc == AT_OK; i++) {
        struct sync_range *r = &book->ranges[i];
        rc = at_mapped_sync(&r->segment->file, r->segment->synced, r->to, err);
    }
    book->text_failed = book->text.len > 0 && at_meter_book_write(book, err) != AT_OK;
    return rc == AT_OK && book->text_failed ? AT_IO : rc;
}

static void apply(struct at_meter_book *book, size_t log, struct at_meter_segment *s)
{
    struct names *names = &book->names[log];
    struct at_meter_record r;
    while (s->applied < s->synced &&
           at_meter_record_read(s->file.data, s->synced, &s->applied, &r) == AT_OK) {
        if (r.type == AT_METER_KEY) {
            at_meter_names_key(names, r.id, at_meter_book_key(book, r.uid, r.ns, r.name, r.team));
        } else if (r.type == AT_METER_MODEL) {
            at_meter_names_model(names, r.id, at_meter_book_model(book, r.name));
        } else if (r.type == AT_METER_USE) {
            struct row *row =
                at_meter_book_row_of(book, names, r.use.key, r.use.model, r.use.day, NULL);
            assert(row != NULL);
            at_meter_row_add(row, &r.use);
            if (book->options.on_use != NULL) {
                book->options.on_use(book->options.ctx, &row->pub, &r.use);
            }
        }
    }
}

/* The file that was written holds them. */
static void rows_are_known(struct at_meter_book *book)
{
    for (size_t i = 0; i < book->n_parts; i++) {
        struct part *p = book->parts[i];
        for (size_t j = 0; p->n_new > 0 && j < p->pub.n_rows; j++) {
            p->n_new -= p->rows[j]->is_new && p->rows[j]->n != 0;
            p->rows[j]->is_new = p->rows[j]->is_new && p->rows[j]->n == 0;
        }
    }
}

static void drop_full_segments(struct at_meter_book *book)
{
    for (size_t i = 0; i < book->n_logs; i++) {
        struct at_meter_segment *s = at_meter_log_first(book->logs[i]);
        /* Marked by the file that has just been written as applied to its end. */
        while (atomic_load(&s->next) != NULL && s->marked) {
            at_meter_log_drop_first(book->logs[i]);
            s = at_meter_log_first(book->logs[i]);
        }
    }
}

void at_meter_book_end(struct at_meter_book *book, bool synced, int32_t today)
{
    book->today = today;
    if (book->text.len > 0 && !book->text_failed) {
        rows_are_known(book);
        drop_full_segments(book);
    } else if (book->text.len > 0) {
        book->wants_text = true;
    }
    at_buf_clear(&book->text);
    for (size_t i = 0; synced && i < book->n_ranges; i++) {
        book->ranges[i].segment->synced = book->ranges[i].to;
    }
    for (size_t i = 0; i < book->n_logs; i++) {
        struct at_meter_segment *s = at_meter_log_first(book->logs[i]);
        for (; s != NULL; s = atomic_load(&s->next)) {
            apply(book, i, s);
            bool full = atomic_load(&s->next) != NULL && s->applied == atomic_load(&s->head);
            book->wants_text |= full;
        }
    }
    for (size_t i = 0; i < book->n_parts; i++) {
        book->wants_text |= book->parts[i]->n_new > 0;
    }
}

/* --- reading --- */

struct at_meter_part *at_meter_book_part(struct at_meter_book *book, size_t i)
{
    return i < book->n_parts ? &book->parts[i]->pub : NULL;
}

bool at_meter_book_may_tell(const struct at_meter_book *book, const struct at_meter_part *part)
{
    (void)book;
    return ((const struct part *)part)->n_new == 0;
}

static bool counts(const struct row *row, int32_t from)
{
    return from == INT32_MIN || row->pub.day >= from;
}

int64_t at_meter_book_spent_key(const struct at_meter_book *book, const char *uid, int32_t from)
{
    int64_t sum = 0;
    for (const struct key *key = at_map_get(book->by_uid, uid); key != NULL;
         key = key->next_of_uid) {
        for (struct row *row = key->rows; row != NULL; row = row->next_of_key) {
            sum += counts(row, from) ? row->pub.cost_nanousd : 0;
        }
    }
    return sum;
}

int64_t at_meter_book_spent(const struct at_meter_book *book, int32_t from,
                            bool (*match)(void *ctx, const struct at_meter_row *row), void *ctx)
{
    int64_t sum = 0;
    void *value;
    for (size_t it = 0; at_map_next(book->keys, &it, NULL, &value);) {
        for (struct row *row = ((struct key *)value)->rows; row != NULL; row = row->next_of_key) {
            sum += counts(row, from) && match(ctx, &row->pub) ? row->pub.cost_nanousd : 0;
        }
    }
    return sum;
}
