/* GPUs of this machine and shares of them: gpus.c, share.c. On the loop's thread. */
#ifndef AT_AGENT_GPU_H
#define AT_AGENT_GPU_H

#include "agent/agent_priv.h"
#include "devices/share.h"

/* share.c: shares of GPUs. apply: make it, or change it to what the object says; while it runs,
 * too. NULL from the others: it has none. */
enum at_rc agent_share_apply(struct agent_instance *i, struct at_err *err) AT_WARN_UNUSED;
const struct at_process_bind *agent_share_binds(const struct agent_instance *i); /* NULL: none */
const char *agent_share_library(const struct agent_instance *i);
int64_t agent_share_memory(const struct at_agent *a, const struct at_instance_gpu *gpu);
/* What its processes may hold of it as yet: a share that shrinks stays until they hold less. */
int64_t agent_share_limit(const struct agent_instance *i, const struct at_instance_gpu *gpu);
json_t *agent_share_json(struct agent_instance *i); /* own: caller decrefs */
void agent_share_remove(struct agent_instance *i);  /* with its files */
void agent_share_free(struct agent_instance *i);    /* its files stay */
void agent_shares_watch(struct at_agent *a);        /* look after them from now on */
void agent_shares_done(struct at_agent *a);

/* parking.c: what it holds of GPUs, put into the machine's memory and brought back. */
bool agent_parks(const struct agent_instance *i);        /* may it be parked at all? */
bool agent_parked(const struct agent_instance *i);       /* it holds nothing of its GPUs */
bool agent_parking_away(const struct agent_instance *i); /* it takes no requests for it */
void agent_parking_apply(struct agent_instance *i);      /* its object, or others, changed */
/* What the driver says of all processes. */
void agent_parking_used(struct agent_instance *i, const struct at_gpu_use *uses, size_t n);
void agent_parking_ended(struct agent_instance *i);         /* its process has */
json_t *agent_parking_json(const struct agent_instance *i); /* own: caller decrefs */
void agent_parking_record(const struct agent_instance *i, json_t *record);
void agent_parking_load(struct agent_instance *i, const json_t *record);
void agent_parking_remove(const struct agent_instance *i); /* its file */

/* admit.c: is there room on its GPUs beside what others hold there? returns: what others have
 * parked is no obstacle, though i itself be not one that parks. why: when not. */
bool agent_gpu_room(const struct agent_instance *i, bool returns, char *why, size_t why_size);
enum agent_gpu_mode agent_share_mode(const struct agent_instance *i); /* it has one */
/* It is (to be) a client of MPS on this one GPU. */
bool agent_share_of_mps(const struct agent_instance *i, const char **ret_gpu, int64_t *ret_milli,
                        int64_t *ret_memory_bytes);
bool agent_share_holds(const struct agent_instance *i, const char *gpu);
/* What its processes are told of the service; pipe NULL: nothing. */
enum at_rc agent_share_set_mps(struct agent_instance *i, const char *pipe,
                               struct at_err *err) AT_WARN_UNUSED;

/* mps.c: NVIDIA's Multi-Process Service, one for each GPU with instances of mode MPS. */
/* May it start? AT_AGAIN: not yet; agent_launch_start is called again. err: AT_CONFLICT with others
 * on its GPU; what keeps the service from running. */
enum at_rc agent_mps_admit(struct agent_instance *i, struct at_err *err) AT_WARN_UNUSED;
/* What MPS calls the active thread percentage: never more than the share, never none. */
static inline int64_t agent_mps_percent(int64_t milli)
{
    return milli < 10 ? 1 : milli / 10;
}
/* The folder of its pipes, for clients; NULL: it is none. Borrowed until it ends. */
const char *agent_mps_pipe(const struct agent_instance *i);
void agent_mps_tick(struct at_agent *a);    /* starts again what died, ends what nobody uses */
json_t *agent_mps_mode(struct at_agent *a); /* for status.gpuModes; NULL: not asked for */
void agent_mps_done(struct at_agent *a);

/* mig.c: parts of GPUs that the Node's spec wants. */
void agent_mig_want(struct at_agent *a, const json_t *parts); /* NULL: none are asked for */
void agent_mig_tick(struct at_agent *a);
json_t *agent_mig_mode(const struct at_agent *a); /* for status.gpuModes; NULL: not asked for */
void agent_mig_done(struct at_agent *a);

/* gpus.c: the GPUs of this machine, and how they are shared. */
enum agent_gpu_mode {
    AGENT_GPU_SHARE,       /* memory and turns */
    AGENT_GPU_TIME_SLICES, /* memory; time is the GPU's affair */
    AGENT_GPU_MPS,         /* memory; at the same time */
    AGENT_GPU_EXCLUSIVE,
};
enum agent_gpu_mode agent_gpu_mode(const struct agent_instance *i);
const char *agent_gpu_mode_name(enum agent_gpu_mode mode);
enum agent_gpu_mode agent_gpu_mode_named(const char *name, enum agent_gpu_mode otherwise);
/* The Node's status is about to be sent: remembers its gpus, and puts in which have failed. */
void agent_gpus_learn(struct at_agent *a, json_t *status);
/* What the driver says now. Ends what runs on those that failed. */
void agent_gpus_failed(struct at_agent *a, const struct at_gpu_fault *faults, size_t n);
/* One of its GPUs cannot be used: writes why, with the GPU's name. */
bool agent_gpus_lost(const struct agent_instance *i, char *why, size_t why_size);
void agent_gpus_done(struct at_agent *a);
/* What the Node's spec wants of its GPUs, from the answer to a heartbeat or the Node itself. */
void agent_gpus_want(struct at_agent *a, const char *sharing, const json_t *parts);
/* How the ways to share them fare; told to the server when that is news. */
json_t *agent_gpu_modes(struct at_agent *a); /* own: caller decrefs */
void agent_gpu_modes_tell(struct at_agent *a);
/* What is to be shown to it: its share's files, and nothing in place of other GPUs' device files.
 */
struct agent_gpu_view {
    struct at_process_bind binds[AGENT_BINDS_MAX + 1];
    size_t n;
    char *hidden[AGENT_BINDS_MAX];
    size_t n_hidden;
};
void agent_gpu_view_make(const struct agent_instance *i, struct agent_gpu_view *ret);
void agent_gpu_view_done(struct agent_gpu_view *view);
/* The maker of the GPU with this id, as the Node's status has it; "" when nobody told. */
const char *agent_gpu_vendor(const struct at_agent *a, const char *id);

#endif
