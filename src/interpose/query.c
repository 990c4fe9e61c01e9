/* What the program is told of the device: its share of it. */
#include "interpose/interpose.h"

#include <limits.h>

static uint64_t total_of(int device)
{
    return device == NO_DEVICE
               ? 0
               : __atomic_load_n(&share_limit(device)->memory_bytes, __ATOMIC_RELAXED);
}

static uint64_t free_of(int device, uint64_t real_free)
{
    uint64_t own = device == NO_DEVICE ? 0 : (uint64_t)memory_free_bytes(device);
    return own < real_free ? own : real_free;
}

cu_result cuMemGetInfo_v2(size_t *ret_free, size_t *ret_total)
{
    cu_result result = real()->cuMemGetInfo_v2(ret_free, ret_total);
    if (result == CU_OK && !inside) {
        int device = share_device_current();
        *ret_free = free_of(device, *ret_free);
        *ret_total = total_of(device);
    }
    return result;
}

cu_result cuMemGetInfo(unsigned *ret_free, unsigned *ret_total)
{
    size_t left, total;
    cu_result result = cuMemGetInfo_v2(&left, &total);
    if (result == CU_OK && ret_free != NULL && ret_total != NULL) {
        *ret_free = left < UINT_MAX ? (unsigned)left : UINT_MAX;
        *ret_total = total < UINT_MAX ? (unsigned)total : UINT_MAX;
    }
    return result;
}

cu_result cuDeviceTotalMem_v2(size_t *ret, cu_device device)
{
    cu_result result = real()->cuDeviceTotalMem_v2(ret, device);
    if (result == CU_OK && !inside) {
        *ret = total_of(share_device(device));
    }
    return result;
}

/* --- contexts, which take what they hold with them --- */

cu_result cuInit(unsigned flags)
{
    const struct real_calls *r = real();
    if (r->cuInit == NULL) {
        return CU_SYSTEM_NOT_READY;
    }
    if (!share_attach()) {
        return CU_NOT_PERMITTED;
    }
    share_mps_environment();
    return r->cuInit(flags);
}

static cu_result destroy_context(cu_result (*call)(cu_handle), cu_handle context)
{
    cu_result result = call(context);
    if (result == CU_OK) {
        memory_forget_context(context);
    }
    return result;
}

cu_result cuCtxDestroy(cu_handle context)
{
    return destroy_context(real()->cuCtxDestroy, context);
}

cu_result cuCtxDestroy_v2(cu_handle context)
{
    return destroy_context(real()->cuCtxDestroy_v2, context);
}

/* The primary context of each device, and how often it was retained. */
#define ORDINALS_MAX 64
static struct {
    cu_handle context;
    int retained;
} primary[ORDINALS_MAX];

cu_result cuDevicePrimaryCtxRetain(cu_handle *ret, cu_device device)
{
    cu_result result = real()->cuDevicePrimaryCtxRetain(ret, device);
    if (result == CU_OK && device >= 0 && device < ORDINALS_MAX) {
        __atomic_store_n(&primary[device].context, *ret, __ATOMIC_SEQ_CST);
        __atomic_add_fetch(&primary[device].retained, 1, __ATOMIC_SEQ_CST);
    }
    return result;
}

static void primary_gone(cu_device device)
{
    if (device >= 0 && device < ORDINALS_MAX) {
        cu_handle context = __atomic_exchange_n(&primary[device].context, NULL, __ATOMIC_SEQ_CST);
        memory_forget_context(context);
    }
}

static cu_result primary_release(cu_result (*call)(cu_device), cu_device device)
{
    cu_result result = call(device);
    if (result == CU_OK && device >= 0 && device < ORDINALS_MAX &&
        __atomic_sub_fetch(&primary[device].retained, 1, __ATOMIC_SEQ_CST) == 0) {
        primary_gone(device);
    }
    return result;
}

cu_result cuDevicePrimaryCtxRelease(cu_device device)
{
    return primary_release(real()->cuDevicePrimaryCtxRelease, device);
}

cu_result cuDevicePrimaryCtxRelease_v2(cu_device device)
{
    return primary_release(real()->cuDevicePrimaryCtxRelease_v2, device);
}

static cu_result primary_reset(cu_result (*call)(cu_device), cu_device device)
{
    cu_result result = call(device);
    if (result == CU_OK) {
        primary_gone(device);
    }
    return result;
}

cu_result cuDevicePrimaryCtxReset(cu_device device)
{
    return primary_reset(real()->cuDevicePrimaryCtxReset, device);
}

cu_result cuDevicePrimaryCtxReset_v2(cu_device device)
{
    return primary_reset(real()->cuDevicePrimaryCtxReset_v2, device);
}

/* --- NVIDIA's management library --- */

static int device_of_nvml(cu_handle device)
{
    char text[96] = "";
    const struct real_calls *r = real_nvml();
    if (r->nvmlDeviceGetUUID == NULL || r->nvmlDeviceGetUUID(device, text, sizeof text) != 0) {
        return NO_DEVICE;
    }
    text[sizeof text - 1] = '\0';
    uint8_t uuid[AT_SHARE_UUID_BYTES] = {0};
    return at_share_parse_id(text, uuid) ? share_device_of_uuid(uuid) : NO_DEVICE;
}

cu_result nvmlDeviceGetMemoryInfo(cu_handle device, struct nvml_memory *ret)
{
    cu_result result = real_nvml()->nvmlDeviceGetMemoryInfo(device, ret);
    if (result == 0 && !inside) {
        int own = device_of_nvml(device);
        ret->free = free_of(own, ret->free);
        ret->total = total_of(own);
        ret->used = ret->total > ret->free ? ret->total - ret->free : 0;
    }
    return result;
}

cu_result nvmlDeviceGetMemoryInfo_v2(cu_handle device, struct nvml_memory_v2 *ret)
{
    cu_result result = real_nvml()->nvmlDeviceGetMemoryInfo_v2(device, ret);
    if (result == 0 && !inside) {
        int own = device_of_nvml(device);
        ret->free = free_of(own, ret->free);
        ret->total = total_of(own);
        ret->reserved = 0;
        ret->used = ret->total > ret->free ? ret->total - ret->free : 0;
    }
    return result;
}
