/* Device memory: each allocation takes room from the share before the driver is asked, and gives it
 * back when it is freed. What is beyond the share fails as the driver itself would fail. */
#include "interpose/interpose.h"

#include <limits.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#define TRIES 8 /* two that ask for the last room at once may both see it full */

static uint64_t load(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static int64_t room_of(int device, bool spill)
{
    const struct at_share_limit *limit = share_limit(device);
    uint64_t all = load(spill ? &limit->spill_bytes : &limit->memory_bytes);
    uint64_t beside = spill ? 0 : load(&limit->beside_bytes);
    uint64_t room = beside < all ? all - beside : 0;
    return room > INT64_MAX ? INT64_MAX : (int64_t)room;
}

static bool try_take(int device, uint64_t bytes, bool spill)
{
    struct at_share_use *use = share_own(device);
    int64_t *own = spill ? &use->spill_bytes : &use->memory_bytes;
    __atomic_add_fetch(own, (int64_t)bytes, __ATOMIC_SEQ_CST);
    if (share_used(device, spill) <= room_of(device, spill)) {
        return true;
    }
    __atomic_sub_fetch(own, (int64_t)bytes, __ATOMIC_SEQ_CST);
    return false;
}

static bool take(int device, uint64_t bytes, bool spill)
{
    if (bytes > (uint64_t)room_of(device, spill)) {
        return false;
    }
    for (int n = 0; n < TRIES; n++) {
        if (try_take(device, bytes, spill)) {
            return true;
        }
        bool back = share_reclaim();
        /* Others that failed beside us have given back by now: who asks again first gets it. */
        if (!back && share_used(device, spill) + (int64_t)bytes > room_of(device, spill)) {
            return false;
        }
        struct timespec pause = {.tv_nsec = 20000 + (getpid() % 61) * 1000};
        nanosleep(&pause, NULL);
    }
    return false;
}

bool memory_take(int device, uint64_t bytes)
{
    if (device == NO_DEVICE) {
        return false;
    }
    struct at_share_count *count = share_count(device);
    if (!take(device, bytes, false)) {
        __atomic_add_fetch(&count->refused, 1, __ATOMIC_RELAXED);
        return false;
    }
    __atomic_add_fetch(&count->allocations, 1, __ATOMIC_RELAXED);
    return true;
}

void memory_give(int device, uint64_t bytes)
{
    __atomic_sub_fetch(&share_own(device)->memory_bytes, (int64_t)bytes, __ATOMIC_SEQ_CST);
}

static void give_entry(const struct book_entry *e)
{
    struct at_share_use *use = share_own(e->device);
    __atomic_sub_fetch(e->kind == BOOK_SPILLED ? &use->spill_bytes : &use->memory_bytes,
                       (int64_t)e->bytes, __ATOMIC_SEQ_CST);
}

int64_t memory_free_bytes(int device)
{
    int64_t room = room_of(device, false) - share_used(device, false);
    return room > 0 ? room : 0;
}

static uint64_t context_now(void)
{
    cu_handle context = NULL;
    const struct real_calls *r = real();
    return r->cuCtxGetCurrent != NULL && r->cuCtxGetCurrent(&context) == CU_OK ? (uintptr_t)context
                                                                               : 0;
}

cu_result memory_made(enum book_kind kind, int device, uint64_t bytes, uint64_t key,
                      cu_result result)
{
    struct book_entry e = {
        .key = key, .bytes = bytes, .device = (uint16_t)device, .kind = (uint8_t)kind, .holds = 1};
    inside = false;
    if (result != CU_OK) {
        give_entry(&e);
    } else {
        e.owner = context_now();
        book_put(&e);
    }
    return result;
}

void memory_forget_context(cu_handle context)
{
    struct book_entry e;
    size_t cursor = 0;
    while (context != NULL && book_take_of((uintptr_t)context, &cursor, &e)) {
        give_entry(&e);
    }
    launch_forget_context(context);
    share_forget_contexts();
}

/* An allocation of the form `call` into *ret, under the share. */
#define TAKEN(kind, device, bytes, ret, call)                                                      \
    do {                                                                                           \
        int device_ = (device);                                                                    \
        uint64_t bytes_ = (bytes);                                                                 \
        if (inside) {                                                                              \
            return call;                                                                           \
        }                                                                                          \
        if (!memory_take(device_, bytes_)) {                                                       \
            return CU_OUT_OF_MEMORY;                                                               \
        }                                                                                          \
        inside = true;                                                                             \
        cu_result result_ = call;                                                                  \
        return memory_made(kind, device_, bytes_, (uint64_t)(uintptr_t) * (ret), result_);         \
    } while (0)

/* --- the forms of the first CUDA, with addresses of 32 bits: nothing made since 2011 uses them ---
 */

cu_result cuMemAlloc(uint32_t *ret, unsigned bytes)
{
    (void)ret;
    (void)bytes;
    return CU_NOT_SUPPORTED;
}

cu_result cuMemAllocPitch(uint32_t *ret, unsigned *pitch, unsigned width, unsigned height,
                          unsigned element)
{
    (void)ret;
    (void)pitch;
    (void)width;
    (void)height;
    (void)element;
    return CU_NOT_SUPPORTED;
}

/* --- linear memory --- */

/* Host memory that the device reaches, where a policy allows it and the share is used up. */
static cu_result alloc_spilled(int device, cu_ptr *ret, size_t bytes)
{
    const struct real_calls *r = real();
    if (device == NO_DEVICE || r->cuMemAllocManaged == NULL || !take(device, bytes, true)) {
        return CU_OUT_OF_MEMORY;
    }
    inside = true;
    cu_result result = r->cuMemAllocManaged(ret, bytes, CU_ATTACH_GLOBAL);
    if (result == CU_OK && r->cuMemAdvise != NULL) {
        (void)r->cuMemAdvise(*ret, bytes, CU_ADVISE_PREFERRED_LOCATION, CU_DEVICE_CPU);
    }
    return memory_made(BOOK_SPILLED, device, bytes, *ret, result);
}

static bool spills(int device)
{
    return device != NO_DEVICE && load(&share_limit(device)->spill_bytes) > 0;
}

cu_result cuMemAlloc_v2(cu_ptr *ret, size_t bytes)
{
    const struct real_calls *r = real();
    if (inside || ret == NULL || bytes == 0) {
        return r->cuMemAlloc_v2(ret, bytes); /* which says what is wrong */
    }
    int device = share_device_current();
    if (!memory_take(device, bytes)) {
        return spills(device) ? alloc_spilled(device, ret, bytes) : CU_OUT_OF_MEMORY;
    }
    inside = true;
    cu_result result = r->cuMemAlloc_v2(ret, bytes);
    return memory_made(BOOK_ADDRESS, device, bytes, *ret, result);
}

/* Rows begin at addresses that suit the device; 512 bytes is the pitch of all there are. */
#define PITCH UINT64_C(512)

cu_result cuMemAllocPitch_v2(cu_ptr *ret, size_t *pitch, size_t width, size_t height,
                             unsigned element)
{
    uint64_t row, bytes;
    if (ret == NULL || width == 0 || __builtin_add_overflow(width, PITCH - 1, &row) ||
        __builtin_mul_overflow(row / PITCH * PITCH, height, &bytes)) {
        return ret == NULL || width == 0 ? CU_INVALID_VALUE : CU_OUT_OF_MEMORY;
    }
    TAKEN(BOOK_ADDRESS, share_device_current(), bytes, ret,
          real()->cuMemAllocPitch_v2(ret, pitch, width, height, element));
}

cu_result cuMemAllocManaged(cu_ptr *ret, size_t bytes, unsigned flags)
{
    if (inside || ret == NULL || bytes == 0) {
        return real()->cuMemAllocManaged(ret, bytes, flags);
    }
    TAKEN(BOOK_ADDRESS, share_device_current(), bytes, ret,
          real()->cuMemAllocManaged(ret, bytes, flags));
}

/* Taken out before the driver frees it: another thread may get the same address at once. */
static bool release_begin(cu_ptr at, struct book_entry *ret)
{
    return !inside && (book_take(BOOK_ADDRESS, at, ret) || book_take(BOOK_SPILLED, at, ret));
}

static cu_result release_end(bool known, const struct book_entry *e, cu_result result)
{
    if (known && result == CU_OK) {
        give_entry(e);
    } else if (known) {
        book_put(e);
    }
    return result;
}

cu_result cuMemFree_v2(cu_ptr at)
{
    struct book_entry e;
    bool known = release_begin(at, &e);
    return release_end(known, &e, real()->cuMemFree_v2(at));
}

/* --- by streams --- */

static cu_result alloc_async(cu_result (*call)(cu_ptr *, size_t, cu_handle), cu_ptr *ret,
                             size_t bytes, cu_handle stream)
{
    if (inside || ret == NULL || bytes == 0) {
        return call(ret, bytes, stream);
    }
    TAKEN(BOOK_ADDRESS, share_device_current(), bytes, ret, call(ret, bytes, stream));
}

cu_result cuMemAllocAsync(cu_ptr *ret, size_t bytes, cu_handle stream)
{
    return alloc_async(real()->cuMemAllocAsync, ret, bytes, stream);
}

cu_result cuMemAllocAsync_ptsz(cu_ptr *ret, size_t bytes, cu_handle stream)
{
    return alloc_async(real()->cuMemAllocAsync_ptsz, ret, bytes, stream);
}

static cu_result alloc_from_pool(cu_result (*call)(cu_ptr *, size_t, cu_handle, cu_handle),
                                 cu_ptr *ret, size_t bytes, cu_handle pool, cu_handle stream)
{
    if (inside || ret == NULL || bytes == 0) {
        return call(ret, bytes, pool, stream);
    }
    /* A pool may lie on another device than the stream; it is charged where the caller works. */
    TAKEN(BOOK_ADDRESS, share_device_current(), bytes, ret, call(ret, bytes, pool, stream));
}

cu_result cuMemAllocFromPoolAsync(cu_ptr *ret, size_t bytes, cu_handle pool, cu_handle stream)
{
    return alloc_from_pool(real()->cuMemAllocFromPoolAsync, ret, bytes, pool, stream);
}

cu_result cuMemAllocFromPoolAsync_ptsz(cu_ptr *ret, size_t bytes, cu_handle pool, cu_handle stream)
{
    return alloc_from_pool(real()->cuMemAllocFromPoolAsync_ptsz, ret, bytes, pool, stream);
}

static cu_result free_async(cu_result (*call)(cu_ptr, cu_handle), cu_ptr at, cu_handle stream)
{
    struct book_entry e;
    bool known = release_begin(at, &e);
    return release_end(known, &e, call(at, stream));
}

cu_result cuMemFreeAsync(cu_ptr at, cu_handle stream)
{
    return free_async(real()->cuMemFreeAsync, at, stream);
}

cu_result cuMemFreeAsync_ptsz(cu_ptr at, cu_handle stream)
{
    return free_async(real()->cuMemFreeAsync_ptsz, at, stream);
}

/* A graph's memory exists from its first launch on; it is charged when the node is made, so that a
 * graph which cannot run is refused before it does. */
cu_result cuGraphAddMemAllocNode(cu_handle *ret, cu_handle graph, const cu_handle *after,
                                 size_t n_after, struct cu_node_alloc *params)
{
    if (inside || params == NULL) {
        return real()->cuGraphAddMemAllocNode(ret, graph, after, n_after, params);
    }
    TAKEN(BOOK_ADDRESS, share_device_current(), params->bytes, &params->ret_ptr,
          real()->cuGraphAddMemAllocNode(ret, graph, after, n_after, params));
}
