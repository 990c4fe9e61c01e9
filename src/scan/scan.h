/* Rules about what is declared: is it as safe as it can be? The same for files on the command line,
 * for live objects and for requests to the server. Pure: objects, a picture of what else there is,
 * and the time go in, findings come out. */
#ifndef AT_SCAN_SCAN_H
#define AT_SCAN_SCAN_H

#include "core/arena.h"
#include "core/json.h"
#include "scan/limits.h"

enum at_scan_severity { AT_SCAN_LOW, AT_SCAN_MEDIUM, AT_SCAN_HIGH, AT_SCAN_CRITICAL };
#define AT_SCAN_SEVERITIES 4
const char *at_scan_severity_name(enum at_scan_severity severity); /* "low" */
bool at_scan_severity_parse(const char *text, enum at_scan_severity *ret);

struct at_scan_rule {
    const char *name; /* "image-without-digest": stable, annotations and pipelines name it */
    const char *group;
    enum at_scan_severity severity; /* a finding may be of another one */
    const char *title;
    const char *why;
    const char *mend;
};
const struct at_scan_rule *at_scan_rules(size_t *ret_count);
const struct at_scan_rule *at_scan_rule_find(const char *name); /* NULL: no such rule */

/* An annotation of the object, or of the template of its copies: prefix, name of a rule, and as its
 * value the reason. Without a reason it does nothing. */
#define AT_SCAN_IGNORE "scan.atoll.dev/ignore-"

struct at_scan_finding {
    const struct at_scan_rule *rule;
    enum at_scan_severity severity;
    const json_t *object; /* borrowed: as it was given */
    const char *field;    /* path within it: "spec.template.spec.env[2].value" */
    const char *message;  /* what is there, without any secret itself */
    const char *ignored;  /* the reason; NULL: it counts */
};

/* What else there is, as far as it is known: gathered from all objects first. */
struct at_scan_world;
struct at_scan_world *at_scan_world_new(void);
void at_scan_world_free(struct at_scan_world *world); /* accepts NULL */
/* Policies, quotas, network policies; the others are of no interest. Lists are looked into. */
void at_scan_world_add(struct at_scan_world *world, const json_t *object);
void at_scan_world_class(struct at_scan_world *world, const char *data_class);

struct at_scan_input {
    const json_t *object;              /* of any kind; a List's items are looked at each */
    const struct at_scan_world *world; /* NULL: nothing is known, so rules about it are silent */
    int64_t now_wall_ns;
    bool from_file; /* it is kept in a file: rules about what files should not hold count */
};

struct at_scan_result {
    struct at_arena *arena; /* own: at_scan_result_done */
    struct at_scan_finding *items;
    size_t n, room;
    size_t objects; /* that some rule knows */
    bool cut;       /* there were more */
};
void at_scan_result_init(struct at_scan_result *result);
void at_scan_result_done(struct at_scan_result *result);
/* Findings of one object appended, in the order of rules and fields.
 * in: input->object outlives the result. */
void at_scan_object(const struct at_scan_input *input, struct at_scan_result *result);
/* Severe ones first, then by object and field as they were found. */
void at_scan_sort(struct at_scan_result *result);
/* Findings of this severity and above that are not ignored. */
size_t at_scan_count(const struct at_scan_result *result, enum at_scan_severity least);

#endif
