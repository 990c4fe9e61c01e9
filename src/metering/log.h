/* One loop's log of usage: every request that a key made, in the file before its answer ends.
 *
 * The file is memory, so that a record costs no system call and outlives the process whatever ends
 * it; another thread waits for the disk, for many records at once (book.h). A request under way has
 * a slot of 64 bytes, in a file too, which says what it has cost so far: a stream that is cut by
 * the end of the process is charged with what had been sent. */
#ifndef AT_METERING_LOG_H
#define AT_METERING_LOG_H

#include "metering/record.h"
#include "sys/mapped.h"

#include <stdatomic.h>

/* A file of records. The loop appends; the book reads. */
struct at_meter_segment {
    struct at_mapped file;
    uint32_t number;
    _Atomic size_t head;                     /* bytes that are written */
    _Atomic(struct at_meter_segment *) next; /* this one is full, and that goes on */
    size_t synced, applied;                  /* the book's */
    bool marked; /* the book's file that is being written holds all of it */
};

/* A model's name in a log; the loop's own. Zeroed when it is new. */
struct at_meter_what {
    const char *model;
    uint32_t id, segment;
};

struct at_meter_slot {   /* in the file */
    _Atomic uint64_t id; /* of the request; 0: the slot is free */
    uint32_t key, model;
    int32_t day;
    uint32_t reserved;
    _Atomic uint64_t prompt, completion;
    _Atomic int64_t cost_nanousd;
    uint64_t more[2];
};

struct at_meter_log;

/* Makes r<run>-l<loop>-<n>.log and r<run>-l<loop>.slots in folder. err: AT_IO and as
 * at_mapped_new. own: at_meter_log_free. */
enum at_rc at_meter_log_new(const char *folder, uint32_t run, uint32_t loop,
                            struct at_meter_log **ret, struct at_err *err) AT_WARN_UNUSED;
void at_meter_log_free(struct at_meter_log *log); /* accepts NULL; files stay */

/* A request begins. out: a slot, until at_meter_log_end. who and what stay until then.
 * err: AT_EXHAUSTED no slot is free | AT_IO no room on the disk.
 * thread: the loop's.  cost: no system call and no allocation, but when a file is full or a key is
 * new. */
enum at_rc at_meter_log_begin(struct at_meter_log *log, const struct at_meter_who *who,
                              struct at_meter_what *what, int32_t day,
                              uint32_t *ret_slot) AT_WARN_UNUSED;
void at_meter_log_update(struct at_meter_log *log, uint32_t slot, uint64_t prompt,
                         uint64_t completion, int64_t cost_nanousd);
/* It has ended. use: all but id, key, model. */
void at_meter_log_end(struct at_meter_log *log, uint32_t slot, const struct at_meter_use *use);

/* For the book, on its thread. */
struct at_meter_segment *at_meter_log_first(struct at_meter_log *log);
void at_meter_log_drop_first(struct at_meter_log *log); /* it has a next one; the file goes */
/* Have the next file ready, so that the loop need not make it. Cheap when it is. */
void at_meter_log_prepare(struct at_meter_log *log);
uint32_t at_meter_log_loop(const struct at_meter_log *log);

#endif
