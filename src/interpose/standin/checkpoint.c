/* The driver's checkpoint calls, as far as parking needs them: another process is locked, what it
 * holds of devices is put away, brought back, and it is unlocked. No contents are moved: there are
 * none. */
#include "interpose/standin/cuda_priv.h"

#include <unistd.h>

struct standin_checkpoint *standin_checkpoint_of(int64_t pid, bool make)
{
    for (int i = 0; i < STANDIN_PROCESSES_MAX; i++) {
        if (__atomic_load_n(&standin_shared()->checkpoints[i].pid, __ATOMIC_SEQ_CST) == pid) {
            return &standin_shared()->checkpoints[i];
        }
    }
    for (int i = 0; make && i < STANDIN_PROCESSES_MAX; i++) {
        struct standin_checkpoint *c = &standin_shared()->checkpoints[i];
        int64_t old = __atomic_load_n(&c->pid, __ATOMIC_SEQ_CST);
        if ((old == 0 || !standin_is_alive(old)) &&
            __atomic_compare_exchange_n(&c->pid, &old, pid, false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST)) {
            __atomic_store_n(&c->managed, 0, __ATOMIC_SEQ_CST);
            __atomic_store_n(&c->state, CU_PROCESS_RUNNING, __ATOMIC_SEQ_CST);
            return c;
        }
    }
    return NULL;
}

/* Calls of a process that is locked wait. */
void standin_wait_unlocked(void)
{
    static struct standin_checkpoint *own;
    own = own == NULL || own->pid != getpid() ? standin_checkpoint_of(getpid(), false) : own;
    while (own != NULL && __atomic_load_n(&own->state, __ATOMIC_SEQ_CST) != CU_PROCESS_RUNNING) {
        standin_sleep_until(standin_now_ns() + 1000000);
    }
}

static cu_result find_checkpoint(int pid, int64_t from, struct standin_checkpoint **ret)
{
    if (standin_shared() == NULL) {
        return CU_NOT_INITIALIZED;
    }
    if (standin_shared()->no_checkpoint != 0) {
        return CU_NOT_SUPPORTED;
    }
    *ret = standin_checkpoint_of(pid, false);
    return *ret == NULL || !standin_is_alive(pid) ? CU_INVALID_VALUE
           : from >= 0 && __atomic_load_n(&(*ret)->state, __ATOMIC_SEQ_CST) != from
               ? CU_ILLEGAL_STATE
               : CU_OK;
}

SHOWN cu_result cuCheckpointProcessGetState(int pid, int *ret)
{
    struct standin_checkpoint *c;
    cu_result result = find_checkpoint(pid, -1, &c);
    *ret = result == CU_OK ? (int)c->state : 0;
    return result;
}

SHOWN cu_result cuCheckpointProcessLock(int pid, struct cu_checkpoint_args *args)
{
    struct standin_checkpoint *c;
    cu_result result = find_checkpoint(pid, CU_PROCESS_RUNNING, &c);
    int64_t until = standin_now_ns();
    for (int i = 0; result == CU_OK && i < standin_shared()->n_devices; i++) {
        int64_t busy = standin_shared()->devices[i].busy_until_ns;
        until = busy > until ? busy : until;
    }
    if (result == CU_OK && args->timeout_ms > 0 &&
        until - standin_now_ns() > args->timeout_ms * INT64_C(1000000)) {
        return CU_NOT_READY;
    }
    if (result == CU_OK) {
        __atomic_store_n(&c->state, CU_PROCESS_LOCKED, __ATOMIC_SEQ_CST);
        standin_sleep_until(until);
    }
    return result;
}

/* The row of the process on a device; NULL: it has none there. */
static int64_t *bytes_of(int device, int pid)
{
    for (int i = 0; i < STANDIN_PROCESSES_MAX; i++) {
        if (standin_shared()->devices[device].processes[i].pid == pid) {
            return &standin_shared()->devices[device].processes[i].used_bytes;
        }
    }
    return NULL;
}

static void copy_takes(int64_t bytes)
{
    if (standin_shared()->bytes_per_us > 0) {
        standin_sleep_until(standin_now_ns() + bytes * 1000 / standin_shared()->bytes_per_us);
    }
}

SHOWN cu_result cuCheckpointProcessCheckpoint(int pid, void *args)
{
    (void)args;
    struct standin_checkpoint *c;
    cu_result result = find_checkpoint(pid, CU_PROCESS_LOCKED, &c);
    if (result == CU_OK && c->managed != 0) {
        __atomic_store_n(&c->state, CU_PROCESS_FAILED, __ATOMIC_SEQ_CST);
        return CU_NOT_SUPPORTED;
    }
    for (int i = 0; result == CU_OK && i < STANDIN_DEVICES_MAX; i++) {
        int64_t *bytes = bytes_of(i, pid);
        copy_takes(bytes != NULL ? *bytes : 0);
        c->saved_bytes[i] = bytes != NULL ? __atomic_exchange_n(bytes, 0, __ATOMIC_SEQ_CST) : 0;
    }
    if (result == CU_OK) {
        __atomic_store_n(&c->state, CU_PROCESS_CHECKPOINTED, __ATOMIC_SEQ_CST);
    }
    return result;
}

SHOWN cu_result cuCheckpointProcessRestore(int pid, void *args)
{
    (void)args;
    struct standin_checkpoint *c;
    cu_result result = find_checkpoint(pid, CU_PROCESS_CHECKPOINTED, &c);
    int i = 0;
    for (; result == CU_OK && i < STANDIN_DEVICES_MAX; i++) {
        int64_t *bytes = bytes_of(i, pid);
        if (bytes == NULL) {
            continue;
        }
        __atomic_add_fetch(bytes, c->saved_bytes[i], __ATOMIC_SEQ_CST);
        if (standin_used_of(&standin_shared()->devices[i]) >
            standin_shared()->devices[i].total_bytes) {
            __atomic_sub_fetch(bytes, c->saved_bytes[i], __ATOMIC_SEQ_CST);
            result = CU_OUT_OF_MEMORY;
            break;
        }
        copy_takes(c->saved_bytes[i]);
    }
    if (result == CU_OK) {
        __atomic_store_n(&c->state, CU_PROCESS_LOCKED, __ATOMIC_SEQ_CST);
    } else if (result == CU_OUT_OF_MEMORY) {
        __atomic_store_n(&c->state, CU_PROCESS_FAILED, __ATOMIC_SEQ_CST);
    }
    return result;
}

SHOWN cu_result cuCheckpointProcessUnlock(int pid, void *args)
{
    (void)args;
    struct standin_checkpoint *c;
    cu_result result = find_checkpoint(pid, CU_PROCESS_LOCKED, &c);
    if (result == CU_OK) {
        __atomic_store_n(&c->state, CU_PROCESS_RUNNING, __ATOMIC_SEQ_CST);
    }
    return result;
}
