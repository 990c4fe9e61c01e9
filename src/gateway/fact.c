/* What matters to routes in an Instance and a Site. */
#include "core/mem.h"
#include "core/units.h"
#include "gateway/feed_priv.h"
#include "gateway/reach.h"
#include "sys/file.h"
#include "sys/socket.h"

#include <string.h>

static char *text_at(const json_t *object, const char *path)
{
    return at_strdup(at_json_str_at(object, path, ""));
}

int64_t gw_created_ns(const json_t *object)
{
    int64_t ns = 0;
    return at_time_parse(at_json_str_at(object, "metadata.creationTimestamp", ""), &ns, NULL) ==
                   AT_OK
               ? ns
               : 0;
}

void gw_fact_free(struct gw_fact *f)
{
    if (f != NULL) {
        char *const texts[] = {f->ns,        f->deployment, f->model, f->version,
                               f->served_as, f->instance,   f->site,  f->node,
                               f->addr,      f->data_class, f->peer};
        for (size_t i = 0; i < AT_ARRAY_LEN(texts); i++) {
            at_free(texts[i]);
        }
        gw_gauge_unref(f->gauge);
        gw_standing_unref(f->standing);
        at_free(f);
    }
}

bool gw_fact_equal(const struct gw_fact *a, const struct gw_fact *b)
{
    return a != NULL && b != NULL && a->serving == b->serving &&
           at_streq(a->deployment, b->deployment) && at_streq(a->model, b->model) &&
           at_streq(a->version, b->version) && at_streq(a->served_as, b->served_as) &&
           at_streq(a->site, b->site) && at_streq(a->node, b->node) && at_streq(a->addr, b->addr) &&
           at_streq(a->peer, b->peer) && a->http2 == b->http2 && a->unsafe == b->unsafe &&
           at_streq(a->data_class, b->data_class) && a->created_ns == b->created_ns;
}

/* Has the instance a socket on this machine that we may use? What the agent says alone is not
 * believed: the path must be one that only agents make, below a folder named after the instance. */
static bool is_here(const json_t *object)
{
    static const char PREFIX[] = "unix:/";
    const char *local = at_json_str_at(object, "status.localEndpoint", "");
    const char *uid = at_json_str_at(object, "metadata.uid", "");
    AT_CLEANUP(at_cleanup_free) char *tail = at_asprintf("/%s/%s", uid, AT_LOCAL_SOCKET_NAME);
    size_t len = strlen(local), tail_len = strlen(tail);
    return uid[0] != '\0' && strncmp(local, PREFIX, sizeof PREFIX - 1) == 0 && len > tail_len &&
           strcmp(local + len - tail_len, tail) == 0 && strstr(local, "/../") == NULL &&
           at_file_writable(local + strlen("unix:"));
}

/* Where it is reached: by its socket or its port on this machine, else through its agent by TLS. A
 * plain address of another machine is none. Who tells no loopback (agents before there was TLS, and
 * none but those) is taken at its word that it is on this one. */
static void find_address(const json_t *object, const char *own_loopback, struct gw_fact *f)
{
    const char *plain = at_json_str_at(object, "status.endpoint", "");
    const char *tls = at_json_str_at(object, "status.tlsEndpoint", "");
    const char *loopback = at_json_str_at(object, "status.loopback", "");
    const char *uid = at_json_str_at(object, "metadata.uid", "");
    bool here = loopback[0] != '\0' ? strcmp(loopback, own_loopback) == 0 : tls[0] == '\0';
    here = here && gw_is_loopback(plain) && strncmp(plain, "unix:", 5) != 0;
    f->http2 = strcmp(at_json_str_at(object, "spec.appProtocol", ""), "h2c") == 0;
    if (is_here(object)) {
        f->addr = at_strdup(at_json_str_at(object, "status.localEndpoint", ""));
    } else if (here) {
        f->addr = at_strdup(plain);
    } else if (tls[0] != '\0' && uid[0] != '\0' && strchr(uid, ' ') == NULL) {
        f->addr = at_strdup(tls);
        f->peer = at_asprintf("%s system:node:%s", uid, f->node);
    } else {
        f->addr = at_strdup("");
        f->unsafe = plain[0] != '\0';
    }
}

struct gw_fact *gw_fact_of(const json_t *object, const char *loopback)
{
    const json_t *labels = at_json_at(object, "metadata.labels");
    const char *owner = json_string_value(json_object_get(labels, "atoll.dev/deployment"));
    const char *name = at_json_str_at(object, "spec.model.name", "");
    bool has_model = at_json_at(object, "spec.model") != NULL;
    owner = owner != NULL ? owner : "";
    if (name[0] == '\0' && owner[0] == '\0') {
        return NULL; /* a job's */
    }
    struct gw_fact *f = AT_NEW(struct gw_fact);
    f->ns = text_at(object, "metadata.namespace");
    f->deployment = at_strdup(owner);
    f->model = at_strdup(name[0] != '\0' ? name : owner);
    f->version = text_at(object, "spec.model.version");
    f->served_as = at_strdup(has_model ? f->model : "");
    f->instance = text_at(object, "metadata.name");
    f->site = text_at(object, "status.site");
    f->node = text_at(object, "spec.nodeName");
    find_address(object, loopback, f);
    f->data_class = text_at(object, "spec.dataClass");
    f->created_ns = gw_created_ns(object);
    f->serving = at_json_bool_at(object, "status.ready", false) && f->addr[0] != '\0' &&
                 at_json_at(object, "metadata.deletionTimestamp") == NULL;
    return f;
}

struct gw_fact *gw_fact_more(const json_t *object, const char *loopback, const json_t *model)
{
    struct gw_fact *f = gw_fact_of(object, loopback);
    if (f != NULL) {
        at_free(f->model);
        at_free(f->version);
        at_free(f->served_as);
        f->model = text_at(model, "name");
        f->version = text_at(model, "version");
        f->served_as = text_at(model, "name");
        f->more = true;
    }
    return f;
}

/* No name of an object has a slash in it. */
char *gw_key_more(const char *key, const json_t *model)
{
    return at_asprintf("%s//%s", key, at_json_str_at(model, "name", ""));
}

void gw_place_free(struct gw_place *place)
{
    if (place != NULL) {
        json_decref(place->links);
        at_free(place->jurisdiction);
        at_free(place);
    }
}
