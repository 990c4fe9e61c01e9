/* The journal in the SQLite file: a ring of slots, each one row that fills one page of its B-tree.
 * A row of unchanged size is overwritten in place, so that nothing is allocated, freed or cleaned
 * up: a batch costs as many pages of the write-ahead log as it has slots. */
#include "core/mem.h"
#include "store/sqlite_priv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct slot_head {   /* as stored */
    uint64_t number; /* grows by one from slot to slot */
    uint32_t part, parts;
    uint32_t len, unused;
};
#define SLOT_BYTES 4048 /* with its row's head it fits on a leaf of 4096 bytes */
#define SLOT_DATA_BYTES (SLOT_BYTES - sizeof(struct slot_head))

struct entry { /* one batch that is kept */
    uint64_t tag;
    size_t slots;
};

struct at_sqlite_journal {
    sqlite3_stmt *put;
    uint64_t next_number;
    size_t first, used; /* slots: the oldest that is needed, and how many */
    struct entry entries[AT_STORE_JOURNAL_SLOTS];
    size_t entry_first, n_entries;
    struct entry taken; /* of the transaction under way; slots 0: none */
    struct at_buf bytes;
    char slot[SLOT_BYTES];
};

/* --- reading --- */

struct slot {
    struct slot_head head;
    char *data;
};

static int slot_compare(const void *a, const void *b)
{
    uint64_t x = ((const struct slot *)a)->head.number;
    uint64_t y = ((const struct slot *)b)->head.number;
    return x < y ? -1 : x > y;
}

static bool slot_read(sqlite3_stmt *row, struct slot *ret)
{
    const char *bytes = sqlite3_column_blob(row, 0);
    struct slot_head head;
    if (bytes == NULL || sqlite3_column_bytes(row, 0) != SLOT_BYTES) {
        return false;
    }
    memcpy(&head, bytes, sizeof head);
    if (head.len > SLOT_DATA_BYTES || head.part >= head.parts) {
        return false;
    }
    *ret = (struct slot){.head = head, .data = at_alloc(SLOT_DATA_BYTES)};
    memcpy(ret->data, bytes + sizeof head, head.len);
    return true;
}

/* Batches whose slots are all there; others were dead and are overwritten in part. */
static void batches_tell(const struct slot *slots, size_t n, at_store_journal_fn *each, void *ctx)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf bytes = {0};
    uint32_t next_part = 0;
    for (size_t i = 0; i < n; i++) {
        const struct slot_head *h = &slots[i].head;
        bool follows = h->part > 0 && next_part == h->part &&
                       h->number == slots[i - 1].head.number + 1 &&
                       h->parts == slots[i - 1].head.parts;
        if (h->part == 0) {
            at_buf_clear(&bytes);
        } else if (!follows) {
            next_part = 0;
            continue;
        }
        next_part = at_buf_append(&bytes, slots[i].data, h->len) == AT_OK ? h->part + 1 : 0;
        if (next_part == h->parts) {
            each(ctx, bytes.data, bytes.len);
            next_part = 0;
        }
    }
}

static int load(struct at_sqlite_journal *j, sqlite3 *db, at_store_journal_fn *each, void *ctx)
{
    sqlite3_stmt *rows;
    if (sqlite3_prepare_v2(db, "SELECT bytes FROM journal", -1, &rows, NULL) != SQLITE_OK) {
        return SQLITE_ERROR;
    }
    struct slot *slots = NULL;
    size_t n = 0;
    int code;
    while ((code = sqlite3_step(rows)) == SQLITE_ROW) {
        struct slot slot;
        if (slot_read(rows, &slot)) {
            slots = at_realloc(slots, (n + 1) * sizeof *slots);
            slots[n++] = slot;
        }
    }
    sqlite3_finalize(rows);
    if (n > 0) {
        qsort(slots, n, sizeof *slots, slot_compare);
        j->next_number = slots[n - 1].head.number + 1;
        batches_tell(slots, n, each, ctx);
    }
    for (size_t i = 0; i < n; i++) {
        at_free(slots[i].data);
    }
    at_free(slots);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

int at_sqlite_journal_new(sqlite3 *db, at_store_journal_fn *each, void *ctx,
                          struct at_sqlite_journal **ret)
{
    struct at_sqlite_journal *j = AT_NEW(struct at_sqlite_journal);
    int code = sqlite3_exec(db,
                            "CREATE TABLE IF NOT EXISTS"
                            " journal(slot INTEGER PRIMARY KEY, bytes BLOB NOT NULL)",
                            NULL, NULL, NULL);
    if (code == SQLITE_OK) {
        code = load(j, db, each, ctx);
    }
    if (code == SQLITE_OK) {
        code = sqlite3_prepare_v3(db, "INSERT OR REPLACE INTO journal(slot, bytes) VALUES(?1, ?2)",
                                  -1, SQLITE_PREPARE_PERSISTENT, &j->put, NULL);
    }
    if (code != SQLITE_OK) {
        at_sqlite_journal_free(j);
        return code;
    }
    *ret = j;
    return SQLITE_OK;
}

void at_sqlite_journal_free(struct at_sqlite_journal *j)
{
    if (j != NULL) {
        sqlite3_finalize(j->put);
        at_buf_done(&j->bytes);
        at_free(j);
    }
}

/* --- writing --- */

static void dead_drop(struct at_sqlite_journal *j, uint64_t dead)
{
    while (j->n_entries > 0 && j->entries[j->entry_first].tag <= dead) {
        size_t slots = j->entries[j->entry_first].slots;
        assert(slots <= j->used);
        j->first = (j->first + slots) % AT_STORE_JOURNAL_SLOTS;
        j->used -= slots;
        j->entry_first = (j->entry_first + 1) % AT_STORE_JOURNAL_SLOTS;
        j->n_entries--;
    }
    if (j->n_entries == 0) {
        assert(j->used == 0);
        j->first = 0; /* whoever writes little touches few pages */
    }
}

static int slot_put(struct at_sqlite_journal *j, size_t part, size_t parts)
{
    size_t from = part * SLOT_DATA_BYTES;
    size_t len = j->bytes.len - from < SLOT_DATA_BYTES ? j->bytes.len - from : SLOT_DATA_BYTES;
    const struct slot_head head = {.number = j->next_number + part,
                                   .part = (uint32_t)part,
                                   .parts = (uint32_t)parts,
                                   .len = (uint32_t)len};
    memcpy(j->slot, &head, sizeof head);
    memcpy(j->slot + sizeof head, j->bytes.data + from, len);
    sqlite3_bind_int64(j->put, 1, (int64_t)((j->first + j->used + part) % AT_STORE_JOURNAL_SLOTS));
    sqlite3_bind_blob(j->put, 2, j->slot, SLOT_BYTES, SQLITE_STATIC);
    int code = sqlite3_step(j->put);
    sqlite3_reset(j->put);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

int at_sqlite_journal_write(struct at_sqlite_journal *j, struct at_store_rider *rider)
{
    struct entry taken = {0};
    uint64_t dead = 0;
    j->taken = taken;
    at_buf_clear(&j->bytes);
    if (!rider->journal->take(rider->journal->ctx, rider->mark, &j->bytes, &taken.tag, &dead)) {
        return SQLITE_OK;
    }
    dead_drop(j, dead);
    taken.slots = (j->bytes.len + SLOT_DATA_BYTES - 1) / SLOT_DATA_BYTES;
    if (taken.slots > AT_STORE_JOURNAL_SLOTS - j->used) {
        return SQLITE_OK; /* no room: its owner keeps it elsewhere */
    }
    for (size_t i = 0; i < taken.slots; i++) {
        int code = slot_put(j, i, taken.slots);
        if (code != SQLITE_OK) {
            return code;
        }
    }
    j->taken = taken;
    return SQLITE_OK;
}

bool at_sqlite_journal_end(struct at_sqlite_journal *j, bool committed)
{
    struct entry taken = j->taken;
    j->taken = (struct entry){0};
    if (!committed || taken.slots == 0) {
        return false;
    }
    j->next_number += taken.slots;
    j->used += taken.slots;
    j->entries[(j->entry_first + j->n_entries++) % AT_STORE_JOURNAL_SLOTS] = taken;
    return true;
}
