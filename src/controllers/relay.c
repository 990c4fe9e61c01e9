/* Heartbeats are kept in memory by the server that gets them. With several servers, those that do
 * not lead write down once in a while when each of their nodes last beat; the leader reads it. Ages
 * are told, not times: clocks of machines differ. One small record per server, only while a server
 * that does not lead has nodes: so one server alone writes nothing, and a thousand nodes cost the
 * store two writes a second per server. */
#include "controllers/leader_priv.h"
#include "core/json.h"
#include "core/mem.h"

#include <stdio.h>
#include <string.h>

#define BEAT_AGE_MAX_NS (60 * AT_NS_PER_S) /* older ones are told by nobody */
#define KEY_BYTES (sizeof AT_LEADER_BEATS + AT_LEADER_ID_BYTES)

struct relay_seen {
    int64_t rev;
};

/* --- telling --- */

struct telling {
    json_t *nodes;
    int64_t now;
};

static void tell_node(void *ctx, const char *node, int64_t last_ns)
{
    struct telling *t = ctx;
    if (t->now - last_ns < BEAT_AGE_MAX_NS) {
        json_object_set_new(t->nodes, node, json_integer((t->now - last_ns) / AT_NS_PER_MS));
    }
}

static void on_told(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                    const struct at_err *err)
{
    (void)rc;
    (void)rev;
    (void)current;
    (void)err;
    struct at_leader *leader = ctx;
    leader->relay.writing = false;
    at_leader_call_done(leader);
}

static void own_key(const struct at_leader *leader, char out[KEY_BYTES])
{
    snprintf(out, KEY_BYTES, AT_LEADER_BEATS "%s", leader->id);
}

static void tell(struct at_leader *leader, int64_t now)
{
    struct at_relay *relay = &leader->relay;
    if (now < relay->next_ns || relay->writing) {
        return;
    }
    relay->next_ns = now + AT_LEADER_RELAY_NS;
    struct telling t = {json_object(), now};
    at_state_heartbeat_each(leader->state, tell_node, &t);
    AT_CLEANUP(at_cleanup_json) json_t *record = json_pack("{s:o}", "nodes", t.nodes);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {.max = AT_STORE_VALUE_BYTES_MAX};
    if (json_object_size(t.nodes) == 0 || at_json_dump(record, &text) != AT_OK) {
        return;
    }
    char key[KEY_BYTES];
    own_key(leader, key);
    relay->writing = relay->written = true;
    leader->calls++;
    at_store_write(leader->store,
                   &(struct at_store_write){.key = key,
                                            .value = text.data,
                                            .len = text.len,
                                            .expect = -1,
                                            .ttl_s = AT_LEADER_STALE_NS / AT_NS_PER_S,
                                            .fn = on_told,
                                            .ctx = leader});
}

/* --- hearing --- */

static void hear_record(struct at_leader *leader, const struct at_store_kv *kv, int64_t now)
{
    struct relay_seen *seen = at_map_get(leader->relay.seen, kv->key);
    if (seen == NULL) {
        seen = AT_NEW(struct relay_seen);
        at_map_put(leader->relay.seen, kv->key, seen);
    }
    if (seen->rev == kv->mod_rev) {
        return; /* what an ended server left behind ends by itself */
    }
    bool first = seen->rev == 0; /* it may be old */
    seen->rev = kv->mod_rev;
    AT_CLEANUP(at_cleanup_json) json_t *record = NULL;
    if (first || at_json_parse(kv->value, kv->value_len, &record, NULL) != AT_OK) {
        return;
    }
    const char *node;
    json_t *age;
    json_object_foreach(json_object_get(record, "nodes"), node, age)
    {
        int64_t age_ns = json_integer_value(age) * AT_NS_PER_MS;
        if (json_is_integer(age) && age_ns >= 0 && age_ns < now) {
            at_state_heartbeat_relayed(leader->state, node, now - age_ns, now);
        }
    }
}

struct hearing {
    struct at_leader *leader;
    int64_t now;
};

static void on_beats(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs, size_t n,
                     bool more, const struct at_err *err)
{
    (void)rev;
    (void)more;
    (void)err;
    struct hearing *h = ctx;
    for (size_t i = 0; rc == AT_OK && i < n; i++) {
        hear_record(h->leader, &kvs[i], h->now);
    }
}

void at_relay_tick(struct at_leader *leader, int64_t now)
{
    if (!leader->leading) {
        tell(leader, now);
        return;
    }
    char end[sizeof AT_LEADER_BEATS + 1];
    struct hearing h = {leader, now};
    at_store_prefix_end(AT_LEADER_BEATS, end, sizeof end);
    at_store_range(leader->store, AT_LEADER_BEATS, end, 0, 0, on_beats, &h);
}

void at_relay_done(struct at_leader *leader)
{
    if (leader->relay.written) {
        char key[KEY_BYTES];
        own_key(leader, key);
        at_store_delete(leader->store, key, -1, NULL, NULL);
    }
    const char *key;
    void *seen;
    for (size_t it = 0; at_map_next(leader->relay.seen, &it, &key, &seen);) {
        at_free(seen);
    }
    at_map_free(leader->relay.seen);
}
