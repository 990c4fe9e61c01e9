#include "controllers/package.h"

#include <string.h>

#define PREFETCH_WAIT_NS                                                                           \
    (30 * 60 * AT_NS_PER_S)                  /* then a node that says nothing is passed over       \
                                              */
#define PREFETCH_AGAIN_NS (15 * AT_NS_PER_S) /* after a failure */

struct ctl_package ctl_package_of(const struct at_deployment *d, const char *hash)
{
    struct ctl_package p = {0};
    const struct at_template *t = d->spec.template;
    const struct at_model_ref *m = t != NULL && t->spec != NULL ? t->spec->model : NULL;
    const struct at_deployment_model *known = d->status.model;
    if (m == NULL || m->uri == NULL || strncmp(m->uri, "oci", 3) != 0) {
        return p;
    }
    const char *at = strstr(m->uri, "@sha256:");
    p.uri = m->uri;
    p.secret = ctl_text(m->pull_secret)[0] != '\0' ? m->pull_secret : NULL;
    if (ctl_text(m->digest)[0] != '\0') {
        p.digest = m->digest;
    } else if (at != NULL) {
        p.digest = at + 1;
    } else {
        p.by_tag = true;
        if (known != NULL && at_streq(known->uri, m->uri) && at_streq(known->template_hash, hash)) {
            p.digest = known->digest;
        }
    }
    return p;
}

const char *ctl_package_found(const struct ctl_package *p, const struct at_instance *const *copies,
                              int64_t n)
{
    for (int64_t k = 0; k < n; k++) {
        const struct at_instance_model *m = copies[k]->status.model;
        if (m != NULL && at_streq(m->uri, p->uri) && ctl_text(m->digest)[0] != '\0') {
            return m->digest;
        }
    }
    return NULL;
}

static void ask(struct ctl_pass *pass, const struct ctl_package *p, const struct at_instance *i)
{
    char now[AT_UNITS_TEXT_BYTES_MAX];
    json_t *what =
        json_pack("{s:s,s:s}", "uri", p->uri, "since", at_time_format(pass->wall_ns, now));
    json_object_set_new(what, "digest", p->digest != NULL ? json_string(p->digest) : json_null());
    json_object_set_new(what, "pullSecret",
                        p->secret != NULL ? json_string(p->secret) : json_null());
    ctl_patch(pass, &AT_KIND_INSTANCE, i->meta.ns, i->meta.name,
              json_pack("{s:{s:o,s:n}}", "status", "prefetch", what, "prefetched"));
}

static bool was_asked(const struct ctl_package *p, const struct at_instance *i)
{
    const struct at_instance_prefetch *a = i->status.prefetch;
    return a != NULL && at_streq(a->uri, p->uri) &&
           (p->digest == NULL || at_streq(a->digest, p->digest));
}

const char *ctl_package_prefetched(const struct ctl_package *p,
                                   const struct at_instance *const *copies, int64_t n)
{
    for (int64_t k = 0; k < n; k++) {
        const struct at_instance_prefetched *done = copies[k]->status.prefetched;
        if (was_asked(p, copies[k]) && done != NULL && at_streq(done->uri, p->uri) &&
            ctl_text(done->digest)[0] != '\0') {
            return done->digest;
        }
    }
    return NULL;
}

const char *ctl_package_prefetch(struct ctl_pass *pass, const struct ctl_package *p,
                                 const struct at_instance *const *copies, int64_t n)
{
    int64_t waiting = 0, have = 0, asked = 0;
    const char *why = NULL;
    for (int64_t k = 0; k < n; k++) {
        const struct at_instance *i = copies[k];
        if (!i->status.ready || ctl_text(i->spec.node_name)[0] == '\0' ||
            (p->digest == NULL && asked > 0)) { /* a tag is looked up by one of them */
            continue;
        }
        asked++;
        const struct at_instance_prefetched *done = i->status.prefetched;
        bool answered = was_asked(p, i) && done != NULL && at_streq(done->uri, p->uri);
        if (!was_asked(p, i)) {
            ask(pass, p, i);
            waiting++;
        } else if (answered && ctl_text(done->digest)[0] != '\0') {
            have++;
        } else if (answered) {
            why = done->message;
            int64_t left = i->status.prefetch->since_wall_ns + PREFETCH_AGAIN_NS - pass->wall_ns;
            if (left <= 0) {
                ask(pass, p, i);
            } else {
                ctl_after(pass, left);
            }
        } else {
            int64_t left = i->status.prefetch->since_wall_ns + PREFETCH_WAIT_NS - pass->wall_ns;
            waiting += left > 0;
            if (left > 0) {
                ctl_after(pass, left);
            }
        }
    }
    if (asked == 0 || (waiting == 0 && have > 0)) {
        return NULL;
    }
    if (waiting == 0 && why != NULL) {
        return at_arena_printf(pass->arena, "the model cannot be fetched: %s", why);
    }
    return at_arena_printf(pass->arena, "%lld of %lld nodes fetch the model first",
                           (long long)(asked - have), (long long)asked);
}
