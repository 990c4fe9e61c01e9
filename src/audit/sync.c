/* The thread that waits for the disk, so that the writer goes on meanwhile. */
#include "audit/audit_priv.h"
#include "core/mem.h"
#include "sys/fd.h"
#include "sys/file.h"
#include "sys/wake.h"

#include <assert.h>

static enum at_rc carry_out(struct at_audit *a, const struct at_audit_sync *job, struct at_err *err)
{
    enum at_rc rc = at_fd_sync(job->fd, err);
    if (rc == AT_OK && job->head.len > 0) {
        AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/audit.head", a->w.dir);
        rc = at_file_write_atomic(path, job->head.data, job->head.len, 0600, err);
    }
    return rc;
}

static void tell(struct at_audit *a, const struct at_audit_sync *job, enum at_rc rc,
                 const struct at_err *err)
{
    a->sync_rc = rc;
    if (rc != AT_OK) {
        a->err = *err;
    } else {
        at_audit_rides_synced(a, job->seq);
        a->done_ticket = job->ticket > a->done_ticket ? job->ticket : a->done_ticket;
    }
}

static void *sync_thread(void *audit)
{
    struct at_audit *a = audit;
    pthread_mutex_lock(&a->lock);
    for (;;) {
        while (a->sync.fd < 0 && !a->sync_stop) {
            pthread_cond_wait(&a->sync_asked, &a->lock);
        }
        if (a->sync.fd < 0) {
            break;
        }
        struct at_audit_sync job = a->sync;
        a->sync = (struct at_audit_sync){.fd = -1};
        pthread_mutex_unlock(&a->lock);
        struct at_err err = {0};
        enum at_rc rc = carry_out(a, &job, &err);
        at_file_close(job.fd);
        at_buf_done(&job.head);
        pthread_mutex_lock(&a->lock);
        tell(a, &job, rc, &err);
        at_wake_ring(a->wake_fd);
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

enum at_rc at_audit_sync_start(struct at_audit *a, struct at_err *err)
{
    if (pthread_create(&a->sync_thread, NULL, sync_thread, a) != 0) {
        return at_err_set(err, AT_UNAVAILABLE, "no thread for the audit log");
    }
    return AT_OK;
}

void at_audit_sync_stop(struct at_audit *a)
{
    pthread_mutex_lock(&a->lock);
    a->sync_stop = true;
    pthread_cond_signal(&a->sync_asked);
    pthread_mutex_unlock(&a->lock);
    pthread_join(a->sync_thread, NULL);
}

enum at_rc at_audit_sync_ask(struct at_audit *a, uint64_t ticket, const struct at_audit_seal *seal,
                             struct at_err *err)
{
    struct at_audit_sync job = {.fd = at_fd_dup(a->w.fd), .ticket = ticket, .seq = a->w.seq};
    enum at_rc rc = AT_OK;
    if (job.fd < 0) {
        rc = at_err_set(err, AT_EXHAUSTED, "no descriptor to sync %s with", a->w.path);
    } else if (seal != NULL) {
        rc = at_audit_head_write(seal, &job.head);
    }
    if (rc != AT_OK) {
        at_file_close(job.fd);
        at_buf_done(&job.head);
        return rc;
    }
    a->w.unsynced_bytes = 0;
    a->w.unsynced = false;
    pthread_mutex_lock(&a->lock);
    if (a->sync.fd >= 0) {
        at_file_close(a->sync.fd); /* what it would sync is in the same file, or was synced */
        if (job.head.len == 0) {
            job.head = a->sync.head;
            a->sync.head = (struct at_buf){0};
        }
        at_buf_done(&a->sync.head);
    }
    a->sync = job;
    pthread_cond_signal(&a->sync_asked);
    pthread_mutex_unlock(&a->lock);
    return AT_OK;
}
