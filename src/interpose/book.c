/* What this process holds: one open-addressed table under a lock, in memory of its own, since the
 * program's malloc may not be ready for us. */
#include "interpose/interpose.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#define FIRST_ENTRIES 4096 /* a power of two */

static struct {
    pthread_mutex_t lock;
    struct book_entry *entries;
    size_t size, filled; /* filled: living and tombs */
    size_t living;
} book = {.lock = PTHREAD_MUTEX_INITIALIZER};

static size_t place_of(uint64_t key, uint8_t kind, size_t size)
{
    uint64_t h = (key ^ (uint64_t)kind << 56) * UINT64_C(0x9e3779b97f4a7c15);
    return (size_t)(h >> 20) & (size - 1);
}

static struct book_entry *find(uint8_t kind, uint64_t key)
{
    if (book.size == 0) {
        return NULL;
    }
    for (size_t at = place_of(key, kind, book.size);; at = (at + 1) & (book.size - 1)) {
        struct book_entry *e = &book.entries[at];
        if (e->key == 0 && e->dead == 0) {
            return NULL;
        }
        if (e->key == key && e->kind == kind && e->dead == 0) {
            return e;
        }
    }
}

static void insert(struct book_entry *entries, size_t size, const struct book_entry *entry)
{
    size_t at = place_of(entry->key, entry->kind, size);
    while (entries[at].key != 0 || entries[at].dead != 0) {
        at = (at + 1) & (size - 1);
    }
    entries[at] = *entry;
}

/* Tombs go with it. Without memory the old table stays until it is full. */
static bool grow(void)
{
    size_t size = book.size == 0 ? FIRST_ENTRIES : book.size;
    while (size < 4 * (book.living + 1)) {
        size *= 2;
    }
    struct book_entry *entries = mmap(NULL, size * sizeof *entries, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (entries == MAP_FAILED) {
        return book.filled + 1 < book.size;
    }
    for (size_t i = 0; i < book.size; i++) {
        if (book.entries[i].key != 0 && book.entries[i].dead == 0) {
            insert(entries, size, &book.entries[i]);
        }
    }
    if (book.entries != NULL) {
        munmap(book.entries, book.size * sizeof *book.entries);
    }
    book.entries = entries;
    book.size = size;
    book.filled = book.living;
    return true;
}

void book_put(const struct book_entry *entry)
{
    pthread_mutex_lock(&book.lock);
    if (2 * (book.filled + 1) <= book.size || grow()) {
        insert(book.entries, book.size, entry);
        book.filled++;
        book.living++;
    } /* else it is never given back: the safe side */
    pthread_mutex_unlock(&book.lock);
}

static void bury(struct book_entry *e)
{
    e->dead = 1;
    e->key = 0;
    book.living--;
}

bool book_take(enum book_kind kind, uint64_t key, struct book_entry *ret)
{
    pthread_mutex_lock(&book.lock);
    struct book_entry *e = key != 0 ? find((uint8_t)kind, key) : NULL;
    if (e != NULL) {
        *ret = *e;
        bury(e);
    }
    pthread_mutex_unlock(&book.lock);
    return e != NULL;
}

bool book_change(enum book_kind kind, uint64_t key, int holds, struct book_entry *ret)
{
    pthread_mutex_lock(&book.lock);
    struct book_entry *e = key != 0 ? find((uint8_t)kind, key) : NULL;
    if (e != NULL) {
        e->holds = (uint32_t)((int)e->holds + holds);
        *ret = *e;
        if (e->holds == 0) {
            bury(e);
        }
    }
    pthread_mutex_unlock(&book.lock);
    return e != NULL;
}

bool book_take_of(uint64_t owner, size_t *cursor, struct book_entry *ret)
{
    bool found = false;
    pthread_mutex_lock(&book.lock);
    for (; *cursor < book.size && !found; ++*cursor) {
        struct book_entry *e = &book.entries[*cursor];
        if (e->key != 0 && e->owner == owner && e->kind != BOOK_HANDLE && e->kind != BOOK_MAPPING) {
            *ret = *e;
            bury(e);
            found = true;
        }
    }
    pthread_mutex_unlock(&book.lock);
    return found;
}

void book_forget_all(void)
{
    book.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    if (book.entries != NULL) {
        munmap(book.entries, book.size * sizeof *book.entries);
    }
    book.entries = NULL;
    book.size = book.filled = book.living = 0;
}
