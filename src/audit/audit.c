/* The loop's side of the audit log. */
#include "audit/audit.h"

#include "audit/audit_priv.h"
#include "audit/ship.h"
#include "core/mem.h"
#include "core/str.h"
#include "core/units.h"
#include "sys/fd.h"
#include "sys/file.h"
#include "sys/wake.h"

#include <assert.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

enum at_rc at_audit_level_parse(const char *text, enum at_audit_level *ret, struct at_err *err)
{
    static const char *const NAMES[] = {"none", "changes", "requests", "all"};
    for (size_t i = 0; i < AT_ARRAY_LEN(NAMES); i++) {
        if (at_streq(text, NAMES[i])) {
            *ret = (enum at_audit_level)i;
            return AT_OK;
        }
    }
    return at_err_set(err, AT_INVALID, "\"%.40s\" is none of none, changes, requests, all",
                      text != NULL ? text : "");
}

void at_audit_told(struct at_audit *a)
{
    pthread_mutex_lock(&a->lock);
    uint64_t ticket = a->done_ticket, seq = a->done_seq;
    enum at_rc rc = a->rc != AT_OK ? a->rc : a->sync_rc;
    int64_t bytes = a->bytes;
    size_t waiting = a->pending.records.len;
    uint64_t lost = a->lost;
    if (rc != AT_OK) {
        snprintf(a->why, sizeof a->why, "what is asked cannot be recorded: %s", a->err.msg);
    }
    pthread_mutex_unlock(&a->lock);
    bool refuses = rc != AT_OK || waiting > AT_AUDIT_PENDING_BYTES_MAX / 2;
    atomic_store(&a->refuses, refuses);
    if (a->bytes_now != NULL) {
        at_metric_set(a->bytes_now, bytes);
        at_metric_set(a->refusing_now, refuses ? 1 : 0);
        at_metric_add(a->lost_total, (int64_t)(lost > a->lost_seen ? lost - a->lost_seen : 0));
        a->lost_seen = lost;
    }
    for (size_t i = 0; i < a->n_ships; i++) {
        at_audit_ship_behind(a->ships[i], seq);
    }
    if (ticket != a->told_ticket) {
        a->told_ticket = ticket;
        if (a->settled != NULL) {
            a->settled(a->ctx, ticket);
        }
    }
}

static void on_wake(void *ctx, int fd, unsigned events)
{
    (void)events;
    at_wake_drain(fd);
    at_audit_told(ctx);
}

/* Records of one turn wake the writer once. */
static void on_turn_end(void *ctx)
{
    struct at_audit *a = ctx;
    pthread_mutex_lock(&a->lock);
    pthread_cond_signal(&a->changed);
    pthread_mutex_unlock(&a->lock);
}

/* Seal what came, and try again what failed. */
static void on_timer(void *ctx)
{
    struct at_audit *a = ctx;
    pthread_mutex_lock(&a->lock);
    bool idle = a->timer_ticket == a->next_ticket && a->rc == AT_OK && a->sync_rc == AT_OK;
    if (!idle) {
        a->pending.sync = a->pending.sync || a->sync_rc != AT_OK;
        a->pending.seal = true;
        a->pending.seal_why = "time";
        a->pending.wall_ns = at_sys_wall_ns(at_loop_sys(a->loop));
        pthread_cond_signal(&a->changed);
    }
    pthread_mutex_unlock(&a->lock);
    a->timer_ticket = a->next_ticket;
    a->timer = at_loop_timer(a->loop, AT_AUDIT_SEAL_PERIOD_MS * AT_NS_PER_MS, on_timer, a);
}

static void metrics_make(struct at_audit *a, struct at_metrics *m)
{
    if (m == NULL) {
        return;
    }
    a->records_total = at_metric_plain(m, AT_METRIC_COUNTER, "atoll_audit_records_total",
                                       "Records of requests given to the audit log.");
    a->lost_total = at_metric_plain(m, AT_METRIC_COUNTER, "atoll_audit_lost_total",
                                    "Records that found no room; the log says so too.");
    a->bytes_now = at_metric_plain(m, AT_METRIC_GAUGE, "atoll_audit_bytes",
                                   "Size of all files of the audit log.");
    a->refusing_now =
        at_metric_plain(m, AT_METRIC_GAUGE, "atoll_audit_refusing",
                        "1 while requests are refused because they cannot be recorded.");
}

static enum at_rc writer_open(struct at_audit *a, const struct at_audit_options *o,
                              struct at_err *err)
{
    struct at_audit_writer *w = &a->w;
    const struct at_sys *sys = at_loop_sys(a->loop);
    struct at_audit_tail tail = {0};
    unsigned char id[(AT_AUDIT_CHAIN_ID_BYTES - 1) / 2];
    at_sys_random(sys, id, sizeof id);
    at_hex_encode(id, sizeof id, w->chain);
    struct at_audit_healed healed = {0};
    enum at_rc rc = at_audit_key_open(o->dir, &w->key, err);
    rc = rc == AT_OK ? at_audit_redo_apply(o->redo, o->dir, &healed, err) : rc;
    rc = rc == AT_OK ? at_audit_tail_read(o->dir, &tail, err) : rc;
    if (rc == AT_OK && tail.damaged && tail.seq == 0 && at_audit_file_first(w->path) == 0) {
        AT_CLEANUP(at_cleanup_free) char *aside = at_asprintf("%s/audit.unchained.log", w->dir);
        rc = at_file_rename(w->path, aside, err); /* of a version before the chain */
        rc = rc == AT_OK ? at_audit_tail_read(o->dir, &tail, err) : rc;
    }
    if (rc == AT_OK && tail.cut_bytes > 0) {
        rc = at_file_truncate(w->path, tail.bytes, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    struct at_audit_files files = {0};
    rc = at_audit_files_list(o->dir, &files, err);
    for (size_t i = 0; rc == AT_OK && i < files.n; i++) {
        w->older_bytes += files.items[i].bytes;
    }
    at_audit_files_done(&files);
    w->file_bytes = tail.bytes;
    w->older_bytes -= tail.bytes;
    return rc == AT_OK ? at_audit_writer_begin(a, &tail, &healed, at_sys_wall_ns(sys), err) : rc;
}

static enum at_rc thread_start(struct at_audit *a, struct at_err *err)
{
    enum at_rc rc = at_wake_open(&a->wake_fd, err);
    if (rc != AT_OK) {
        return rc;
    }
    a->wake_watch = at_loop_watch(a->loop, a->wake_fd, AT_LOOP_READ, on_wake, a);
    rc = at_audit_sync_start(a, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (pthread_create(&a->thread, NULL, at_audit_thread, a) != 0) {
        at_audit_sync_stop(a);
        return at_err_set(err, AT_UNAVAILABLE, "no thread for the audit log");
    }
    a->timer = at_loop_timer(a->loop, AT_AUDIT_SEAL_PERIOD_MS * AT_NS_PER_MS, on_timer, a);
    return AT_OK;
}

static void audit_free(struct at_audit *a)
{
    at_loop_timer_cancel(a->loop, a->timer);
    at_loop_at_end_cancel(a->loop, &a->turn_end);
    at_loop_unwatch(a->loop, a->wake_watch);
    at_wake_close(a->wake_fd);
    pthread_cond_destroy(&a->changed);
    pthread_cond_destroy(&a->tried);
    pthread_cond_destroy(&a->sync_asked);
    pthread_mutex_destroy(&a->lock);
    at_buf_done(&a->pending.records);
    at_buf_done(&a->w.out);
    at_buf_done(&a->lines.text);
    at_file_close(a->w.fd);
    at_audit_hasher_free(a->w.hasher);
    EVP_PKEY_free(a->w.key);
    at_free(a->w.dir);
    at_free(a->w.path);
    at_free(a);
}

static enum at_rc ships_start(struct at_audit *a, const struct at_audit_options *o,
                              struct at_err *err)
{
    enum at_rc rc = AT_OK;
    for (size_t i = 0; rc == AT_OK && o->sinks != NULL && o->sinks[i] != NULL; i++) {
        if (a->n_ships == AT_AUDIT_SINKS_MAX) {
            return at_err_set(err, AT_INVALID, "at most %d sinks", AT_AUDIT_SINKS_MAX);
        }
        rc = at_audit_ship_new(a, o->sinks[i], &a->ships[a->n_ships], err);
        if (rc == AT_OK && o->metrics != NULL) {
            AT_CLEANUP(at_cleanup_free)
            char *sink = at_strndup(o->sinks[i], strcspn(o->sinks[i], "#?"));
            at_audit_ship_metrics(a->ships[a->n_ships], o->metrics, sink);
        }
        a->n_ships += rc == AT_OK;
    }
    if (a->n_ships > 0) {
        pthread_mutex_lock(&a->lock);
        a->keep_seq = 0; /* until the first of them has told */
        pthread_mutex_unlock(&a->lock);
    }
    return rc;
}

enum at_rc at_audit_open(const struct at_audit_options *o, struct at_audit **ret,
                         struct at_err *err)
{
    struct at_audit *a = AT_NEW(struct at_audit);
    a->loop = o->loop;
    a->level = o->level;
    a->no_sync = o->no_sync;
    a->journaled = o->journaled && !o->no_sync;
    a->sync.fd = -1;
    a->settled = o->settled;
    a->ctx = o->ctx;
    a->wake_fd = -1;
    a->next_ticket = 1;
    a->turn_end = (struct at_loop_task){.fn = on_turn_end, .ctx = a};
    a->keep_seq = UINT64_MAX;
    a->pending.records.max = 2 * AT_AUDIT_PENDING_BYTES_MAX;
    a->w = (struct at_audit_writer){
        .a = a,
        .dir = at_strdup(o->dir),
        .path = at_asprintf("%s/audit.log", o->dir),
        .fd = -1,
        .hasher = at_audit_hasher_new(),
        .bytes_max = o->bytes_max > 0 ? o->bytes_max : AT_AUDIT_BYTES_DEFAULT,
        .drop_oldest = o->drop_oldest,
    };
    int64_t file_max = o->file_bytes_max > 0 ? o->file_bytes_max : AT_AUDIT_FILE_BYTES_DEFAULT;
    a->w.file_bytes_max = file_max <= a->w.bytes_max / 4 ? file_max : a->w.bytes_max / 4;
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->changed, NULL);
    pthread_cond_init(&a->tried, NULL);
    pthread_cond_init(&a->sync_asked, NULL);
    metrics_make(a, o->metrics);
    enum at_rc rc = writer_open(a, o, err);
    at_audit_rides_synced(a, a->w.seq); /* nobody else is there yet */
    rc = rc == AT_OK ? thread_start(a, err) : rc;
    if (rc != AT_OK) {
        audit_free(a);
        return rc;
    }
    rc = ships_start(a, o, err);
    if (rc != AT_OK) {
        at_audit_close(a);
        return rc;
    }
    *ret = a;
    return AT_OK;
}

void at_audit_close(struct at_audit *a)
{
    if (a == NULL) {
        return;
    }
    pthread_mutex_lock(&a->lock);
    a->pending.seal = true;
    a->pending.seal_why = "end";
    a->pending.wall_ns = at_sys_wall_ns(at_loop_sys(a->loop));
    a->stop = true;
    pthread_cond_signal(&a->changed);
    pthread_mutex_unlock(&a->lock);
    pthread_join(a->thread, NULL);
    at_audit_sync_stop(a);
    for (size_t i = 0; i < a->n_ships; i++) {
        at_audit_ship_free(a->ships[i]);
    }
    audit_free(a);
}

enum at_audit_level at_audit_level_of(const struct at_audit *audit)
{
    return audit->level;
}

uint64_t at_audit_add(struct at_audit *a, const char *members, size_t len, enum at_audit_wait wait)
{
    assert(len <= AT_AUDIT_RECORD_BYTES_MAX);
    uint64_t ticket = a->next_ticket++;
    if (a->records_total != NULL) {
        at_metric_add(a->records_total, 1);
    }
    pthread_mutex_lock(&a->lock);
    struct at_audit_batch *p = &a->pending;
    if (p->records.len + sizeof len + len > AT_AUDIT_PENDING_BYTES_MAX ||
        at_buf_append(&p->records, &len, sizeof len) != AT_OK) {
        a->lost++;
    } else if (at_buf_append(&p->records, members, len) != AT_OK) {
        p->records.len -= sizeof len;
        a->lost++;
    } else {
        p->n++;
    }
    p->last_ticket = ticket;
    p->waited = p->waited || wait != AT_AUDIT_LATER;
    if (wait == AT_AUDIT_RIDES && a->journaled) {
        a->ride_ticket = ticket;
    } else if (wait != AT_AUDIT_LATER && !a->no_sync) {
        p->sync = true;
        a->sync_ticket = ticket;
    }
    p->wall_ns = at_sys_wall_ns(at_loop_sys(a->loop));
    pthread_mutex_unlock(&a->lock);
    at_loop_at_end(a->loop, &a->turn_end);
    return ticket;
}

void at_audit_hurry(struct at_audit *a, uint64_t ticket)
{
    pthread_mutex_lock(&a->lock);
    if (!a->no_sync && ticket > a->done_ticket && ticket > a->sync_ticket) {
        at_audit_rides_sync_want(a);
    }
    pthread_mutex_unlock(&a->lock);
}

bool at_audit_refuses(const struct at_audit *audit, const char **ret_why)
{
    if (!atomic_load_explicit(&audit->refuses, memory_order_relaxed)) {
        return false;
    }
    *ret_why = audit->why[0] != '\0' ? audit->why
                                     : "what is asked cannot be recorded: the audit log's disk is "
                                       "too slow";
    return true;
}
