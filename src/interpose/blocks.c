/* Device memory that is not one linear range: arrays, and physical blocks that are mapped where the
 * program wants them. */
#include "interpose/interpose.h"

#include <stddef.h>

/* --- arrays --- */

static uint64_t element_bytes(int format, unsigned channels)
{
    switch (format) {
    case 0x02: /* UNSIGNED_INT16 */
    case 0x09: /* SIGNED_INT16 */
    case 0x10: /* HALF */
        return UINT64_C(2) * channels;
    case 0x03: /* UNSIGNED_INT32 */
    case 0x0a: /* SIGNED_INT32 */
    case 0x20: /* FLOAT */
        return UINT64_C(4) * channels;
    default: /* 8 bits, and the packed formats, which take less than that */
        return channels;
    }
}

/* UINT64_MAX: more than there can be. */
static uint64_t array_bytes(uint64_t width, uint64_t height, uint64_t depth, int format,
                            unsigned channels)
{
    uint64_t bytes = element_bytes(format, channels);
    return __builtin_mul_overflow(bytes, width, &bytes) ||
                   __builtin_mul_overflow(bytes, height > 0 ? height : 1, &bytes) ||
                   __builtin_mul_overflow(bytes, depth > 0 ? depth : 1, &bytes)
               ? UINT64_MAX
               : bytes;
}

cu_result cuArrayCreate_v2(cu_handle *ret, const struct cu_array_desc *desc)
{
    const struct real_calls *r = real();
    if (inside || ret == NULL || desc == NULL) {
        return r->cuArrayCreate_v2(ret, desc);
    }
    int device = share_device_current();
    uint64_t bytes = array_bytes(desc->width, desc->height, 1, desc->format, desc->channels);
    if (!memory_take(device, bytes)) {
        return CU_OUT_OF_MEMORY;
    }
    inside = true;
    cu_result result = r->cuArrayCreate_v2(ret, desc);
    return memory_made(BOOK_ARRAY, device, bytes, (uintptr_t)*ret, result);
}

#define ARRAY_SPARSE 0x40 /* CUDA_ARRAY3D_SPARSE: without memory until blocks are mapped */

cu_result cuArray3DCreate_v2(cu_handle *ret, const struct cu_array3d_desc *desc)
{
    const struct real_calls *r = real();
    if (inside || ret == NULL || desc == NULL || (desc->flags & ARRAY_SPARSE) != 0) {
        return r->cuArray3DCreate_v2(ret, desc);
    }
    int device = share_device_current();
    uint64_t bytes =
        array_bytes(desc->width, desc->height, desc->depth, desc->format, desc->channels);
    if (!memory_take(device, bytes)) {
        return CU_OUT_OF_MEMORY;
    }
    inside = true;
    cu_result result = r->cuArray3DCreate_v2(ret, desc);
    return memory_made(BOOK_ARRAY, device, bytes, (uintptr_t)*ret, result);
}

cu_result cuMipmappedArrayCreate(cu_handle *ret, const struct cu_array3d_desc *desc,
                                 unsigned levels)
{
    const struct real_calls *r = real();
    if (inside || ret == NULL || desc == NULL || (desc->flags & ARRAY_SPARSE) != 0) {
        return r->cuMipmappedArrayCreate(ret, desc, levels);
    }
    int device = share_device_current();
    uint64_t bytes =
        array_bytes(desc->width, desc->height, desc->depth, desc->format, desc->channels);
    /* Each level is at most half of the one before. */
    uint64_t with_levels = levels > 1 && bytes < UINT64_MAX / 2 ? 2 * bytes : bytes;
    if (!memory_take(device, with_levels)) {
        return CU_OUT_OF_MEMORY;
    }
    inside = true;
    cu_result result = r->cuMipmappedArrayCreate(ret, desc, levels);
    return memory_made(BOOK_ARRAY, device, with_levels, (uintptr_t)*ret, result);
}

static cu_result destroy(cu_result (*call)(cu_handle), cu_handle array)
{
    struct book_entry e;
    bool known = !inside && book_take(BOOK_ARRAY, (uintptr_t)array, &e);
    cu_result result = call(array);
    if (known && result == CU_OK) {
        memory_give(e.device, e.bytes);
    } else if (known) {
        book_put(&e);
    }
    return result;
}

cu_result cuArrayDestroy(cu_handle array)
{
    return destroy(real()->cuArrayDestroy, array);
}

cu_result cuMipmappedArrayDestroy(cu_handle array)
{
    return destroy(real()->cuMipmappedArrayDestroy, array);
}

/* --- physical blocks: they live while a reference or a mapping does --- */

cu_result cuMemCreate(cu_alloc_handle *ret, size_t bytes, const struct cu_alloc_prop *prop,
                      unsigned long long flags)
{
    const struct real_calls *r = real();
    if (inside || ret == NULL || prop == NULL || prop->location.type != CU_LOCATION_DEVICE) {
        return r->cuMemCreate(ret, bytes, prop, flags); /* host memory is not of the device */
    }
    int device = share_device(prop->location.id);
    if (!memory_take(device, bytes)) {
        return CU_OUT_OF_MEMORY;
    }
    inside = true;
    cu_result result = r->cuMemCreate(ret, bytes, prop, flags);
    return memory_made(BOOK_HANDLE, device, bytes, *ret, result);
}

static void let_go(cu_alloc_handle handle)
{
    struct book_entry e;
    if (book_change(BOOK_HANDLE, handle, -1, &e) && e.holds == 0) {
        memory_give(e.device, e.bytes);
    }
}

cu_result cuMemRelease(cu_alloc_handle handle)
{
    cu_result result = real()->cuMemRelease(handle);
    if (result == CU_OK && !inside) {
        let_go(handle);
    }
    return result;
}

cu_result cuMemRetainAllocationHandle(cu_alloc_handle *ret, void *at)
{
    cu_result result = real()->cuMemRetainAllocationHandle(ret, at);
    struct book_entry e;
    if (result == CU_OK && !inside) {
        (void)book_change(BOOK_HANDLE, *ret, 1, &e);
    }
    return result;
}

cu_result cuMemMap(cu_ptr at, size_t bytes, size_t offset, cu_alloc_handle handle,
                   unsigned long long flags)
{
    cu_result result = real()->cuMemMap(at, bytes, offset, handle, flags);
    struct book_entry e;
    if (result == CU_OK && !inside && book_change(BOOK_HANDLE, handle, 1, &e)) {
        struct book_entry mapping = {.key = at,
                                     .bytes = bytes,
                                     .owner = handle,
                                     .device = e.device,
                                     .kind = BOOK_MAPPING,
                                     .holds = 1};
        book_put(&mapping);
    }
    return result;
}

/* A range may hold several mappings, one after the other. */
cu_result cuMemUnmap(cu_ptr at, size_t bytes)
{
    cu_result result = real()->cuMemUnmap(at, bytes);
    struct book_entry e;
    cu_ptr next = at;
    while (result == CU_OK && !inside && next < at + bytes && book_take(BOOK_MAPPING, next, &e)) {
        let_go(e.owner);
        next += e.bytes;
    }
    return result;
}
