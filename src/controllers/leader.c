#include "controllers/leader_priv.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/str.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

bool at_leader_leads(const struct at_leader *leader)
{
    return leader->leading && at_sys_mono_ns(leader->sys) < leader->fence_ns;
}

const char *at_leader_holder(const struct at_leader *leader)
{
    return leader->holder != NULL ? leader->holder : "";
}

static void lead(struct at_leader *leader, bool leading, const char *why)
{
    if (leader->leading == leading) {
        return;
    }
    leader->leading = leading;
    leader->epoch_rev = leading ? leader->epoch_rev : 0;
    at_log_kv(AT_LOG_INFO, leading ? "leader.gained" : "leader.lost",
              (struct at_log_kv[]){{"id", leader->id}, {0}}, "%s", why);
    leader->changed(leader->ctx, leading);
}

int64_t at_leader_epoch(const struct at_leader *leader)
{
    return leader->epoch_rev;
}

void at_leader_doubt(struct at_leader *leader)
{
    leader->doubtful = true; /* the tick is never far */
}

/* --- the record --- */

static void on_record(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs,
                      size_t n, bool more, const struct at_err *err)
{
    (void)rev;
    (void)more;
    (void)err;
    struct at_leader *leader = ctx;
    assert(rc == AT_OK);
    int64_t now_rev = n != 0 ? kvs[0].mod_rev : 0;
    if (now_rev == leader->rev && leader->seen_ns != 0) {
        return;
    }
    AT_CLEANUP(at_cleanup_json) json_t *record = NULL;
    if (n != 0 && at_json_parse(kvs[0].value, kvs[0].value_len, &record, NULL) != AT_OK) {
        record = NULL; /* not ours: it ends like a lease that nobody renews */
    }
    leader->rev = now_rev;
    leader->seen_ns = at_sys_mono_ns(leader->sys);
    const char *holder = at_json_str_at(record, "holder", "?");
    leader->mine = at_streq(holder, leader->id);
    leader->vacant = n == 0 || at_streq(holder, "");
    at_free(leader->holder);
    leader->holder = at_strdup(at_json_str_at(record, "name", ""));
    leader->epoch_rev = leader->mine ? leader->epoch_rev : 0;
    if (leader->leading && !leader->mine) {
        lead(leader, false, "another server has taken the lease");
    }
}

static char *record_text(const struct at_leader *leader, bool hold)
{
    char time[AT_UNITS_TEXT_BYTES_MAX];
    at_time_format_micro(at_sys_wall_ns(leader->sys), time);
    json_t *record = json_pack("{s:s, s:s, s:s, s:i}", "holder", hold ? leader->id : "", "name",
                               hold ? leader->name : "", "renewTime", time, "leaseSeconds",
                               (int)(AT_LEADER_LEASE_NS / AT_NS_PER_S));
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (record == NULL || at_json_dump(record, &text) != AT_OK) {
        assert(false);
    }
    json_decref(record);
    return at_buf_steal(&text, NULL);
}

static void on_given_back(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                          const struct at_err *err)
{
    (void)rc;
    (void)rev;
    (void)current;
    (void)err;
    at_leader_call_done(ctx);
}

/* On what was seen last. The record ends when nobody renews it: nothing is left of servers that are
 * all gone. */
static void record_put(struct at_leader *leader, bool hold, at_store_write_fn *fn)
{
    AT_CLEANUP(at_cleanup_free) char *text = record_text(leader, hold);
    leader->calls++;
    at_store_write(leader->store,
                   &(struct at_store_write){.key = AT_LEADER_KEY,
                                            .value = text,
                                            .len = strlen(text),
                                            .expect = leader->rev,
                                            .ttl_s = AT_LEADER_STALE_NS / AT_NS_PER_S,
                                            .fn = fn,
                                            .ctx = leader});
}

static void give_back(struct at_leader *leader)
{
    record_put(leader, false, on_given_back);
}

static void held(struct at_leader *leader)
{
    if (at_sys_mono_ns(leader->sys) < leader->fence_ns) {
        at_free(leader->holder);
        leader->holder = at_strdup(leader->name);
        lead(leader, true, "this server holds the lease");
    }
}

static void on_epoch(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                     const struct at_err *err)
{
    (void)current;
    (void)err;
    struct at_leader *leader = ctx;
    leader->writing = false;
    if (!leader->closed && rc == AT_OK) {
        leader->epoch_rev = rev;
        held(leader);
    } else if (leader->closed && rc == AT_OK) {
        give_back(leader);
    }
    at_leader_call_done(leader);
}

/* Only while the record is as we left it: else another has begun, and this would depose it. */
static void epoch_begin(struct at_leader *leader)
{
    leader->writing = true;
    leader->calls++;
    at_store_write(leader->store, &(struct at_store_write){.key = AT_LEADER_EPOCH_KEY,
                                                           .value = leader->id,
                                                           .len = strlen(leader->id),
                                                           .expect = -1,
                                                           .guard_key = AT_LEADER_KEY,
                                                           .guard_rev = leader->rev,
                                                           .fn = on_epoch,
                                                           .ctx = leader});
}

static void on_written(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                       const struct at_err *err)
{
    (void)current;
    (void)err;
    struct at_leader *leader = ctx;
    leader->writing = false;
    if (leader->closed) {
        leader->rev = rev;
        if (rc == AT_OK) {
            give_back(leader);
        }
        at_leader_call_done(leader);
        return;
    }
    if (rc == AT_OK) {
        int64_t now = at_sys_mono_ns(leader->sys);
        leader->rev = rev;
        leader->seen_ns = now;
        leader->vacant = false;
        leader->mine = true;
        leader->fence_ns = leader->sent_ns + AT_LEADER_LEASE_NS - AT_LEADER_MARGIN_NS;
        leader->next_renew_ns = leader->sent_ns + AT_LEADER_RENEW_NS;
        if (leader->epoch_rev != 0) {
            held(leader);
        } else if (now < leader->fence_ns) {
            epoch_begin(leader);
        }
    } else if (rc == AT_CONFLICT || rc == AT_EXISTS || rc == AT_NOT_FOUND) {
        leader->epoch_rev = 0;
        lead(leader, false, "another server has taken the lease");
    }
    at_leader_call_done(leader);
}

static void claim(struct at_leader *leader, int64_t now)
{
    leader->writing = true;
    leader->sent_ns = now;
    record_put(leader, true, on_written);
}

/* --- time --- */

static void tick_after(struct at_leader *leader, int64_t now)
{
    int64_t delay = AT_LEADER_LOOK_NS;
    if (leader->leading && leader->fence_ns - now < delay) {
        delay = leader->fence_ns - now;
    }
    leader->timer = at_loop_timer(leader->loop, delay, at_leader_tick, leader);
}

void at_leader_tick(void *ctx)
{
    struct at_leader *leader = ctx;
    int64_t now = at_sys_mono_ns(leader->sys);
    leader->timer = 0;
    if (leader->leading && now >= leader->fence_ns) {
        lead(leader, false, "the lease could not be renewed in time");
    }
    if (leader->leading && leader->doubtful) {
        lead(leader, false, "it is not known whether a write has happened");
    }
    leader->doubtful = false;
    at_store_range(leader->store, AT_LEADER_KEY, NULL, 1, 0, on_record, leader);
    bool expired = now - leader->seen_ns >= AT_LEADER_LEASE_NS;
    bool due =
        leader->leading ? now >= leader->next_renew_ns : leader->vacant || leader->mine || expired;
    if (due && !leader->writing) {
        claim(leader, now);
    }
    at_relay_tick(leader, now);
    tick_after(leader, now);
}

/* --- life --- */

struct at_leader *at_leader_new(struct at_loop *loop, struct at_store *store,
                                struct at_state *state, const struct at_leader_options *options)
{
    struct at_leader *leader = AT_NEW(struct at_leader);
    leader->loop = loop;
    leader->store = store;
    leader->state = state;
    leader->sys = at_loop_sys(loop);
    leader->name = at_strdup(options->name);
    leader->changed = options->changed;
    leader->ctx = options->ctx;
    leader->relay.seen = at_map_new();
    uint64_t random;
    at_sys_random(leader->sys, &random, sizeof random);
    snprintf(leader->id, sizeof leader->id, "%.64s-%016llx", at_sys_hostname(),
             (unsigned long long)random);
    leader->timer = at_loop_timer(loop, 0, at_leader_tick, leader);
    return leader;
}

static void leader_done(struct at_leader *leader)
{
    at_free(leader->name);
    at_free(leader->holder);
    at_free(leader);
}

void at_leader_call_done(struct at_leader *leader)
{
    assert(leader->calls > 0);
    leader->calls--;
    if (leader->closed && leader->calls == 0) {
        leader_done(leader);
    }
}

void at_leader_free(struct at_leader *leader)
{
    if (leader == NULL) {
        return;
    }
    leader->closed = true;
    at_loop_timer_cancel(leader->loop, leader->timer);
    leader->calls++;
    at_relay_done(leader);
    if (leader->leading && !leader->writing) {
        give_back(leader);
    }
    at_leader_call_done(leader);
}
