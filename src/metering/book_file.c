/* The book's file, and what is found of a run that has ended. */
#include "core/digest.h"
#include "core/mem.h"
#include "metering/book_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERSION 1

static char *path_of(const struct at_meter_book *book, const char *name)
{
    return at_asprintf("%s/%s", book->folder, name);
}

/* --- writing --- */

static enum at_rc put_fixed(struct at_buf *out, enum at_meter_type type, const void *body)
{
    char *at;
    size_t len = at_meter_fixed_bytes(type);
    enum at_rc rc = at_buf_reserve(out, len, &at);
    if (rc == AT_OK) {
        at_meter_fixed_write(type, body, (unsigned char *)at);
        at_buf_commit(out, len);
    }
    return rc;
}

static enum at_rc put_key(struct at_buf *out, const struct key *key)
{
    char *at;
    struct at_meter_who who = {
        .id = key->n, .uid = key->uid, .ns = key->ns, .name = key->name, .team = key->team};
    size_t len = at_meter_key_bytes(&who);
    enum at_rc rc = at_buf_reserve(out, len, &at);
    if (rc == AT_OK) {
        at_meter_key_write(&who, (unsigned char *)at);
        at_buf_commit(out, len);
    }
    return rc;
}

static enum at_rc put_model(struct at_buf *out, uint32_t id, const char *model)
{
    char *at;
    size_t len = at_meter_model_bytes(model);
    enum at_rc rc = at_buf_reserve(out, len, &at);
    if (rc == AT_OK) {
        at_meter_model_write(id, model, (unsigned char *)at);
        at_buf_commit(out, len);
    }
    return rc;
}

static enum at_rc put_row(struct at_buf *out, const struct key *key, uint32_t model,
                          struct row *row)
{
    const struct at_meter_row *r = &row->pub;
    struct at_meter_sum sum = {.key = key->n,
                               .model = model,
                               .day = r->day,
                               .part = row->part != NULL ? row->part->pub.number : 0,
                               .requests = r->requests,
                               .errors = r->errors,
                               .cached = r->cached,
                               .prompt = r->prompt,
                               .completion = r->completion,
                               .cost_nanousd = r->cost_nanousd};
    row->n = 1;
    return put_fixed(out, AT_METER_SUM, &sum);
}

/* Where each log's reading stands; what is before the first of its files is done with. */
static enum at_rc put_marks(struct at_meter_book *book, struct at_buf *out)
{
    enum at_rc rc = AT_OK;
    for (size_t i = 0; i < book->n_logs && rc == AT_OK; i++) {
        struct at_meter_segment *s = at_meter_log_first(book->logs[i]);
        for (; s != NULL && rc == AT_OK; s = atomic_load(&s->next)) {
            struct at_meter_mark mark = {.run = book->run,
                                         .loop = at_meter_log_loop(book->logs[i]),
                                         .segment = s->number,
                                         .offset = (uint32_t)s->applied};
            s->marked = atomic_load(&s->next) != NULL && s->applied == atomic_load(&s->head);
            rc = put_fixed(out, AT_METER_MARK, &mark);
        }
    }
    return rc;
}

enum at_rc at_meter_book_dump(struct at_meter_book *book, struct at_buf *out)
{
    struct at_meter_start start = {.run = book->run, .version = VERSION};
    struct at_map *ids = at_map_new();
    uint32_t n_keys = 0, n_models = 0;
    void *value;
    at_buf_clear(out);
    out->max = AT_METER_FILE_BYTES_MAX;
    memcpy(start.meter, book->meter, sizeof start.meter);
    enum at_rc rc = put_fixed(out, AT_METER_START, &start);
    rc = rc == AT_OK ? put_marks(book, out) : rc;
    for (size_t it = 0; rc == AT_OK && at_map_next(book->models, &it, NULL, &value);) {
        at_map_put(ids, value, (void *)(uintptr_t)++n_models);
        rc = put_model(out, n_models, value);
    }
    for (size_t it = 0; rc == AT_OK && at_map_next(book->keys, &it, NULL, &value);) {
        struct key *key = value;
        key->n = ++n_keys;
        rc = put_key(out, key);
        for (struct row *row = key->rows; row != NULL && rc == AT_OK; row = row->next_of_key) {
            uint32_t model = (uint32_t)(uintptr_t)at_map_get(ids, row->pub.model);
            rc = put_row(out, key, model, row);
        }
    }
    at_map_free(ids);
    return rc;
}

enum at_rc at_meter_book_write(struct at_meter_book *book, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = path_of(book, "book");
    return at_file_write_atomic(path, book->text.data, book->text.len, 0600, err);
}

/* --- reading --- */

struct loading {
    struct at_meter_book *book;
    struct names names;
    struct at_meter_mark *marks;
    size_t n_marks;
    uint32_t last_run; /* of the book's file */
    uint64_t *ids;     /* of requests that ended, to tell them from those that did not */
    size_t n_ids, cap_ids;
};

static void load_sum(struct loading *l, const struct at_meter_sum *sum)
{
    struct row *row =
        at_meter_book_row_of(l->book, &l->names, sum->key, sum->model, sum->day, &sum->part);
    if (row != NULL) {
        row->pub.requests += sum->requests;
        row->pub.errors += sum->errors;
        row->pub.cached += sum->cached;
        row->pub.prompt += sum->prompt;
        row->pub.completion += sum->completion;
        row->pub.cost_nanousd += sum->cost_nanousd;
        if (row->part != NULL) {
            row->part->pub.dirty = true;
        }
    }
}

static enum at_rc load_file(struct loading *l, const struct at_buf *text, struct at_err *err)
{
    struct at_meter_book *book = l->book;
    struct at_meter_record r;
    size_t at = 0;
    enum at_rc rc;
    while ((rc = at_meter_record_read((const unsigned char *)text->data, text->len, &at, &r)) ==
           AT_OK) {
        if (r.type == AT_METER_START) {
            if (r.start.version != VERSION) {
                return at_err_set(err, AT_UNSUPPORTED,
                                  "%s/book is of version %u, which this program cannot read",
                                  book->folder, r.start.version);
            }
            l->last_run = r.start.run;
            memcpy(book->meter, r.start.meter, sizeof book->meter);
        } else if (r.type == AT_METER_MARK) {
            l->marks = at_realloc(l->marks, (l->n_marks + 1) * sizeof *l->marks);
            l->marks[l->n_marks++] = r.mark;
        } else if (r.type == AT_METER_KEY) {
            at_meter_names_key(&l->names, r.id,
                               at_meter_book_key(book, r.uid, r.ns, r.name, r.team));
        } else if (r.type == AT_METER_MODEL) {
            at_meter_names_model(&l->names, r.id, at_meter_book_model(book, r.name));
        } else if (r.type == AT_METER_SUM) {
            load_sum(l, &r.sum);
        }
    }
    bool whole = rc == AT_NOT_FOUND && at == text->len && book->meter[0] != '\0';
    return whole ? AT_OK : at_err_set(err, AT_CORRUPT, "%s/book is damaged", book->folder);
}

/* How much of a log's file is in the book already; all of it: SIZE_MAX. */
static size_t known_of(const struct loading *l, uint32_t run, uint32_t loop, uint32_t segment)
{
    bool any = false;
    uint32_t first = UINT32_MAX;
    for (size_t i = 0; i < l->n_marks; i++) {
        const struct at_meter_mark *m = &l->marks[i];
        if (m->run == run && m->loop == loop) {
            any = true;
            first = m->segment < first ? m->segment : first;
            if (m->segment == segment) {
                return m->offset;
            }
        }
    }
    bool older = run < l->last_run || (any && segment < first);
    return older ? SIZE_MAX : 0;
}

static void remember(struct loading *l, uint64_t id)
{
    if (l->n_ids == l->cap_ids) {
        l->cap_ids = l->cap_ids * 2 + 1024;
        l->ids = at_realloc(l->ids, l->cap_ids * sizeof *l->ids);
    }
    l->ids[l->n_ids++] = id;
}

static int by_id(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void load_log(struct loading *l, struct names *names, const struct at_buf *text,
                     size_t known)
{
    struct at_meter_book *book = l->book;
    struct at_meter_record r;
    for (size_t at = 0, from = 0;
         at_meter_record_read((const unsigned char *)text->data, text->len, &at, &r) == AT_OK;
         from = at) {
        if (r.type == AT_METER_KEY) {
            at_meter_names_key(names, r.id, at_meter_book_key(book, r.uid, r.ns, r.name, r.team));
        } else if (r.type == AT_METER_MODEL) {
            at_meter_names_model(names, r.id, at_meter_book_model(book, r.name));
        } else if (r.type == AT_METER_USE) {
            struct row *row =
                from < known || known == SIZE_MAX
                    ? NULL
                    : at_meter_book_row_of(book, names, r.use.key, r.use.model, r.use.day, NULL);
            remember(l, r.use.id);
            if (row != NULL) {
                at_meter_row_add(row, &r.use);
            }
        }
    }
}

/* Requests that were under way when the run ended: they cost what their slots say. */
static void load_slots(struct loading *l, const struct names *names, const struct at_buf *text)
{
    if (l->n_ids > 0) {
        qsort(l->ids, l->n_ids, sizeof *l->ids, by_id);
    }
    for (size_t i = 0; (i + 1) * sizeof(struct at_meter_slot) <= text->len; i++) {
        struct at_meter_slot slot;
        memcpy(&slot, text->data + i * sizeof slot, sizeof slot);
        uint64_t id = atomic_load(&slot.id);
        int64_t cost = atomic_load(&slot.cost_nanousd);
        if (id == 0 || cost < 0 ||
            (l->n_ids > 0 && bsearch(&id, l->ids, l->n_ids, sizeof id, by_id) != NULL)) {
            continue;
        }
        struct row *row =
            at_meter_book_row_of(l->book, names, slot.key, slot.model, slot.day, NULL);
        struct at_meter_use use = {.status = 499,
                                   .prompt = atomic_load(&slot.prompt),
                                   .completion = atomic_load(&slot.completion),
                                   .cost_nanousd = cost};
        if (row != NULL && (use.prompt | use.completion | (uint64_t)cost) != 0) {
            at_meter_row_add(row, &use);
        }
    }
}

struct found {
    uint32_t run, loop, segment; /* segment 0: of slots */
};

static bool parse_name(const char *name, struct found *ret)
{
    unsigned run, loop, segment;
    int end = 0;
    if (sscanf(name, "r%u-l%u-%u.log%n", &run, &loop, &segment, &end) == 3 && name[end] == '\0' &&
        end > 0) {
        *ret = (struct found){run, loop, segment};
        return segment > 0;
    }
    end = 0;
    if (sscanf(name, "r%u-l%u.slots%n", &run, &loop, &end) == 2 && end > 0 && name[end] == '\0') {
        *ret = (struct found){run, loop, 0};
        return true;
    }
    return false;
}

/* Logs of a loop in order, then its slots. */
static int by_order(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    uint32_t i = x->segment - 1, j = y->segment - 1; /* 0 becomes the last */
    return x->run != y->run     ? (x->run < y->run ? -1 : 1)
           : x->loop != y->loop ? (x->loop < y->loop ? -1 : 1)
                                : (i < j ? -1 : i > j);
}

static char *found_path(const struct at_meter_book *book, const struct found *f)
{
    return f->segment != 0
               ? at_asprintf("%s/r%u-l%u-%u.log", book->folder, f->run, f->loop, f->segment)
               : at_asprintf("%s/r%u-l%u.slots", book->folder, f->run, f->loop);
}

static enum at_rc load_found(struct loading *l, const struct found *all, size_t n,
                             struct at_err *err)
{
    struct names names = {0};
    enum at_rc rc = AT_OK;
    for (size_t i = 0; i < n && rc == AT_OK; i++) {
        const struct found *f = &all[i];
        AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
        AT_CLEANUP(at_cleanup_free) char *path = found_path(l->book, f);
        if (i > 0 && (all[i - 1].run != f->run || all[i - 1].loop != f->loop)) {
            at_meter_names_done(&names);
            l->n_ids = 0;
        }
        rc = at_file_read(path, AT_METER_SEGMENT_BYTES * 2, &text, err);
        if (rc == AT_OK && f->segment != 0) {
            load_log(l, &names, &text, known_of(l, f->run, f->loop, f->segment));
        } else if (rc == AT_OK && f->run >= l->last_run) {
            load_slots(l, &names, &text);
        }
        l->book->run = f->run > l->book->run ? f->run : l->book->run;
    }
    at_meter_names_done(&names);
    return rc;
}

static enum at_rc list_found(struct at_meter_book *book, struct found **ret, size_t *ret_n,
                             struct at_err *err)
{
    char **names = NULL;
    size_t n = 0;
    enum at_rc rc = at_dir_list(book->folder, &names, &n, err);
    *ret = at_alloc((n + 1) * sizeof **ret);
    *ret_n = 0;
    for (size_t i = 0; rc == AT_OK && i < n; i++) {
        *ret_n += parse_name(names[i], &(*ret)[*ret_n]);
        at_free(names[i]);
    }
    at_free(names);
    qsort(*ret, *ret_n, sizeof **ret, by_order);
    return rc;
}

static void name_meter(struct at_meter_book *book)
{
    unsigned char random[4];
    at_sys_random(book->options.sys, random, sizeof random);
    at_hex_encode(random, sizeof random, book->meter);
}

/* What is damaged is kept beside, and counting begins anew under another name: what the old one was
 * given to spend stays given. */
static enum at_rc put_aside(struct loading *l, const char *path, char *damage, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *aside = at_asprintf("%s.damaged", path);
    snprintf(damage, AT_ERR_MSG_BYTES_MAX, "%.400s; it is now %.400s", err->msg, aside);
    name_meter(l->book);
    return at_file_rename(path, aside, err);
}

enum at_rc at_meter_book_load(struct at_meter_book *book, char *damage, struct at_err *err)
{
    struct loading l = {.book = book};
    struct found *found = NULL;
    size_t n = 0;
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    AT_CLEANUP(at_cleanup_free) char *path = path_of(book, "book");
    enum at_rc rc = at_file_exists(path) ? at_file_read(path, AT_METER_FILE_BYTES_MAX, &text, err)
                                         : AT_NOT_FOUND;
    if (rc == AT_OK) {
        rc = load_file(&l, &text, err);
        rc = rc == AT_CORRUPT ? put_aside(&l, path, damage, err) : rc;
    } else if (rc == AT_NOT_FOUND) {
        name_meter(book);
        rc = AT_OK;
    }
    rc = rc == AT_OK ? list_found(book, &found, &n, err) : rc;
    book->run = l.last_run;
    rc = rc == AT_OK ? load_found(&l, found, n, err) : rc;
    if (rc == AT_OK) {
        book->run++;
        rc = at_meter_book_dump(book, &book->text);
        rc = rc == AT_OK ? at_meter_book_write(book, err) : at_err_set(err, rc, "%s", path);
    }
    for (size_t i = 0; rc == AT_OK && i < n; i++) {
        AT_CLEANUP(at_cleanup_free) char *old = found_path(book, &found[i]);
        rc = at_file_remove(old, err);
    }
    at_buf_clear(&book->text);
    for (size_t i = 0; i < book->n_parts; i++) { /* all are in the file now */
        struct part *part = book->parts[i];
        part->n_new = 0;
        for (size_t j = 0; j < part->pub.n_rows; j++) {
            part->rows[j]->is_new = false;
        }
    }
    at_meter_names_done(&l.names);
    at_free(l.marks);
    at_free(l.ids);
    at_free(found);
    return rc;
}
