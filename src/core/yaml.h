/* YAML documents to JSON values, by libyaml's events. YAML 1.2 core schema for plain scalars
 * (true/false/null, ints, floats); anchors and aliases allowed with an expansion limit; merge keys
 * (<<) honoured; duplicate keys refused. */
#ifndef AT_CORE_YAML_H
#define AT_CORE_YAML_H

#include "core/json.h"

#define AT_YAML_DOCS_MAX 1000
#define AT_YAML_NODES_MAX 1000000

struct at_yaml_doc {
    json_t *value; /* never NULL; empty documents are left out */
    size_t line;   /* 1-based line where the document begins */
};

/* All documents of text (JSON input is YAML too). On success *ret_docs has *ret_count items.
 * err: AT_BAD_REQUEST with "line L, column C"; nothing is returned then.
 * own: caller frees with at_yaml_docs_free. */
enum at_rc at_yaml_parse(const char *text, size_t len, struct at_yaml_doc **ret_docs,
                         size_t *ret_count, struct at_err *err) AT_WARN_UNUSED;
void at_yaml_docs_free(struct at_yaml_doc *docs, size_t count);
/* The line where a field stands ("spec.env[2].name", "labels[\"a.b/c\"]") in the document that
 * begins at doc_line; the line of the deepest part that exists, at least doc_line. For messages. */
size_t at_yaml_find_line(const char *text, size_t len, size_t doc_line, const char *field);
/* Block-style YAML of a JSON value, appended to buf; strings are quoted where plain would change
 * their type. */
enum at_rc at_yaml_dump(const json_t *value, struct at_buf *buf) AT_WARN_UNUSED;

#endif
