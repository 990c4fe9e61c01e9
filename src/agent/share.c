/* Shares of GPUs: made before an instance starts, checked while it runs, withdrawn when it ends.
 * What the instance's processes may allocate and when they may launch is held by the library that
 * is loaded into them (devices/share.h); that it is held is measured here, by the driver's own word
 * on each process. */
#include "agent/agent_priv.h"
#include "agent/gpu.h"

#include "core/log.h"
#include "devices/devices.h"
#include "sys/file.h"
#include "sys/machine.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#define GPU_MILLI 1000 /* of one device */
#define PRELOAD "/etc/ld.so.preload"

struct share_device {
    char id[96];
    int64_t index, milli, memory_bytes;
    struct at_share_seen seen;
    int64_t beside_bytes, beside_before; /* of two looks the smaller counts */
    int64_t used_bytes;                  /* by the driver's word */
    unsigned over;                       /* looks in a row that found more than the share */
    int64_t launches_before, active_ns;  /* when it last launched */
    int64_t spill_bytes;
    int64_t slot_offset_us, slot_length_us;
    int64_t told_used, told_refused;
};

struct agent_share {
    char *dir, *library, *usage, *preload;
    struct at_process_bind binds[4];
    enum agent_gpu_mode mode;
    bool strict;
    int64_t priority;
    size_t n;
    struct share_device devices[AT_SHARE_DEVICES_MAX];
    int64_t told_ns;
};

/* --- what an instance may hold --- */

int64_t agent_share_memory(const struct at_agent *a, const struct at_instance_gpu *gpu)
{
    size_t index = (size_t)gpu->index;
    int64_t all = index < a->room.n_gpus ? a->room.gpu_memory[index] : 0;
    return gpu->memory_bytes > 0     ? gpu->memory_bytes
           : gpu->milli >= GPU_MILLI ? all
                                     : all * gpu->milli / GPU_MILLI;
}

int64_t agent_share_limit(const struct agent_instance *i, const struct at_instance_gpu *gpu)
{
    int64_t most = agent_share_memory(i->agent, gpu);
    for (size_t k = 0; i->share != NULL && i->task != NULL && k < i->share->n; k++) {
        const struct share_device *d = &i->share->devices[k];
        most = at_streq(d->id, gpu->id) && d->memory_bytes > most ? d->memory_bytes : most;
    }
    return most;
}

static size_t wants_of(const struct agent_instance *i, struct at_share_want *wants,
                       struct share_device *devices)
{
    const struct at_instance_status *s = &i->typed->status;
    size_t n = 0;
    bool part = false;
    for (size_t k = 0; k < s->gpus.n; k++) {
        const struct at_instance_gpu *g = &s->gpus.items[k];
        if (n == AT_SHARE_DEVICES_MAX || !at_share_is_enforceable(g->id)) {
            return 0; /* pretended devices, or more than a share can name */
        }
        int64_t memory = agent_share_memory(i->agent, g);
        const struct at_gpu_sharing *how = i->typed->spec.gpu_sharing;
        int64_t spill = how != NULL ? how->spill_bytes : 0;
        part = part || g->milli < GPU_MILLI || g->memory_bytes > 0 || spill > 0;
        wants[n] =
            (struct at_share_want){.id = g->id, .memory_bytes = memory, .spill_bytes = spill};
        devices[n] = (struct share_device){
            .index = g->index, .milli = g->milli, .memory_bytes = memory, .spill_bytes = spill};
        snprintf(devices[n].id, sizeof devices[n].id, "%s", g->id);
        n++;
    }
    return part ? n : 0; /* whole devices need nobody in front of them */
}

static struct agent_share *share_new(const struct agent_instance *i)
{
    struct agent_share *s = AT_NEW(struct agent_share);
    s->dir = at_asprintf("%s/gpu/%s", i->agent->state_dir, i->uid);
    s->library = at_asprintf("%s/" AT_SHARE_LIBRARY_NAME, s->dir);
    s->usage = at_asprintf("%s/" AT_SHARE_USAGE_NAME, s->dir);
    s->preload = at_asprintf("%s/preload", s->dir);
    s->binds[0] = (struct at_process_bind){.source = s->dir, .target = s->dir};
    s->binds[1] =
        (struct at_process_bind){.source = s->usage, .target = s->usage, .writable = true};
    s->binds[2] = (struct at_process_bind){.source = s->preload, .target = PRELOAD};
    return s;
}

void agent_share_free(struct agent_instance *i)
{
    struct agent_share *s = i->share;
    if (s == NULL) {
        return;
    }
    at_free(s->dir);
    at_free(s->library);
    at_free(s->usage);
    at_free(s->preload);
    at_free(s);
    i->share = NULL;
}

/* As it was made: the Node may want another way by now, and what runs keeps its own. */
static enum agent_gpu_mode mode_of(const struct agent_instance *i, const char *dir, size_t n)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/mode", dir);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum agent_gpu_mode mode = agent_gpu_mode(i);
    if (i->task != NULL && at_file_read(path, 64, &text, NULL) == AT_OK && text.len > 0) {
        mode = agent_gpu_mode_named(text.data, mode);
    }
    /* A client of MPS has one folder of pipes, and so one GPU: several are nobody else's anyhow. */
    return mode == AGENT_GPU_MPS && n != 1 ? AGENT_GPU_TIME_SLICES : mode;
}

static enum at_rc note_mode(const struct agent_share *s, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/mode", s->dir);
    const char *name = agent_gpu_mode_name(s->mode);
    return at_file_write_atomic(path, name, strlen(name), 0644, err);
}

/* A mount needs a place to be mounted on: an empty file changes nothing for anybody. */
static bool preload_place(void)
{
    struct at_machine machine;
    at_machine_read(&machine);
    struct at_err err = {0};
    if (at_file_exists(PRELOAD)) {
        return machine.root;
    }
    if (!machine.root || at_file_write_atomic(PRELOAD, "", 0, 0644, &err) != AT_OK) {
        return false;
    }
    at_log(AT_LOG_INFO, "share.preload", "made an empty %s to show shares of GPUs over", PRELOAD);
    return true;
}

static void put_slot(struct agent_share *s, size_t device, int64_t offset_us, int64_t length_us)
{
    struct share_device *d = &s->devices[device];
    struct at_err err = {0};
    if (d->slot_offset_us == offset_us && d->slot_length_us == length_us) {
        return;
    }
    if (at_share_set_slot(s->dir, device, offset_us, length_us, &err) != AT_OK) {
        at_log(AT_LOG_WARN, "share.slot", "%s", err.msg);
        return;
    }
    d->slot_offset_us = offset_us;
    d->slot_length_us = length_us;
}

static void share_tick(void *ctx);

/* A share that runs is changed when the device has the room, and what its processes hold fits:
 * memory is given away once only. */
static bool may_change(const struct agent_instance *i, const struct share_device *to, size_t n)
{
    const struct agent_share *s = i->share;
    char why[256];
    bool grows = false;
    for (size_t d = 0; d < n && d < s->n; d++) {
        const struct share_device *was = &s->devices[d];
        int64_t held =
            was->used_bytes > was->seen.memory_bytes ? was->used_bytes : was->seen.memory_bytes;
        grows = grows || to[d].memory_bytes > was->memory_bytes || to[d].milli > was->milli;
        if (to[d].memory_bytes < was->memory_bytes && held > to[d].memory_bytes) {
            return false;
        }
    }
    return !grows || agent_gpu_room(i, false, why, sizeof why);
}

enum at_rc agent_share_apply(struct agent_instance *i, struct at_err *err)
{
    struct at_share_want wants[AT_SHARE_DEVICES_MAX];
    struct share_device devices[AT_SHARE_DEVICES_MAX];
    size_t n = wants_of(i, wants, devices);
    struct agent_share *s = i->share;
    if (n == 0) {
        return AT_OK;
    }
    if (s == NULL) {
        i->share = s = share_new(i);
        s->binds[2].source = preload_place() ? s->preload : NULL;
        s->mode = mode_of(i, s->dir, n); /* for as long as it runs */
    }
    s->strict = i->typed->spec.gpu_sharing != NULL && i->typed->spec.gpu_sharing->strict;
    s->priority = i->typed->spec.priority;
    bool same = s->n == n;
    for (size_t d = 0; d < n && same; d++) {
        same = strcmp(s->devices[d].id, devices[d].id) == 0 &&
               s->devices[d].milli == devices[d].milli &&
               s->devices[d].memory_bytes == devices[d].memory_bytes;
    }
    if (same) {
        return AT_OK;
    }
    if (s->n > 0 && !may_change(i, devices, n)) {
        return AT_OK; /* looked at again, about every second */
    }
    enum at_rc rc = at_share_make(s->dir, wants, n, err);
    rc = rc == AT_OK ? note_mode(s, err) : rc;
    if (rc == AT_OK) {
        for (size_t d = 0; d < n && s->n == n; d++) { /* what was seen and laid out holds on */
            devices[d].seen = s->devices[d].seen;
            devices[d].used_bytes = s->devices[d].used_bytes;
            devices[d].launches_before = s->devices[d].launches_before;
            devices[d].active_ns = s->devices[d].active_ns;
        }
        memcpy(s->devices, devices, sizeof devices);
        s->n = n;
        for (size_t d = 0; d < n && s->strict; d++) { /* from its first launch on */
            put_slot(s, d, 0, AT_SHARE_PERIOD_US * devices[d].milli / GPU_MILLI);
        }
        agent_shares_watch(i->agent);
        rc = agent_share_set_mps(i, agent_mps_pipe(i), err);
    }
    return rc;
}

enum agent_gpu_mode agent_share_mode(const struct agent_instance *i)
{
    return i->share->mode;
}

bool agent_share_of_mps(const struct agent_instance *i, const char **ret_gpu, int64_t *ret_milli,
                        int64_t *ret_memory_bytes)
{
    const struct agent_share *s = i->share;
    if (s == NULL || s->mode != AGENT_GPU_MPS || s->n != 1) {
        return false;
    }
    *ret_gpu = s->devices[0].id;
    *ret_milli = s->devices[0].milli;
    *ret_memory_bytes = s->devices[0].memory_bytes;
    return true;
}

bool agent_share_holds(const struct agent_instance *i, const char *gpu)
{
    for (size_t k = 0; i->share != NULL && k < i->share->n; k++) {
        if (strcmp(i->share->devices[k].id, gpu) == 0) {
            return true;
        }
    }
    return false;
}

enum at_rc agent_share_set_mps(struct agent_instance *i, const char *pipe, struct at_err *err)
{
    const char *gpu;
    int64_t milli, memory;
    if (pipe == NULL || !agent_share_of_mps(i, &gpu, &milli, &memory)) {
        return AT_OK;
    }
    return at_share_set_mps(i->share->dir, pipe, agent_mps_percent(milli), memory, err);
}

void agent_shares_watch(struct at_agent *a)
{
    if (a->share_timer == 0) {
        a->share_timer = at_loop_timer(a->loop, 0, share_tick, a);
    }
}

const struct at_process_bind *agent_share_binds(const struct agent_instance *i)
{
    return i->share != NULL ? i->share->binds : NULL;
}

const char *agent_share_library(const struct agent_instance *i)
{
    return i->share != NULL ? i->share->library : NULL;
}

void agent_share_remove(struct agent_instance *i)
{
    AT_CLEANUP(at_cleanup_free) char *dir = at_asprintf("%s/gpu/%s", i->agent->state_dir, i->uid);
    struct at_err err = {0};
    if (at_tree_remove(dir, &err) != AT_OK) {
        at_log(AT_LOG_WARN, "share.remove", "%s", err.msg);
    }
    agent_share_free(i);
}

/* --- reporting --- */

/* What is parked is still in the books of its processes. */
static int64_t held_bytes(const struct agent_instance *i, const struct share_device *d)
{
    int64_t told = agent_parked(i) ? 0 : d->seen.memory_bytes;
    return d->used_bytes > told ? d->used_bytes : told;
}

json_t *agent_share_json(struct agent_instance *i)
{
    if (i->share == NULL || i->share->n == 0) {
        return json_null();
    }
    json_t *list = json_array();
    for (size_t k = 0; k < i->share->n; k++) {
        struct share_device *d = &i->share->devices[k];
        char used[AT_UNITS_TEXT_BYTES_MAX], limit[AT_UNITS_TEXT_BYTES_MAX];
        char spilled[AT_UNITS_TEXT_BYTES_MAX];
        int64_t bytes = held_bytes(i, d) >> 20 << 20;
        at_quantity_format_bytes(d->seen.spill_bytes >> 20 << 20, spilled);
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:s*, s:s, s:s, s:I, s:I}", "id", d->id, "mode",
                                        agent_gpu_mode_name(i->share->mode), "spilled",
                                        d->spill_bytes > 0 ? spilled : NULL, "memory",
                                        at_quantity_format_bytes(d->memory_bytes, limit), "used",
                                        at_quantity_format_bytes(bytes, used), "refused",
                                        (json_int_t)d->seen.refused, "waitedMilliseconds",
                                        (json_int_t)(d->seen.waited_ns / AT_NS_PER_MS)));
        d->told_used = bytes;
        d->told_refused = d->seen.refused;
    }
    i->share->told_ns = at_loop_now_ns(i->agent->loop);
    return list;
}

/* Seldom: each report is a durable write. What was refused for the first time is told at once. */
static bool is_news(const struct agent_instance *i, int64_t now)
{
    const struct agent_share *s = i->share;
    bool changed = false;
    for (size_t k = 0; k < s->n; k++) {
        const struct share_device *d = &s->devices[k];
        int64_t bytes = held_bytes(i, d);
        int64_t step = d->memory_bytes / 32, change = bytes - d->told_used;
        if (d->told_refused == 0 && d->seen.refused > 0) {
            return true;
        }
        changed = changed || change > step || change < -step || d->seen.refused != d->told_refused;
    }
    return changed && now - s->told_ns >= AGENT_SHARE_TELL_NS;
}

/* --- turns --- */

struct turn_list {
    struct agent_share *shares[AGENT_SHARES_MAX];
    size_t device[AGENT_SHARES_MAX];
    size_t n;
};

/* Running instances that hold a part of this device and take turns. */
static void sharers(struct at_agent *a, const char *id, struct turn_list *ret)
{
    const char *uid;
    void *value;
    ret->n = 0;
    for (size_t it = 0; at_map_next(a->instances, &it, &uid, &value);) {
        struct agent_instance *i = value;
        bool turns = i->share != NULL && i->task != NULL && i->share->mode == AGENT_GPU_SHARE;
        for (size_t k = 0; turns && k < i->share->n; k++) {
            if (strcmp(i->share->devices[k].id, id) == 0 && ret->n < AGENT_SHARES_MAX) {
                ret->shares[ret->n] = i->share;
                ret->device[ret->n++] = k;
            }
        }
    }
}

static bool launches(const struct share_device *d, int64_t now)
{
    return d->active_ns != 0 && now - d->active_ns < AGENT_SHARE_IDLE_NS;
}

/* What those that launch are sure of, and which of them have a claim on the rest: those of the
 * highest priority that may have more than their share. */
struct turn_sums {
    int64_t sure, claims, highest;
    size_t active;
};

static struct turn_sums sums_of(const struct turn_list *list, int64_t now)
{
    struct turn_sums sums = {.highest = INT64_MIN};
    for (size_t k = 0; k < list->n; k++) {
        const struct agent_share *s = list->shares[k];
        const struct share_device *d = &s->devices[list->device[k]];
        if (!launches(d, now)) {
            continue;
        }
        sums.active++;
        sums.sure += d->milli;
        if (!s->strict && s->priority > sums.highest) {
            sums.highest = s->priority;
            sums.claims = 0;
        }
        sums.claims += !s->strict && s->priority == sums.highest ? d->milli : 0;
    }
    return sums;
}

/* Each that launches has its share of the period; what nobody has reserved, and what those that
 * launch nothing leave, goes to the highest priority. Who is alone has no turns, unless its share
 * is strict. */
static void lay_out(const struct turn_list *list, int64_t now)
{
    struct turn_sums sums = sums_of(list, now);
    int64_t all = sums.sure > GPU_MILLI ? sums.sure : GPU_MILLI, at = 0;
    int64_t rest = all - sums.sure;
    for (size_t k = 0; k < list->n; k++) {
        struct agent_share *s = list->shares[k];
        struct share_device *d = &s->devices[list->device[k]];
        bool active = launches(d, now);
        bool claims = active && !s->strict && s->priority == sums.highest;
        int64_t milli = d->milli + (claims ? rest * d->milli / sums.claims : 0);
        int64_t length = AT_SHARE_PERIOD_US * milli / all;
        bool open = !s->strict && (!active || sums.active == 1);
        put_slot(s, list->device[k], open || !active ? 0 : at, open ? 0 : length);
        at += active && !open ? length : 0;
    }
}

static bool lay_out_all(struct at_agent *a, int64_t now)
{
    bool shared = false;
    const char *uid;
    void *value;
    for (size_t it = 0; at_map_next(a->instances, &it, &uid, &value);) {
        struct agent_instance *i = value;
        if (i->share == NULL || i->task == NULL) {
            continue;
        }
        struct at_share_seen seen[AT_SHARE_DEVICES_MAX];
        at_share_see(i->share->dir, i->share->n, seen);
        for (size_t k = 0; k < i->share->n; k++) {
            struct share_device *d = &i->share->devices[k];
            d->active_ns = seen[k].launches != d->launches_before ? now : d->active_ns;
            d->launches_before = seen[k].launches;
            d->seen = seen[k];
        }
    }
    for (size_t it = 0; at_map_next(a->instances, &it, &uid, &value);) {
        struct agent_instance *i = value;
        for (size_t k = 0; i->share != NULL && i->task != NULL && k < i->share->n; k++) {
            struct turn_list list;
            sharers(a, i->share->devices[k].id, &list);
            shared = shared || list.n > 1 || i->share->strict;
            lay_out(&list, now);
        }
    }
    return shared;
}

/* --- the driver's word --- */

struct share_look {
    struct at_agent *agent;     /* NULL: it went away meanwhile */
    struct at_gpu_watch *watch; /* the agent's; ours when it went away */
    enum at_rc rc;
    size_t n, n_faults;
    struct at_gpu_use uses[AT_GPU_USES_MAX];
    struct at_gpu_fault faults[AT_GPU_FAULTS_MAX];
};

static void look_work(void *ctx)
{
    struct share_look *look = ctx;
    look->rc = at_gpu_watch_look(look->watch, look->uses, AT_GPU_USES_MAX, &look->n);
    look->n_faults = look->rc == AT_OK ? at_gpu_watch_faults(look->watch, look->faults) : 0;
}

/* What the driver counts beside allocations is taken off the room; of two looks the smaller, as one
 * may have met an allocation half way. */
static void take_beside(struct agent_share *s, size_t k)
{
    struct share_device *d = &s->devices[k];
    int64_t now = d->used_bytes - d->seen.memory_bytes;
    now = now > 0 ? now : 0;
    int64_t value = now < d->beside_before ? now : d->beside_before;
    d->beside_before = now;
    struct at_err err = {0};
    if (value != d->beside_bytes) {
        if (at_share_set_beside(s->dir, k, value, &err) != AT_OK) {
            at_log(AT_LOG_WARN, "share.beside", "%s", err.msg);
            return;
        }
        d->beside_bytes = value;
    }
}

/* More than the share, by the driver's word, and not for a moment: whatever the program did to get
 * it, it ends. */
static void check_device(struct agent_instance *i, struct share_device *d)
{
    int64_t slack = d->memory_bytes / 20 > AGENT_SHARE_SLACK_BYTES_MIN
                        ? d->memory_bytes / 20
                        : AGENT_SHARE_SLACK_BYTES_MIN;
    d->over = d->used_bytes > d->memory_bytes + slack ? d->over + 1 : 0;
    if (d->over < AGENT_SHARE_OVER_LOOKS || i->task == NULL || i->gpu_exceeded) {
        return;
    }
    char used[AT_UNITS_TEXT_BYTES_MAX], limit[AT_UNITS_TEXT_BYTES_MAX];
    at_log_kv(AT_LOG_WARN, "share.exceeded", (struct at_log_kv[]){{"instance", i->name}, {0}},
              "holds %s of %s, its share is %s", at_quantity_format_bytes(d->used_bytes, used),
              d->id, at_quantity_format_bytes(d->memory_bytes, limit));
    i->gpu_exceeded = true;
    i->driver->ops->signal(i->task, SIGKILL);
}

static void look_at(struct agent_instance *i, const struct share_look *look)
{
    struct agent_share *s = i->share;
    for (size_t k = 0; k < s->n; k++) {
        s->devices[k].used_bytes = 0;
    }
    for (size_t u = 0; u < look->n; u++) {
        for (size_t k = 0; k < s->n; k++) {
            if (strcmp(look->uses[u].id, s->devices[k].id) == 0 &&
                (look->uses[u].pid == i->pid || at_process_in_cgroup(look->uses[u].pid, i->uid))) {
                s->devices[k].used_bytes += look->uses[u].memory_bytes;
            }
        }
    }
    for (size_t k = 0; k < s->n; k++) {
        take_beside(s, k);
        check_device(i, &s->devices[k]);
    }
}

static void look_done(void *ctx)
{
    struct share_look *look = ctx;
    struct at_agent *a = look->agent;
    if (a == NULL) {
        at_gpu_watch_free(look->watch);
        at_free(look);
        return;
    }
    a->share_look = NULL;
    if (look->rc == AT_OK) {
        agent_gpus_failed(a, look->faults, look->n_faults);
    }
    const char *uid;
    void *value;
    for (size_t it = 0; at_map_next(a->instances, &it, &uid, &value);) {
        struct agent_instance *i = value;
        if (i->task != NULL && look->rc == AT_OK) {
            agent_parking_used(i, look->uses, look->n);
        }
        if (i->share == NULL || i->task == NULL) {
            continue;
        }
        struct at_err err = {0};
        if (agent_share_apply(i, &err) != AT_OK) {
            at_log(AT_LOG_WARN, "share.change", "%s: %s", i->name, err.msg);
        }
        if (look->rc == AT_OK) { /* else nothing is known, which is not: nothing is held */
            look_at(i, look);
        }
        if (is_news(i, at_loop_now_ns(a->loop))) {
            agent_report(i);
        }
    }
    at_free(look);
}

/* One look at a time: a driver that hangs holds up no more than this. */
static void look_begin(struct at_agent *a)
{
    if (a->share_look != NULL) {
        return;
    }
    struct share_look *look = AT_NEW(struct share_look);
    a->gpu_watch = a->gpu_watch != NULL ? a->gpu_watch : at_gpu_watch_new(NULL);
    look->agent = a;
    look->watch = a->gpu_watch;
    if (at_pool_submit(a->pool, a->loop, look_work, look_done, look) != AT_OK) {
        at_free(look);
        return;
    }
    a->share_look = look;
}

static void share_tick(void *ctx)
{
    struct at_agent *a = ctx;
    int64_t now = at_loop_now_ns(a->loop);
    bool shared = lay_out_all(a, now);
    if (now - a->share_looked_ns >= AGENT_SHARE_LOOK_NS) {
        a->share_looked_ns = now;
        agent_mps_tick(a);
        agent_mig_tick(a);
        look_begin(a);
    }
    a->share_timer =
        at_loop_timer(a->loop, shared ? AGENT_SHARE_TURN_NS : AGENT_SHARE_LOOK_NS, share_tick, a);
}

void agent_shares_done(struct at_agent *a)
{
    at_loop_timer_cancel(a->loop, a->share_timer);
    if (a->share_look != NULL) {
        a->share_look->agent = NULL; /* it frees the watch */
    } else {
        at_gpu_watch_free(a->gpu_watch);
    }
}
