/* TTLs in etcd: a key that has one hangs on a lease of its own, so that each end is a revision of
 * its own, which is what the mirror can follow. A lease's number carries the TTL in its low bits:
 * so it is known from the key alone, by every server and by an export. A key that is put again
 * keeps its lease and has it renewed, which costs etcd no write. */
#include "core/mem.h"
#include "store/etcd_priv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static uint64_t lease_new(const struct at_etcd *e, uint32_t ttl_s)
{
    uint64_t random = 0;
    do {
        at_sys_random(at_loop_sys(e->loop), &random, sizeof random);
        random &= (UINT64_C(1) << (63 - AT_ETCD_LEASE_TTL_BITS)) - 1;
    } while (random == 0);
    return random << AT_ETCD_LEASE_TTL_BITS | ttl_s;
}

static int64_t ttl_of(const json_t *answer)
{
    const json_t *result = json_object_get(answer, "result"); /* of a stream: keepalive */
    const json_t *ttl = json_object_get(result != NULL ? result : answer, "TTL");
    if (json_is_integer(ttl)) {
        return json_integer_value(ttl);
    }
    return json_is_string(ttl) ? strtoll(json_string_value(ttl), NULL, 10) : 0;
}

static void lease_done(void *ctx, enum at_rc rc, bool unsure, const json_t *answer,
                       const struct at_err *err)
{
    (void)unsure; /* a lease that nobody knows of ends by itself */
    struct at_etcd_op *op = ctx;
    struct at_etcd *e = op->e;
    e->n_calls--;
    if (op->state != AT_ETCD_OP_SENT) {
        return; /* given up meanwhile */
    }
    op->call = 0;
    bool has = rc == AT_OK && ttl_of(answer) > 0;
    if (rc != AT_OK && rc != AT_UNAVAILABLE && rc != AT_CANCELLED && rc != AT_NOT_FOUND) {
        at_etcd_decide_failed(op, rc, err);
    } else {
        if (!has && rc == AT_OK) {
            op->lease_new = true; /* the old one has ended: not kept alive */
        } else if (!has) {
            op->err = *err;
        }
        op->lease = has ? op->lease_asked : 0;
        at_etcd_op_ready(op);
    }
    at_etcd_kick(e);
}

void at_etcd_lease_ask(struct at_etcd_op *op)
{
    struct at_etcd *e = op->e;
    uint32_t ttl_s = op->version->ttl_s;
    uint64_t have = at_store_lease_id(e->store, at_store_version_key(op->version));
    bool keep = have != 0 && at_etcd_lease_ttl(have) == ttl_s && !op->lease_new;
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    assert(op->state == AT_ETCD_OP_SENT);
    op->lease_new = !keep;
    op->lease_asked = keep ? have : lease_new(e, ttl_s);
    if (at_etcd_lease_text(op->lease_asked, keep ? 0 : ttl_s, &text) != AT_OK) {
        assert(false);
    }
    e->n_calls++;
    op->call =
        at_etcd_call(e, keep ? "/v3/lease/keepalive" : "/v3/lease/grant", &text, lease_done, op);
}

static void revoke_done(void *ctx, enum at_rc rc, bool unsure, const json_t *answer,
                        const struct at_err *err)
{
    (void)ctx; /* it ends by itself otherwise */
    (void)rc;
    (void)unsure;
    (void)answer;
    (void)err;
}

/* A lease made for a write that was refused holds nothing. */
void at_etcd_lease_revoke(struct at_etcd *e, uint64_t lease)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (!e->closing && at_etcd_may_call(e) && at_etcd_lease_text(lease, 0, &text) == AT_OK) {
        at_etcd_call(e, "/v3/lease/revoke", &text, revoke_done, NULL);
    }
}
