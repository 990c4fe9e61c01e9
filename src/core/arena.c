#include "core/arena.h"

#include "core/mem.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN_BYTES ((size_t)16)
#define CHUNK_BYTES_FIRST ((size_t)4096)
#define CHUNK_BYTES_MAX ((size_t)256 << 10)

struct chunk {
    struct chunk *next; /* older */
    size_t size;
    size_t used;
    char *place; /* the bytes: data, or lent */
    _Alignas(16) char data[];
};

struct at_arena {
    struct chunk *newest;
    struct chunk *built_in; /* part of the arena's own allocation, or NULL */
    size_t used;
    size_t cap;
};

struct at_arena *at_arena_new(size_t cap_bytes)
{
    struct at_arena *arena = AT_NEW(struct at_arena);
    arena->cap = cap_bytes != 0 ? cap_bytes : AT_ARENA_BYTES_MAX_DEFAULT;
    return arena;
}

static size_t round_up(size_t bytes)
{
    return bytes == 0 ? ALIGN_BYTES : (bytes + ALIGN_BYTES - 1) & ~(ALIGN_BYTES - 1);
}

struct at_arena *at_arena_new_sized(size_t cap_bytes, size_t first_bytes)
{
    _Static_assert(sizeof(struct at_arena) % ALIGN_BYTES == 0, "the chunk after it is aligned");
    size_t size = round_up(first_bytes);
    struct at_arena *arena = at_alloc(sizeof *arena + sizeof(struct chunk) + size);
    arena->cap = cap_bytes != 0 ? cap_bytes : AT_ARENA_BYTES_MAX_DEFAULT;
    arena->built_in = (struct chunk *)(void *)(arena + 1);
    arena->built_in->size = size;
    arena->built_in->place = arena->built_in->data;
    arena->newest = arena->built_in;
    return arena;
}

struct at_arena *at_arena_new_lent(void)
{
    return at_arena_new_sized(0, 0);
}

void at_arena_lend(struct at_arena *arena, void *place, size_t bytes)
{
    assert(arena->newest == arena->built_in);
    assert((uintptr_t)place % ALIGN_BYTES == 0);
    arena->built_in->place = place;
    arena->built_in->size = bytes;
    arena->built_in->used = arena->used = 0;
    arena->cap = bytes;
}

static void chunks_free(const struct at_arena *arena, const struct chunk *until)
{
    struct chunk *chunk = arena->newest;
    while (chunk != until) {
        struct chunk *next = chunk->next;
        if (chunk != arena->built_in) {
            free(chunk);
        }
        chunk = next;
    }
}

void at_arena_free(struct at_arena *arena)
{
    if (arena != NULL) {
        chunks_free(arena, NULL);
        free(arena);
    }
}

void at_arena_reset(struct at_arena *arena)
{
    struct chunk *first = arena->newest;
    while (first != NULL && first->next != NULL) {
        first = first->next;
    }
    chunks_free(arena, first);
    arena->newest = first;
    if (first != NULL) {
        first->used = 0;
    }
    arena->used = 0;
}

static bool chunk_add(struct at_arena *arena, size_t need)
{
    size_t size = arena->newest != NULL ? arena->newest->size * 2 : CHUNK_BYTES_FIRST;
    if (size > CHUNK_BYTES_MAX) {
        size = CHUNK_BYTES_MAX;
    }
    if (size < need) {
        size = need;
    }
    struct chunk *chunk = malloc(sizeof *chunk + size);
    if (chunk == NULL) {
        return false;
    }
    *chunk = (struct chunk){.next = arena->newest, .size = size, .place = chunk->data};
    arena->newest = chunk;
    return true;
}

/* bytes at a multiple of align, zeroed. */
static void *take(struct at_arena *arena, size_t bytes, size_t align)
{
    assert(arena->used <= arena->cap);
    struct chunk *chunk = arena->newest;
    size_t pad = chunk != NULL ? -chunk->used & (align - 1) : 0;
    if (bytes > arena->cap - arena->used || pad + bytes > arena->cap - arena->used) {
        return NULL;
    }
    if (chunk == NULL || chunk->size - chunk->used < pad ||
        chunk->size - chunk->used - pad < bytes) {
        if (!chunk_add(arena, bytes)) {
            return NULL;
        }
        chunk = arena->newest;
        pad = 0;
    }
    void *place = chunk->place + chunk->used + pad;
    chunk->used += pad + bytes;
    arena->used += pad + bytes;
    return memset(place, 0, bytes);
}

void *at_arena_alloc(struct at_arena *arena, size_t bytes)
{
    return bytes <= SIZE_MAX - ALIGN_BYTES ? take(arena, round_up(bytes), ALIGN_BYTES) : NULL;
}

/* Texts lie side by side: they are most of what objects are made of. */
char *at_arena_strndup(struct at_arena *arena, const char *s, size_t len)
{
    char *copy = len < SIZE_MAX ? take(arena, len + 1, 1) : NULL;
    if (copy != NULL && len != 0) {
        memcpy(copy, s, len);
    }
    return copy;
}

char *at_arena_strdup(struct at_arena *arena, const char *s)
{
    return s != NULL ? at_arena_strndup(arena, s, strlen(s)) : NULL;
}

char *at_arena_printf(struct at_arena *arena, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    va_list again;
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    char *text = len >= 0 ? at_arena_alloc(arena, (size_t)len + 1) : NULL;
    if (text != NULL) {
        vsnprintf(text, (size_t)len + 1, fmt, again);
    }
    va_end(again);
    return text;
}

size_t at_arena_used(const struct at_arena *arena)
{
    return arena->used;
}
