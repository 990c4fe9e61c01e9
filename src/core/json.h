/* JSON values are jansson's json_t; these are the few things that jansson does not give. */
#ifndef AT_CORE_JSON_H
#define AT_CORE_JSON_H

#include "core/buf.h"

#include <jansson.h>

#define AT_JSON_DEPTH_MAX 64
#define AT_JSON_BYTES_MAX ((size_t)16 << 20)

/* Parse exactly one value; refuses duplicate keys, trailing text, NUL in keys, depth over
 * AT_JSON_DEPTH_MAX. err: AT_BAD_REQUEST with line and column in the message. own: caller
 * json_decref. */
enum at_rc at_json_parse(const char *text, size_t len, json_t **ret,
                         struct at_err *err) AT_WARN_UNUSED;
/* As at_json_parse, but of keys named twice the last one counts. */
enum at_rc at_json_parse_last(const char *text, size_t len, json_t **ret,
                              struct at_err *err) AT_WARN_UNUSED;
/* Compact text appended to buf, keys in their stored order. err: AT_TOO_LARGE. */
enum at_rc at_json_dump(const json_t *value, struct at_buf *buf) AT_WARN_UNUSED;
/* As dump, indented by two for people. */
enum at_rc at_json_dump_pretty(const json_t *value, struct at_buf *buf) AT_WARN_UNUSED;
/* Compact text appended to buf, keys sorted, to the byte as json_dumps writes it: labels of stored
 * objects are hashes of it. err: AT_TOO_LARGE, AT_INVALID no such text. */
enum at_rc at_json_dump_sorted(const json_t *value, struct at_buf *buf) AT_WARN_UNUSED;

/* One JSON string with its quotes; bytes that are no UTF-8 become U+FFFD. */
enum at_rc at_json_dump_text(const char *s, size_t len, struct at_buf *buf) AT_WARN_UNUSED;
/* Levels of nesting (0 for a scalar); adds the number of values to *nodes. */
size_t at_json_measure(const json_t *value, size_t *nodes);

/* Value at a dotted path of object keys ("spec.model.name"), NULL when absent. Borrowed. */
json_t *at_json_at(const json_t *root, const char *path);
const char *at_json_str_at(const json_t *root, const char *path, const char *otherwise);
int64_t at_json_int_at(const json_t *root, const char *path, int64_t otherwise);
bool at_json_bool_at(const json_t *root, const char *path, bool otherwise);
/* Set the value at a dotted path, making objects on the way; takes value (steals the reference),
 * NULL deletes. */
void at_json_set_at(json_t *root, const char *path, json_t *value_take);

/* RFC 7386: apply patch to target in place and return the result (target itself, or a new value
 * when patch is no object). own: caller decrefs the result; target's reference is taken. */
json_t *at_json_merge_patch(json_t *target_take, const json_t *patch);
/* RFC 6902 on a copy. err: AT_BAD_REQUEST malformed, AT_INVALID a test or a path failed. own:
 * caller decrefs. */
enum at_rc at_json_patch(const json_t *target, const json_t *ops, json_t **ret,
                         struct at_err *err) AT_WARN_UNUSED;

/* For json_set_alloc_funcs, once, before anything is made. As malloc and free, but a thread that
 * said so keeps small blocks that it frees for what it makes next: at most 2 MiB, until it says the
 * opposite, which it does before it ends. So what json_dumps gives is no block of malloc's:
 * tools/check-layers refuses it, and at_json_dump_sorted stands in for it. */
void *at_json_alloc(size_t bytes);
void at_json_free(void *p); /* accepts NULL */
void at_json_keep(bool on); /* this thread */

static inline void at_cleanup_json(json_t **value)
{
    json_decref(*value);
}

#endif
