/* Launches wait for the instance's turn on the device (gate.h). Where a device is not shared by
 * turns a launch costs one counter more. Where it is, events in the program's streams tell how far
 * the device has come: one about every millisecond of its time, not one per launch. */
#include "interpose/gate.h"
#include "interpose/interpose.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#define CONTEXTS_MAX 32
#define MARKERS_MAX 16
#define WAIT_NS_MAX INT64_C(2000000) /* at a time: the share may be resized meanwhile */

enum launch_kind { LAUNCH_KERNEL, LAUNCH_GRAPH };
_Static_assert(LAUNCH_GRAPH < GATE_KINDS, "a gate for each kind");

struct marker {
    cu_handle event;
    int64_t after; /* launches of the context up to here */
    int64_t launches;
    int64_t slot; /* of the gate, when it was recorded */
    uint8_t kind;
};

/* One context of this process: events belong to contexts. */
struct lane {
    cu_handle context;
    int device;
    struct gate gate;
    struct marker markers[MARKERS_MAX]; /* a ring: first..first+n */
    unsigned first, n;
    struct marker last; /* the last one that was seen finished; its event is kept to measure from */
    cu_handle spare[MARKERS_MAX + 2];
    unsigned n_spare;
    int64_t launched, unmarked;
    int64_t looked_ns;
};

static struct {
    pthread_mutex_t lock;
    struct lane lanes[CONTEXTS_MAX];
    unsigned n;
} all = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static struct lane *lane_of(cu_handle context)
{
    for (unsigned i = 0; i < all.n; i++) {
        if (all.lanes[i].context == context) {
            return &all.lanes[i];
        }
    }
    unsigned at = 0;
    while (at < all.n && all.lanes[at].context != NULL) {
        at++;
    }
    if (at == CONTEXTS_MAX) {
        return NULL;
    }
    all.n = at == all.n ? at + 1 : all.n;
    struct lane *lane = &all.lanes[at];
    *lane = (struct lane){.context = context, .device = share_device_current()};
    return lane;
}

static void turn_of(int device, struct gate_turn *ret)
{
    uint64_t slot = __atomic_load_n(&share_limit(device)->slot, __ATOMIC_RELAXED);
    ret->period = (int64_t)share_period_ns();
    ret->offset = (int64_t)AT_SHARE_SLOT_OFFSET_US(slot) * 1000;
    ret->length = (int64_t)AT_SHARE_SLOT_LENGTH_US(slot) * 1000;
}

/* Our own calls must not spoil a capture that some stream of the program is in. */
static int relax(void)
{
    int mode = CU_CAPTURE_RELAXED;
    if (real()->cuThreadExchangeStreamCaptureMode != NULL) {
        (void)real()->cuThreadExchangeStreamCaptureMode(&mode);
    }
    return mode;
}

static void unrelax(int mode)
{
    if (real()->cuThreadExchangeStreamCaptureMode != NULL) {
        (void)real()->cuThreadExchangeStreamCaptureMode(&mode);
    }
}

/* --- markers --- */

static void finish(struct lane *lane, const struct gate_turn *turn, int64_t now)
{
    struct marker *m = &lane->markers[lane->first];
    int64_t took = -1;
    float ms;
    if (lane->last.event != NULL &&
        real()->cuEventElapsedTime(&ms, lane->last.event, m->event) == CU_OK && ms >= 0) {
        int64_t between = (int64_t)((double)ms * 1e6);
        /* Across slots the time of others lies between. */
        took = lane->last.slot == m->slot ? between : -1;
    }
    struct gate_group group = {.launches = m->launches,
                               .took = took,
                               .behind = lane->launched - m->after,
                               .first = lane->last.launches == 0};
    if (lane->last.event != NULL) {
        lane->spare[lane->n_spare++] = lane->last.event;
    }
    lane->last = *m;
    lane->first = (lane->first + 1) % MARKERS_MAX;
    lane->n--;
    gate_finished(&lane->gate, turn, m->kind, now, &group);
}

/* The device may have failed: then nothing is awaited from it any more. */
static void forget_markers(struct lane *lane)
{
    lane->n = 0;
    lane->gate.queued = 0;
}

static void look(struct lane *lane, const struct gate_turn *turn, int64_t now)
{
    if (lane->n == 0) {
        return;
    }
    lane->looked_ns = now;
    int mode = relax();
    while (lane->n > 0) {
        cu_result state = real()->cuEventQuery(lane->markers[lane->first].event);
        if (state == CU_NOT_READY) {
            break;
        }
        if (state != CU_OK) {
            forget_markers(lane);
            break;
        }
        finish(lane, turn, now);
    }
    unrelax(mode);
}

static cu_handle event_take(struct lane *lane)
{
    cu_handle event = NULL;
    if (lane->n_spare > 0) {
        return lane->spare[--lane->n_spare];
    }
    return real()->cuEventCreate(&event, 0) == CU_OK ? event : NULL;
}

struct stream {
    cu_handle handle;
    bool per_thread; /* the call's form in which stream 0 is the thread's own */
};

static bool is_capturing(struct stream stream)
{
    int state = 0;
    const struct real_calls *r = real();
    cu_result (*ask)(cu_handle, int *) =
        stream.per_thread ? r->cuStreamIsCapturing_ptsz : r->cuStreamIsCapturing;
    return ask != NULL && (ask(stream.handle, &state) != CU_OK || state != 0);
}

static void mark(struct lane *lane, struct stream stream, enum launch_kind kind)
{
    const struct real_calls *r = real();
    cu_result (*record)(cu_handle, cu_handle) =
        stream.per_thread ? r->cuEventRecord_ptsz : r->cuEventRecord;
    int mode = relax();
    cu_handle event =
        record == NULL || lane->n == MARKERS_MAX || is_capturing(stream) ? NULL : event_take(lane);
    if (event != NULL && record(event, stream.handle) == CU_OK) {
        lane->markers[(lane->first + lane->n) % MARKERS_MAX] =
            (struct marker){.event = event,
                            .after = lane->launched,
                            .launches = lane->unmarked,
                            .slot = lane->gate.slot,
                            .kind = (uint8_t)kind};
        lane->n++;
        lane->unmarked = 0;
    } else if (event != NULL) {
        lane->spare[lane->n_spare++] = event;
    }
    unrelax(mode);
}

/* --- the gate --- */

static void wait_until(int64_t until, int64_t now)
{
    int64_t ns = until - now < WAIT_NS_MAX ? until - now : WAIT_NS_MAX;
    struct timespec t = {.tv_nsec = ns};
    nanosleep(&t, NULL);
}

#define LOOK_NS INT64_C(50000)

static void wait_turn(struct lane *lane, enum launch_kind kind)
{
    int64_t began = 0;
    struct gate_turn turn;
    for (;;) {
        turn_of(lane->device, &turn);
        int64_t now = now_ns();
        if (lane->n > 0 && now - lane->looked_ns >= LOOK_NS) {
            look(lane, &turn, now);
        }
        int64_t until = gate_ask(&lane->gate, &turn, kind, now);
        if (until == 0) {
            gate_launched(&lane->gate, &turn, kind, now);
            break;
        }
        began = began == 0 ? now : began;
        /* While work is under way its end is to be seen in time. */
        if (lane->n > 0 && until - now > 2 * LOOK_NS) {
            until = now + 2 * LOOK_NS;
        }
        cu_handle context = lane->context;
        pthread_mutex_unlock(&all.lock);
        wait_until(until, now);
        pthread_mutex_lock(&all.lock);
        if (lane->context != context) {
            return; /* destroyed meanwhile: the driver says so */
        }
    }
    if (began != 0) {
        __atomic_add_fetch(&share_count(lane->device)->waited_ns, (uint64_t)(now_ns() - began),
                           __ATOMIC_RELAXED);
    }
}

/* Where the device's queue is empty at the beginning of a turn, measure from here. */
static void mark_start(struct lane *lane, struct stream stream, enum launch_kind kind)
{
    if (lane->n == 0 && lane->last.slot != lane->gate.slot) {
        lane->unmarked = 0;
        mark(lane, stream, kind);
    }
}

static bool has_turns(int device)
{
    uint64_t slot = __atomic_load_n(&share_limit(device)->slot, __ATOMIC_RELAXED);
    return AT_SHARE_SLOT_LENGTH_US(slot) != 0;
}

/* What stands before a launch. Returns the lane that is to be told of it, or NULL. *ret: CU_OK, or
 * why it must not be. */
static struct lane *before(struct stream stream, enum launch_kind kind, cu_result *ret)
{
    cu_handle context = NULL;
    const struct real_calls *r = real();
    *ret = CU_OK;
    if (inside || r->cuCtxGetCurrent == NULL || r->cuCtxGetCurrent(&context) != CU_OK ||
        context == NULL) {
        return NULL; /* the driver says what is wrong */
    }
    int device = share_device_of_context(context);
    if (device == NO_DEVICE) {
        *ret = CU_NOT_PERMITTED;
        return NULL;
    }
    __atomic_add_fetch(&share_count(device)->launches, 1, __ATOMIC_RELAXED);
    if (!has_turns(device)) {
        return NULL;
    }
    pthread_mutex_lock(&all.lock);
    struct lane *lane = lane_of(context);
    if (lane != NULL) {
        wait_turn(lane, kind);
        mark_start(lane, stream, kind);
        lane->launched++;
        lane->unmarked++;
    }
    pthread_mutex_unlock(&all.lock);
    return lane;
}

static void after(struct lane *lane, struct stream stream, enum launch_kind kind, cu_result result)
{
    if (lane == NULL || result != CU_OK) {
        return;
    }
    pthread_mutex_lock(&all.lock);
    if (kind == LAUNCH_GRAPH || lane->unmarked >= gate_marker_due(&lane->gate, kind)) {
        mark(lane, stream, kind);
    }
    pthread_mutex_unlock(&all.lock);
}

#define LAUNCH(kind, stream_, per_thread_, call)                                                   \
    do {                                                                                           \
        cu_result result_;                                                                         \
        struct stream on_ = {.handle = stream_, .per_thread = per_thread_};                        \
        struct lane *lane_ = before(on_, kind, &result_);                                          \
        if (result_ == CU_OK) {                                                                    \
            result_ = call;                                                                        \
            after(lane_, on_, kind, result_);                                                      \
        }                                                                                          \
        return result_;                                                                            \
    } while (0)

cu_result cuLaunchKernel(LAUNCH_PARAMETERS)
{
    LAUNCH(LAUNCH_KERNEL, stream, false,
           real()->cuLaunchKernel(f, gx, gy, gz, bx, by, bz, shared, stream, p, extra));
}

cu_result cuLaunchKernel_ptsz(LAUNCH_PARAMETERS)
{
    LAUNCH(LAUNCH_KERNEL, stream, true,
           real()->cuLaunchKernel_ptsz(f, gx, gy, gz, bx, by, bz, shared, stream, p, extra));
}

/* CUlaunchConfig: three and three sizes, the shared bytes, the stream. */
static cu_handle stream_of(const struct cu_launch_config *how)
{
    return how != NULL ? how->stream : NULL;
}

cu_result cuLaunchKernelEx(const struct cu_launch_config *how, cu_handle f, void **p, void **extra)
{
    LAUNCH(LAUNCH_KERNEL, stream_of(how), false, real()->cuLaunchKernelEx(how, f, p, extra));
}

cu_result cuLaunchKernelEx_ptsz(const struct cu_launch_config *how, cu_handle f, void **p,
                                void **extra)
{
    LAUNCH(LAUNCH_KERNEL, stream_of(how), true, real()->cuLaunchKernelEx_ptsz(how, f, p, extra));
}

cu_result cuLaunchCooperativeKernel(COOPERATIVE_PARAMETERS)
{
    LAUNCH(LAUNCH_KERNEL, stream, false,
           real()->cuLaunchCooperativeKernel(f, gx, gy, gz, bx, by, bz, shared, stream, p));
}

cu_result cuLaunchCooperativeKernel_ptsz(COOPERATIVE_PARAMETERS)
{
    LAUNCH(LAUNCH_KERNEL, stream, true,
           real()->cuLaunchCooperativeKernel_ptsz(f, gx, gy, gz, bx, by, bz, shared, stream, p));
}

cu_result cuGraphLaunch(cu_handle graph, cu_handle stream)
{
    LAUNCH(LAUNCH_GRAPH, stream, false, real()->cuGraphLaunch(graph, stream));
}

cu_result cuGraphLaunch_ptsz(cu_handle graph, cu_handle stream)
{
    LAUNCH(LAUNCH_GRAPH, stream, true, real()->cuGraphLaunch_ptsz(graph, stream));
}

/* Its events went with it. */
void launch_forget_context(cu_handle context)
{
    pthread_mutex_lock(&all.lock);
    for (unsigned i = 0; context != NULL && i < all.n; i++) {
        if (all.lanes[i].context == context) {
            all.lanes[i] = (struct lane){.context = NULL, .device = NO_DEVICE};
        }
    }
    pthread_mutex_unlock(&all.lock);
}

void launch_forget_all(void)
{
    all.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    all.n = 0;
}
