/* Memory of JSON values. jansson takes a block for each value, name and text, and a control plane
 * makes and drops hundreds of them for each object: more than malloc keeps at hand for a thread.
 * So a thread may keep what it drops, by size, for what it makes next. */
#include "core/json.h"
#include "core/mem.h"

#include <stdint.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__)
#define POISONS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POISONS 1
#endif
#endif
#ifdef POISONS
#include <sanitizer/asan_interface.h>
#define REST_BEGIN(p, bytes) ASAN_POISON_MEMORY_REGION(p, bytes)
#define REST_END(p, bytes) ASAN_UNPOISON_MEMORY_REGION(p, bytes)
#else
#define REST_BEGIN(p, bytes) ((void)(p), (void)(bytes))
#define REST_END(p, bytes) ((void)(p), (void)(bytes))
#endif

#define CLASSES 16
#define STEP ((size_t)16)
#define LEAST ((size_t)24) /* of the smallest class, with what stands before; then by steps */
#define KEPT_BYTES_MAX ((size_t)128 << 10) /* of a class, of a thread */

/* What stands before each block: jansson needs no more than its alignment. */
struct before {
    _Alignas(8) size_t class; /* CLASSES: of none */
};

struct rest { /* a block that is kept */
    struct before before;
    struct rest *next;
};

/* The allocator's own: a thread sees its own only, and nothing is found through it. */
static _Thread_local struct {
    bool on;
    struct rest *rests[CLASSES];
    size_t bytes[CLASSES];
} kept;

static size_t bytes_of(size_t class)
{
    return LEAST + class * STEP;
}

void *at_json_alloc(size_t bytes)
{
    if (bytes > SIZE_MAX / 2) {
        return NULL;
    }
    size_t whole = bytes + sizeof(struct before);
    size_t class = whole <= LEAST ? 0 : (whole - LEAST + STEP - 1) / STEP;
    struct before *b;
    if (class < CLASSES && kept.rests[class] != NULL) {
        struct rest *r = kept.rests[class];
        REST_END(r, bytes_of(class));
        kept.rests[class] = r->next;
        kept.bytes[class] -= bytes_of(class);
        b = &r->before;
    } else {
        b = malloc(class < CLASSES ? bytes_of(class) : whole);
        if (b == NULL) {
            return NULL;
        }
        b->class = class < CLASSES ? class : CLASSES;
    }
    return b + 1;
}

void at_json_free(void *p)
{
    if (p == NULL) {
        return;
    }
    struct before *b = (struct before *)p - 1;
    size_t class = b->class;
    if (!kept.on || class >= CLASSES || kept.bytes[class] + bytes_of(class) > KEPT_BYTES_MAX) {
        free(b);
        return;
    }
    struct rest *r = (struct rest *)b;
    r->next = kept.rests[class];
    kept.rests[class] = r;
    kept.bytes[class] += bytes_of(class);
    REST_BEGIN(r, bytes_of(class));
}

void at_json_keep(bool on)
{
    kept.on = on;
    for (size_t k = 0; k < CLASSES && !on; k++) {
        while (kept.rests[k] != NULL) {
            struct rest *r = kept.rests[k];
            REST_END(r, bytes_of(k));
            kept.rests[k] = r->next;
            free(r);
        }
        kept.bytes[k] = 0;
    }
}
