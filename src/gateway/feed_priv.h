/* What is known of the cluster, and the making of route tables of it; the first loop's own. */
#ifndef AT_GATEWAY_FEED_PRIV_H
#define AT_GATEWAY_FEED_PRIV_H

#include "core/json.h"
#include "gateway/gateway_priv.h"

/* An Instance. */
struct gw_fact {
    char *ns, *deployment; /* "": none */
    bool more;             /* of spec.models: offered beside what traffic is about */
    char *model, *version; /* that it serves; "": by its Deployment */
    char *served_as;       /* the model's name as it knows it; "": as it is asked for */
    char *instance, *site, *node, *addr, *data_class;
    char *peer; /* TLS to its agent at addr; NULL: it is on this machine */
    bool http2;
    bool unsafe; /* it has no address but a plain one on another machine */
    struct gw_standing *standing;
    struct gw_gauge *gauge; /* made when its Deployment first names a limit */
    int64_t created_ns;
    bool serving;
};

/* A Deployment. */
struct gw_offer {
    char *ns, *name, *model, *version;
    char *qualified; /* "namespace/model" */
    bool renames;    /* spec.traffic.model: for all its instances, whatever they say */
    bool versions;
    int64_t created_ns, weight, shadow_percent, requests_max;
    enum gw_affinity affinity;
    char *session_header, *session_cookie;
    struct gw_policy policy;
    int64_t arrived_told, arrived_telling; /* report.c's */
};

/* A Site. */
struct gw_place {
    json_t *links;
    char *jurisdiction;
};

/* loopback: identity of our own. NULL: it serves nothing. */
struct gw_fact *gw_fact_of(const json_t *instance, const char *loopback);
/* The same of another model that it serves too: an item of spec.models. */
struct gw_fact *gw_fact_more(const json_t *instance, const char *loopback, const json_t *model);
/* The key of an item of spec.models of the object with that key. own: caller frees. */
char *gw_key_more(const char *key, const json_t *model);
bool gw_fact_equal(const struct gw_fact *a, const struct gw_fact *b);
void gw_fact_free(struct gw_fact *fact); /* accepts NULL */
int64_t gw_created_ns(const json_t *object);
void gw_place_free(struct gw_place *place); /* accepts NULL */
/* offers.c: what Deployments say of the models that they offer */
void gw_offers_start(struct at_gateway *gateway);
void gw_offers_done(struct at_gateway *gateway);
/* How much is asked of a model ("namespace/name"); made when it is new. */
struct gw_load *gw_offers_load(struct gw_feed *feed, const char *qualified);
void gw_offers_sweep(struct gw_feed *feed); /* loads that nobody knows any more */
struct gw_table *gw_feed_table(struct at_gateway *gateway);

#endif
