/* Lines that ride in a store's transactions (journal.h). They are kept here from when they are
 * written until a batch of the store takes them or a sync makes that needless. The journal is whole
 * from the last sync on: when lines were left out of it, a sync has to come first. */
#include "audit/audit_priv.h"
#include "audit/journal.h"

#include <assert.h>

void at_audit_rides_sync_want(struct at_audit *a)
{
    a->pending.sync = true;
    a->sync_ticket = a->next_ticket - 1;
    pthread_cond_signal(&a->changed);
}

static void lines_drop(struct at_audit *a)
{
    at_buf_clear(&a->lines.text);
    a->gap_seq = a->lines.last_seq > a->gap_seq ? a->lines.last_seq : a->gap_seq;
}

void at_audit_rides_written(struct at_audit *a, const char *text, size_t len, int64_t offset)
{
    struct at_audit_lines *l = &a->lines;
    if (!a->journaled || len == 0) {
        return;
    }
    pthread_mutex_lock(&a->lock);
    if (l->text.len == 0) {
        l->file_first_seq = a->w.file_first_seq;
        l->offset = offset;
    }
    l->last_seq = a->w.seq;
    if (l->text.len + len > AT_AUDIT_JOURNAL_BYTES_MAX ||
        at_buf_append(&l->text, text, len) != AT_OK) {
        lines_drop(a);
    }
    pthread_mutex_unlock(&a->lock);
}

void at_audit_rides_synced(struct at_audit *a, uint64_t seq)
{
    a->synced_seq = seq > a->synced_seq ? seq : a->synced_seq;
    a->done_seq = seq > a->done_seq ? seq : a->done_seq;
    if (a->lines.last_seq <= a->synced_seq) {
        at_buf_clear(&a->lines.text);
    }
}

uint64_t at_audit_journal_mark(void *ctx)
{
    struct at_audit *a = ctx;
    if (a == NULL) {
        return 0;
    }
    pthread_mutex_lock(&a->lock);
    uint64_t mark = a->ride_ticket > a->done_ticket ? a->ride_ticket : 0;
    if (mark != 0) {
        pthread_cond_signal(&a->changed);
    }
    pthread_mutex_unlock(&a->lock);
    return mark;
}

static bool take(struct at_audit *a, uint64_t mark, struct at_buf *out)
{
    struct at_audit_lines *l = &a->lines;
    if (a->written_ticket < mark || a->gap_seq > a->synced_seq || l->text.len == 0 ||
        at_buf_printf(out, "J1 %llu %llu %lld\n", (unsigned long long)a->synced_seq,
                      (unsigned long long)l->file_first_seq, (long long)l->offset) != AT_OK) {
        return false;
    }
    if (at_buf_append(out, l->text.data, l->text.len) != AT_OK) {
        at_buf_clear(out);
        return false;
    }
    return true;
}

bool at_audit_journal_take(void *ctx, uint64_t mark, struct at_buf *out, uint64_t *ret_tag,
                           uint64_t *ret_dead)
{
    struct at_audit *a = ctx;
    pthread_mutex_lock(&a->lock);
    pthread_cond_signal(&a->changed);
    while (a->tried_ticket < mark) {
        pthread_cond_wait(&a->tried, &a->lock);
    }
    a->taken_ticket = 0;
    bool taken = take(a, mark, out);
    if (taken) {
        a->taken_ticket = a->written_ticket;
        a->taken_seq = a->lines.last_seq;
        *ret_tag = a->taken_seq;
        *ret_dead = a->synced_seq;
        at_buf_clear(&a->lines.text);
    }
    pthread_mutex_unlock(&a->lock);
    return taken;
}

void at_audit_journal_landed(void *ctx, bool kept)
{
    struct at_audit *a = ctx;
    pthread_mutex_lock(&a->lock);
    if (kept && a->taken_ticket != 0) {
        a->done_ticket = a->taken_ticket > a->done_ticket ? a->taken_ticket : a->done_ticket;
        a->done_seq = a->taken_seq > a->done_seq ? a->taken_seq : a->done_seq;
    } else {
        if (a->taken_ticket != 0) {
            a->gap_seq = a->taken_seq > a->gap_seq ? a->taken_seq : a->gap_seq;
        }
        at_audit_rides_sync_want(a);
    }
    a->taken_ticket = 0;
    pthread_mutex_unlock(&a->lock);
    at_audit_told(a);
}
