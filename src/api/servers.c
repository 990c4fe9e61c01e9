/* The servers of one shared store tell each other where they are, by a key each that ends when it
 * is not renewed; agents and gateways are told all of them. A server with a store of its own tells
 * nobody: whoever reached it knows how. */
#include "api/api_priv.h"
#include "core/mem.h"
#include "core/str.h"

#include <stdio.h>
#include <string.h>

#define SERVERS_PREFIX "/atoll-internal/servers/"

static void nothing_more(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                         const struct at_err *err)
{
    (void)ctx; /* the next renewal is not far */
    (void)rc;
    (void)rev;
    (void)current;
    (void)err;
}

static void changes_tell(struct at_api *api)
{
    json_t *urls = api_servers_json(api);
    if (api->options.on_servers != NULL && json_array_size(urls) != 0 &&
        !json_equal(urls, api->servers_told)) {
        api->options.on_servers(api->options.on_servers_ctx, urls);
        json_decref(api->servers_told);
        api->servers_told = json_incref(urls);
    }
    json_decref(urls);
}

static void tell(void *ctx)
{
    struct at_api *api = ctx;
    changes_tell(api);
    const char *url = api->advertise_url;
    AT_CLEANUP(at_cleanup_free) char *key = at_asprintf(SERVERS_PREFIX "%s", url);
    at_store_write(api->options.store, &(struct at_store_write){.key = key,
                                                                .value = url,
                                                                .len = strlen(url),
                                                                .expect = -1,
                                                                .ttl_s = AT_API_SERVERS_TTL_S,
                                                                .fn = nothing_more});
    api->servers_timer = at_loop_timer(api->options.loop, AT_API_SERVERS_TELL_NS, tell, api);
}

void at_api_enter(struct at_api *api, const char *url)
{
    if (api->options.secrets_stale) {
        api_secrets_begin(api);
    }
    if (at_store_is_shared(api->options.store)) {
        api->advertise_url = at_strdup(url);
        tell(api);
    }
}

void api_servers_done(struct at_api *api)
{
    at_loop_timer_cancel(api->options.loop, api->servers_timer);
    api->servers_timer = 0;
    json_decref(api->servers_told);
    api->servers_told = NULL;
    at_free(api->advertise_url);
    api->advertise_url = NULL;
}

/* One that ends in order is not to be asked any more. Before the store is drained. */
void at_api_leave(struct at_api *api)
{
    if (api->servers_timer != 0) {
        AT_CLEANUP(at_cleanup_free)
        char *key = at_asprintf(SERVERS_PREFIX "%s", api->advertise_url);
        api_servers_done(api);
        at_store_delete(api->options.store, key, -1, nothing_more, NULL);
    }
}

static void on_servers(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs,
                       size_t n, bool more, const struct at_err *err)
{
    (void)rev;
    (void)more;
    (void)err;
    json_t *urls = ctx;
    for (size_t i = 0; rc == AT_OK && i < n && i < AT_API_SERVERS_MAX; i++) {
        json_array_append_new(urls, json_stringn(kvs[i].value, kvs[i].value_len));
    }
}

json_t *api_servers_json(struct at_api *api)
{
    char end[sizeof SERVERS_PREFIX];
    json_t *urls = json_array();
    at_store_prefix_end(SERVERS_PREFIX, end, sizeof end);
    if (at_store_is_shared(api->options.store)) {
        at_store_range(api->options.store, SERVERS_PREFIX, end, 0, 0, on_servers, urls);
    }
    return urls;
}

/* The time is what gateways reckon the periods of budgets by. */
void api_join_servers(struct api_req *req)
{
    char now[AT_UNITS_TEXT_BYTES_MAX];
    at_time_format_micro(at_sys_wall_ns(at_loop_sys(req->api->options.loop)), now);
    api_respond_json(req, 200,
                     json_pack("{s:o, s:s}", "servers", api_servers_json(req->api), "time", now));
}
