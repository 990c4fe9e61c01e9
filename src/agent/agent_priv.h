/* What the agent's files share. */
#ifndef AT_AGENT_AGENT_PRIV_H
#define AT_AGENT_AGENT_PRIV_H

#include "agent/agent.h"
#include "agent/limits.h"
#include "agent/packages.h"
#include "client/join.h"
#include "core/digest.h"
#include "core/map.h"
#include "core/mem.h"
#include "core/str.h"
#include "model/model.h"
#include "runtime/driver.h"

struct agent_execs;
struct agent_relay;
struct agent_fetches;
struct agent_tunnel;
struct agent_share;
struct share_look;
struct agent_mps;
struct mig_job;

#define AGENT_DRIVERS_MAX 4
#define AGENT_FINALIZER "atoll.dev/agent"
#define AGENT_INSTANCE_HOST "127.0.0.1" /* other machines come by the relay */

struct agent_driver {
    const struct at_runtime_ops *ops;
    struct at_runtime *rt; /* NULL: not usable here */
    char message[256];     /* why not */
};

/* What instances may reserve of this machine, as its Node says. */
struct agent_room {
    bool known;
    int64_t cpu_milli, memory_bytes, disk_bytes, gpu_milli;
    int64_t *gpu_memory; /* of each GPU, by its position */
    size_t n_gpus;
    struct agent_extended { /* any other resource that the machine names */
        char *name;
        int64_t amount;
    } * extended;
    size_t n_extended;
};

struct at_agent {
    struct at_loop *loop;
    struct at_pool *pool;
    char *name, *site, *state_dir, *devices_file, *models_dir, *listen_host, *self_exe;
    char *registry_ca;                      /* NULL: the system's authorities */
    const char *const *insecure_registries; /* borrowed; NULL-terminated, or NULL */
    char **labels;
    bool stop_instances, stopping;
    bool loaded; /* instances that outlived an earlier agent are known */
    bool synced; /* and which of them are wanted */
    void (*on_ready)(void *ctx, enum at_rc rc, const struct at_err *err);
    void *ctx;
    void (*on_stopped)(void *ctx);
    void *stopped_ctx;

    int lock_fd;
    struct at_join *join;
    struct at_client *client; /* the join's */

    /* node.c */
    at_timer_id node_timer, heartbeat_timer;
    int64_t heartbeat_ns;
    bool ready_told;
    struct agent_room room;

    struct at_http_client *http; /* probes and model downloads */
    struct at_informer *informer;
    struct agent_driver drivers[AGENT_DRIVERS_MAX];
    size_t n_drivers;
    struct at_map *instances; /* uid -> struct agent_instance */
    struct agent_fetches *fetches;
    struct agent_packages *packages;
    struct agent_cache *cache;
    struct agent_tunnel *tunnel;
    struct agent_relay *relay;
    char loopback[AT_SHA256_HEX_BYTES]; /* its identity; "": not known */
    at_timer_id stop_timer, log_timer;

    /* share.c */
    at_timer_id share_timer; /* 0: no share was ever made */
    int64_t share_looked_ns;
    struct share_look *share_look; /* under way in the pool */
    struct at_gpu_watch *gpu_watch;

    /* gpus.c */
    json_t *gpus;      /* as the Node's status has them; NULL: not yet */
    char *gpu_sharing; /* the Node's own word on it */
    json_t *gpu_modes; /* as they were told last; NULL: never */

    /* mig.c */
    json_t *gpu_parts;       /* that the Node wants; NULL: nothing was said */
    struct mig_job *mig_job; /* under way in the pool */
    int64_t mig_next_ns;
    int mig_state; /* enum at_mig_state */
    bool mig_known;
    char mig_message[256];

    /* mps.c */
    char *mps_control; /* NULL: on PATH */
    struct agent_mps *mps;
};

/* agent.c */
void agent_node_ready(struct at_agent *a); /* the Node exists, its status was sent */
void agent_failed(struct at_agent *a, enum at_rc rc, const struct at_err *err);
void agent_check_stopped(struct at_agent *a); /* after an instance went away */

/* node.c */
void agent_node_start(struct at_agent *a);
void agent_node_tell(struct at_agent *a); /* its devices have changed: the whole status anew */
void agent_node_done(struct at_agent *a);

/* node.c: what is in the model cache, to the Node's status. */
void agent_models_tell(struct at_agent *a);

/* fetch.c: fn once, later. path is the verified file in the cache, borrowed until return.
 * rc AT_NOT_FOUND no such model; AT_CORRUPT its digest differs; others: could not be fetched, worth
 * a retry. */
typedef void agent_fetched_fn(void *ctx, enum at_rc rc, const char *path, const struct at_err *err);
struct agent_fetches *agent_fetches_new(struct at_agent *a);
void agent_fetches_free(struct agent_fetches *f);
void agent_fetch(struct agent_fetches *f, const struct at_model_ref *model, agent_fetched_fn *fn,
                 void *ctx);
void agent_fetch_forget(struct agent_fetches *f, void *ctx); /* fn is not called for ctx any more */

/* instance.c */
enum agent_phase {
    PHASE_IDLE,     /* nothing runs; to be started, or to be removed */
    PHASE_FETCHING, /* its model */
    PHASE_SECRETS,  /* its Secrets */
    PHASE_STARTING, /* the driver is at it */
    PHASE_RUNNING,
    PHASE_DRAINING, /* told not ready, not yet signalled */
    PHASE_STOPPING, /* signalled */
    PHASE_BACKOFF,  /* waits to be started again */
    PHASE_ENDED,    /* for good */
    PHASE_REMOVED,  /* finalizer taken off, or nobody asks any more */
    PHASE_COUNT
};

struct agent_probe {
    at_timer_id timer;
    at_http_call_id call;
    struct at_stream *stream;
    int64_t failures, successes;
};

struct agent_instance {
    struct at_agent *agent;
    char *uid, *ns, *name, *dir, *log_path, *record_path;
    enum agent_phase phase;
    bool admitted; /* counted against the machine's room: admit.c */
    bool wanted;   /* an Instance that is not being deleted asks for it */
    bool orphan;   /* known from a record only, until the first list is complete */
    bool lost;     /* it was started before, and is not there any more */
    bool restart;  /* the stop under way is for a liveness failure */

    struct at_arena *arena; /* of object and spec */
    json_t *object;         /* NULL for an orphan */
    const struct at_instance *typed;

    const struct agent_driver *driver;
    struct at_runtime_task *task;
    char *model_path, *isolation, *endpoint;
    char *model_digest, *model_signer; /* of a package; NULL: none */
    char **more_paths;                 /* of spec.models, as far as they are there */
    size_t n_more_paths;
    char *prefetch_key;   /* of the prefetch that was begun or is done */
    json_t *prefetched;   /* what came of it; NULL: nothing yet */
    char *local_endpoint; /* of our own runners: unix:/path */
    int port, pid;
    int64_t log_noted_bytes;
    struct agent_share *share;     /* of GPUs; NULL: none */
    struct agent_parking *parking; /* NULL: it never was */
    bool mps_waits;                /* in PHASE_STARTING, for NVIDIA's service to come or to go */
    size_t secret_index;
    json_t *secrets; /* {"name/key": "value"} while launching */
    at_client_call_id secret_call;

    unsigned failures;        /* in a row */
    int64_t running_since_ns; /* monotonic */
    at_timer_id timer;        /* back-off, drain or grace, by phase */
    struct agent_probe readiness, liveness;

    /* what is reported */
    const char *status_phase;
    bool ready;
    bool out_of_memory; /* the last run ended so */
    bool gpu_exceeded;  /* it was ended for this */
    bool gpu_lost;      /* or for this */
    bool park_broken;   /* or for this: message says what the driver said */
    bool park_never;    /* once is enough */
    char reason[48], message[400];
    int64_t restarts, exit_code;
    int64_t started_wall_ns, ready_wall_ns, finished_wall_ns;

    /* report.c */
    json_t *sent;
    at_client_call_id report_call, finalizer_call;
    at_timer_id report_timer, finalizer_timer;
    bool report_again;
};

/* An Instance was put (object) or deleted (object is its last state). */
void agent_instance_apply(struct at_agent *a, json_t *object, bool deleted);
/* Records of an earlier run: adopt what still runs, sweep the rest. */
void agent_instances_load(struct at_agent *a);
/* The first list is complete: what nobody asked for ends. */
void agent_instances_synced(struct at_agent *a);
void agent_instances_stop(struct at_agent *a);
void agent_instance_free(struct agent_instance *i);
void agent_instance_forget(struct agent_instance *i); /* free, and remove its log */
struct agent_instance *agent_instance_find(struct at_agent *a, const char *ns, const char *name);
/* From launch.c and probe.c. */
void agent_instance_failed_start(struct agent_instance *i, const char *reason,
                                 const struct at_err *err);
void agent_instance_started(struct agent_instance *i, struct at_runtime_task *task, int pid,
                            const char *isolation);
void agent_instance_exited(void *ctx, int exit_code, int signal_number);
void agent_instance_readiness(struct agent_instance *i, bool passed);
void agent_instance_unhealthy(struct agent_instance *i, const char *why);

/* network.c: NetworkPolicies. */
bool agent_network_own(const struct agent_instance *i);         /* shall it have one? */
bool agent_network_has_own(const struct agent_instance *i);     /* has it? */
const char *agent_network_addr(const struct agent_instance *i); /* where probes ask; may be NULL */
json_t *agent_network_json(const struct agent_instance *i);     /* for its status; NULL: nothing */

/* admit.c */
void agent_room_learn(struct at_agent *a, const json_t *status); /* the Node's */
void agent_room_forget(struct at_agent *a);
/* Is there room for it beside those taken on before? why: when not. */
bool agent_admit(struct agent_instance *i, char *why, size_t why_size);

/* launch.c: model_path is set. Ends in agent_instance_started or agent_instance_failed_start,
 * unless it is no longer in PHASE_SECRETS or PHASE_STARTING when an answer comes. */
void agent_launch(struct agent_instance *i);
void agent_launch_start(struct agent_instance *i); /* secrets are there */
void agent_secrets_next(struct agent_instance *i);
const struct agent_driver *agent_driver_for(struct at_agent *a, const struct at_workload *w);
bool agent_instance_set_starting(struct agent_instance *i); /* SECRETS -> STARTING */

/* probe.c */
void agent_probes_start(struct agent_instance *i);
void agent_probes_stop(struct agent_instance *i);

/* report.c */
void agent_report(
    struct agent_instance *i); /* send the status when it differs from what was sent */
void agent_report_finalizer(
    struct agent_instance *i); /* take ours off, retried until the object is gone */
void agent_report_done(struct agent_instance *i);

/* record.c */
enum at_rc agent_record_write(const struct agent_instance *i, struct at_err *err) AT_WARN_UNUSED;
void agent_record_remove(const struct agent_instance *i);
json_t *agent_record_read(const char *path); /* NULL when unreadable; own: caller decrefs */

/* logfile.c: the end of a log as valid UTF-8, at most lines lines (< 0: all) and
 * AGENT_LOG_TAIL_BYTES; *ret_offset is the file's size then. */
enum at_rc agent_log_tail(const char *path, int64_t lines, struct at_buf *out,
                          int64_t *ret_offset) AT_WARN_UNUSED;
/* What was written since *offset; a file that shrank is read from its beginning. */
enum at_rc agent_log_since(const char *path, int64_t *offset, struct at_buf *out) AT_WARN_UNUSED;
void agent_log_last_line(const char *path, char *out, size_t out_size);
void agent_log_rotate(const char *path); /* copy and cut when it is over AGENT_LOG_BYTES_MAX */
void agent_logs_check(void *agent);      /* timer: logs that are too large, in the pool */

/* logtime.c: when lines were written. note: once a second or so; *noted_bytes is the log's size at
 * the last note. */
struct agent_log_note {
    int64_t wall_ns, end_bytes;
};
struct agent_log_times {
    struct at_buf text;
    int64_t now_wall_ns;
};
void agent_log_time_note(const char *log_path, int64_t wall_ns, int64_t *noted_bytes);
void agent_log_time_remove(const char *log_path);
void agent_log_times_load(const char *log_path, int64_t now_wall_ns, struct agent_log_times *ret);
void agent_log_times_done(struct agent_log_times *times);
/* Where the text begins that was written at since_wall_ns or later. */
int64_t agent_log_since_offset(const struct agent_log_times *times, int64_t since_wall_ns);
/* text, which stands at offset in the log, with the time before each line. *mid_line: text begins
 * (on return: ended) within a line. */
enum at_rc agent_log_stamp(const struct agent_log_times *times, int64_t offset, const char *text,
                           size_t len, bool *mid_line, struct at_buf *out) AT_WARN_UNUSED;

#endif
