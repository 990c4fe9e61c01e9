/* Several servers of one control plane: which one is used, and what is done when it fails. One is
 * used for everything, chosen at random, so that machines spread over them; the next one, again at
 * random, when it does not answer. Those that failed lately come last. */
#include "client/client_priv.h"
#include "client/limits.h"
#include "core/mem.h"
#include "core/str.h"

#include <assert.h>
#include <string.h>

static size_t random_below(const struct at_client *client, size_t n)
{
    uint32_t random;
    at_sys_random(at_loop_sys(client->loop), &random, sizeof random);
    return random % n;
}

static struct at_client_server *find_text(struct at_client *client, const char *text)
{
    for (size_t i = 0; i < client->n_servers; i++) {
        if (strcmp(client->servers[i]->text, text) == 0) {
            return client->servers[i];
        }
    }
    return NULL;
}

struct at_client_server *at_client_server_find(struct at_client *client, uint32_t id)
{
    for (size_t i = 0; i < client->n_servers; i++) {
        if (client->servers[i]->id == id) {
            return client->servers[i];
        }
    }
    return NULL;
}

static void server_free(struct at_client_server *s)
{
    at_free(s->text);
    at_free(s);
}

static enum at_rc add(struct at_client *client, const char *text, bool learned, struct at_err *err)
{
    struct at_client_server *s = find_text(client, text);
    if (s != NULL) {
        s->learned = s->learned || learned;
        return AT_OK;
    }
    if (client->n_servers == AT_CLIENT_SERVERS_MAX) {
        return at_err_set(err, AT_INVALID, "more than %d servers", AT_CLIENT_SERVERS_MAX);
    }
    s = AT_NEW(struct at_client_server);
    s->text = at_strdup(text);
    s->id = ++client->last_server_id;
    s->learned = learned;
    s->configured = !learned;
    enum at_rc rc = at_url_parse(text, &s->url, err);
    if (rc == AT_OK && client->n_servers != 0 &&
        strcmp(s->url.scheme, client->servers[0]->url.scheme) != 0) {
        rc = at_err_set(err, AT_INVALID, "either all servers are https:// or none is");
    }
    if (rc != AT_OK) {
        server_free(s);
        return at_err_wrap(err, rc, "server address \"%s\"", text);
    }
    client->servers[client->n_servers++] = s;
    return AT_OK;
}

enum at_rc at_client_servers_open(struct at_client *client, const char *list, bool prefer_first,
                                  struct at_err *err)
{
    struct at_str rest = at_str_of(list);
    do {
        struct at_str one = at_str_trim(at_str_cut(&rest, ','));
        AT_CLEANUP(at_cleanup_free) char *text = at_strndup(one.ptr, one.len);
        enum at_rc rc = add(client, text, false, err);
        if (rc != AT_OK) {
            return rc;
        }
    } while (rest.len != 0);
    client->current = client->servers[prefer_first ? 0 : random_below(client, client->n_servers)];
    return AT_OK;
}

void at_client_servers_done(struct at_client *client)
{
    for (size_t i = 0; i < client->n_servers; i++) {
        server_free(client->servers[i]);
    }
}

/* Among those that did not fail lately, if there are any; never the one in use. */
static void choose_next(struct at_client *client)
{
    int64_t now = at_loop_now_ns(client->loop);
    struct at_client_server *best = NULL;
    size_t equal = 0;
    for (size_t i = 0; i < client->n_servers; i++) {
        struct at_client_server *s = client->servers[i];
        if (s == client->current) {
            continue;
        }
        int64_t rest = s->rest_until_ns > now ? s->rest_until_ns : 0;
        int64_t best_rest = best != NULL && best->rest_until_ns > now ? best->rest_until_ns : 0;
        if (best == NULL || rest < best_rest) {
            best = s;
            equal = 1;
        } else if (rest == best_rest && random_below(client, ++equal) == 0) {
            best = s;
        }
    }
    client->current = best != NULL ? best : client->current;
}

void at_client_server_failed(struct at_client *client, uint32_t id)
{
    struct at_client_server *s = at_client_server_find(client, id);
    if (s == NULL || client->n_servers == 1) {
        return;
    }
    unsigned doublings = s->failures < 5 ? s->failures : 5;
    s->failures++;
    s->rest_until_ns = at_loop_now_ns(client->loop) + (AT_CLIENT_SERVER_REST_NS << doublings);
    if (s == client->current) {
        choose_next(client);
    }
}

void at_client_server_works(struct at_client *client, uint32_t id)
{
    struct at_client_server *s = at_client_server_find(client, id);
    if (s != NULL) {
        s->failures = 0;
        s->rest_until_ns = 0;
    }
}

static void forget_unlearned(struct at_client *client)
{
    size_t kept = 0;
    bool lost = false;
    for (size_t i = 0; i < client->n_servers; i++) {
        struct at_client_server *s = client->servers[i];
        if (s->configured || s->learned) {
            client->servers[kept++] = s;
        } else {
            lost = lost || s == client->current;
            server_free(s);
        }
    }
    client->n_servers = kept;
    assert(kept != 0);
    if (lost) {
        client->current = client->servers[random_below(client, kept)];
    }
}

static bool same_as_learned(struct at_client *client, const json_t *urls)
{
    size_t n = 0;
    size_t i;
    const json_t *url;
    for (size_t k = 0; k < client->n_servers; k++) {
        n += client->servers[k]->learned;
    }
    json_array_foreach((json_t *)urls, i, url)
    {
        const char *text = json_string_value(url);
        const struct at_client_server *s = text != NULL ? find_text(client, text) : NULL;
        if (s == NULL || !s->learned) {
            return false;
        }
    }
    return n == json_array_size(urls);
}

void at_client_learn_servers(struct at_client *client, const json_t *urls)
{
    size_t i;
    const json_t *url;
    if (!json_is_array(urls) || same_as_learned(client, urls)) {
        return;
    }
    for (size_t k = 0; k < client->n_servers; k++) {
        client->servers[k]->learned = false;
    }
    json_array_foreach((json_t *)urls, i, url)
    {
        const char *text = json_string_value(url);
        bool is_new = text != NULL && find_text(client, text) == NULL;
        struct at_err ignored = {0}; /* an address that this version does not understand */
        if (text == NULL || add(client, text, true, &ignored) != AT_OK) {
            continue;
        }
        if (is_new && random_below(client, client->n_servers) == 0) {
            client->current = client->servers[client->n_servers - 1]; /* it takes its share */
        }
    }
    forget_unlearned(client);
    if (client->on_servers != NULL) {
        client->on_servers(client->on_servers_ctx);
    }
}

void at_client_on_servers(struct at_client *client, void (*fn)(void *ctx), void *ctx)
{
    client->on_servers = fn;
    client->on_servers_ctx = ctx;
}

const char *at_client_learned_server(const struct at_client *client, size_t i)
{
    for (size_t k = 0; k < client->n_servers; k++) {
        if (client->servers[k]->learned && i-- == 0) {
            return client->servers[k]->text;
        }
    }
    return NULL;
}

const char *at_client_server_in_use(const struct at_client *client)
{
    return client->current->text;
}

size_t at_client_server_count(const struct at_client *client)
{
    return client->n_servers;
}

struct at_client_server *at_client_server_for(struct at_client *client, const char *text)
{
    return text != NULL ? find_text(client, text) : client->current;
}
