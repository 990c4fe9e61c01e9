/* Inside of the audit log, for this folder and its tests. */
#ifndef AT_AUDIT_PRIV_H
#define AT_AUDIT_PRIV_H

#include "audit/audit.h"
#include "audit/chain.h"
#include "audit/limits.h"

#include <pthread.h>
#include <stdatomic.h>

/* --- files.c: the files of one log --- */
struct at_audit_file {
    char *path;
    uint64_t first_seq; /* 0: not known (an empty audit.log) */
    int64_t bytes;
};
struct at_audit_files {
    struct at_audit_file *items; /* in order; the newest, audit.log, last */
    size_t n;
};
/* err: those of at_dir_list; AT_EXHAUSTED more than AT_AUDIT_FILES_MAX. */
enum at_rc at_audit_files_list(const char *dir, struct at_audit_files *ret,
                               struct at_err *err) AT_WARN_UNUSED;
void at_audit_files_done(struct at_audit_files *files);
/* The number that the first line of a file has; 0: it has none. */
uint64_t at_audit_file_first(const char *path);

/* Where a chain goes on. */
struct at_audit_tail {
    uint64_t seq; /* of the last record; 0: none yet */
    unsigned char hash[AT_SHA256_BYTES];
    uint64_t file_first_seq; /* of audit.log; 0: it is empty or absent */
    int64_t bytes;           /* of audit.log, without a half line */
    int64_t cut_bytes;       /* the half line's */
    bool damaged; /* the last line is none of ours, or does not follow from the one before */
};
enum at_rc at_audit_tail_read(const char *dir, struct at_audit_tail *ret,
                              struct at_err *err) AT_WARN_UNUSED;

/* --- thread.c: what is the writer's --- */
struct at_audit_batch {
    struct at_buf records; /* each: its length as size_t, then the members */
    size_t n;
    uint64_t last_ticket;
    bool sync, seal, waited;
    const char *seal_why;
    int64_t wall_ns; /* when the newest came */
};
struct at_audit_writer { /* touched by the thread only, once it runs */
    struct at_audit *a;
    char *dir, *path;
    EVP_PKEY *key;
    struct at_audit_hasher *hasher;
    char chain[AT_AUDIT_CHAIN_ID_BYTES];
    uint64_t seq;
    unsigned char hash[AT_SHA256_BYTES];
    int fd;
    int64_t file_bytes; /* durable length of audit.log, as far as writes were whole */
    uint64_t file_first_seq;
    int64_t older_bytes; /* of all other files */
    int64_t file_bytes_max, bytes_max;
    size_t since_seal;
    size_t unsynced_bytes; /* since a sync was asked for */
    bool drop_oldest, unsynced;
    struct at_buf out; /* lines made and not written yet */
    uint64_t lost;     /* said in the log when it can be */
};

/* Lines that are written and neither synced nor in the store's journal. */
struct at_audit_lines {
    struct at_buf text;
    uint64_t file_first_seq, last_seq;
    int64_t offset; /* in that file */
};

/* A sync that was asked for; a later one takes its place before it has begun. */
struct at_audit_sync {
    int fd; /* of its own; -1: none */
    uint64_t ticket, seq;
    struct at_buf head; /* audit.head, to be written after it; empty: not */
};

struct at_audit {
    struct at_loop *loop;
    enum at_audit_level level;
    bool no_sync;
    void (*settled)(void *ctx, uint64_t ticket);
    void *ctx;
    struct at_audit_writer w;
    uint64_t next_ticket;
    uint64_t told_ticket, timer_ticket;
    struct at_loop_task turn_end;
    at_timer_id timer;
    int wake_fd;
    at_watch_id wake_watch;
    struct at_audit_ship *ships[AT_AUDIT_SINKS_MAX];
    size_t n_ships;
    struct at_metric *records_total, *lost_total, *bytes_now, *refusing_now;
    uint64_t lost_seen;

    pthread_t thread, sync_thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* Under lock. */
    struct at_audit_batch pending;
    bool stop;
    uint64_t lost;                  /* records that could not even wait */
    uint64_t done_ticket, done_seq; /* durable; with no_sync: written */
    uint64_t keep_seq;              /* what sinks have not got yet */
    /* rides.c */
    bool journaled;
    struct at_audit_lines lines;
    uint64_t ride_ticket, sync_ticket;     /* the newest that rides; that a sync was asked for */
    uint64_t written_ticket, tried_ticket; /* by the writer, with and without success */
    uint64_t taken_ticket, taken_seq;      /* by the batch of the store under way; 0: nothing */
    uint64_t synced_seq, gap_seq;          /* up to gap_seq only a sync makes it safe */
    pthread_cond_t tried;
    /* sync.c */
    struct at_audit_sync sync;
    pthread_cond_t sync_asked;
    bool sync_stop;
    enum at_rc sync_rc;
    int64_t bytes;
    enum at_rc rc;
    struct at_err err;
    char why[AT_ERR_MSG_BYTES_MAX + 64]; /* of refusal; loop */
    atomic_bool refuses;
};

void *at_audit_thread(void *audit);
void at_audit_told(struct at_audit *a); /* audit.c: what the threads have done; loop */

/* --- sync.c: the thread that waits for the disk --- */
enum at_rc at_audit_sync_start(struct at_audit *a, struct at_err *err) AT_WARN_UNUSED;
void at_audit_sync_stop(struct at_audit *a); /* after what was asked for */
/* Of what is written; seal: that audit.head is to show afterwards, may be NULL. thread: writer. */
enum at_rc at_audit_sync_ask(struct at_audit *a, uint64_t ticket, const struct at_audit_seal *seal,
                             struct at_err *err) AT_WARN_UNUSED;

/* --- rides.c --- */
void at_audit_rides_written(struct at_audit *a, const char *text, size_t len, int64_t offset);
void at_audit_rides_synced(struct at_audit *a, uint64_t seq); /* under lock */
void at_audit_rides_sync_want(struct at_audit *a);            /* under lock */

/* --- redo.c: the end of audit.log as the journal has it --- */
struct at_audit_healed {
    uint64_t records;   /* written again; 0: nothing was missing */
    uint64_t first_seq; /* the first of them */
    uint64_t last_seq;  /* the newest record that the journal promises; 0: none */
    unsigned char last_hash[AT_SHA256_BYTES];
};
enum at_rc at_audit_redo_apply(const struct at_audit_redo *redo, const char *dir,
                               struct at_audit_healed *ret, struct at_err *err) AT_WARN_UNUSED;
/* First lines of a log that is opened: a seal, and what was found. */
enum at_rc at_audit_writer_begin(struct at_audit *a, const struct at_audit_tail *tail,
                                 const struct at_audit_healed *healed, int64_t wall_ns,
                                 struct at_err *err) AT_WARN_UNUSED;

#endif
