/* From a field path back to a line of the text, for messages that point at the place. */
#include "core/mem.h"
#include "core/str.h"
#include "core/yaml.h"

#include <string.h>
#include <yaml.h>

struct finder {
    yaml_parser_t parser;
    size_t best; /* line of the deepest part of the path found so far */
};

/* Next part of a path such as spec.env[2].name or labels["a.b/c"]; false at the end. */
static bool part_next(const char **path, struct at_str *ret, bool *ret_index)
{
    const char *p = *path;
    if (*p == '.') {
        p++;
    }
    if (*p == '\0') {
        return false;
    }
    *ret_index = *p == '[' && p[1] != '"';
    if (*p == '[') {
        const char *close = strchr(p, ']');
        if (close == NULL) {
            return false;
        }
        bool quoted = !*ret_index && close - p >= 3 && close[-1] == '"';
        *ret = quoted ? (struct at_str){p + 2, (size_t)(close - p) - 3}
                      : (struct at_str){p + 1, (size_t)(close - p) - 1};
        *path = close + 1;
        return true;
    }
    *ret = (struct at_str){p, strcspn(p, ".[")};
    *path = p + ret->len;
    return ret->len != 0;
}

static bool next(struct finder *f, yaml_event_t *event)
{
    return yaml_parser_parse(&f->parser, event) == 1;
}

/* Skip what begins with an event of this type. */
static bool skip(struct finder *f, yaml_event_type_t type)
{
    size_t open = type == YAML_MAPPING_START_EVENT || type == YAML_SEQUENCE_START_EVENT ? 1 : 0;
    while (open != 0) {
        yaml_event_t event;
        if (!next(f, &event)) {
            return false;
        }
        type = event.type;
        yaml_event_delete(&event);
        if (type == YAML_MAPPING_START_EVENT || type == YAML_SEQUENCE_START_EVENT) {
            open++;
        } else if (type == YAML_MAPPING_END_EVENT || type == YAML_SEQUENCE_END_EVENT) {
            open--;
        } else if (type == YAML_STREAM_END_EVENT) {
            return false;
        }
    }
    return true;
}

/* Walks down as far as the path leads; each level narrows to one child. */
static void descend(struct finder *f, yaml_event_type_t type, const char *path)
{
    struct at_str part;
    bool is_index;
    while (part_next(&path, &part, &is_index)) {
        bool mapping = type == YAML_MAPPING_START_EVENT;
        uint64_t want = 0;
        if ((!mapping && type != YAML_SEQUENCE_START_EVENT) || mapping == is_index ||
            (is_index && at_str_to_u64(part, &want) != AT_OK)) {
            return;
        }
        for (uint64_t at = 0;; at++) {
            yaml_event_t event;
            if (!next(f, &event)) {
                return;
            }
            yaml_event_type_t item = event.type;
            size_t line = event.start_mark.line + 1;
            bool end = item == YAML_MAPPING_END_EVENT || item == YAML_SEQUENCE_END_EVENT;
            bool hit = mapping ? item == YAML_SCALAR_EVENT &&
                                     at_str_eq(part, "") == (event.data.scalar.length == 0) &&
                                     part.len == event.data.scalar.length &&
                                     memcmp(part.ptr, event.data.scalar.value, part.len) == 0
                               : at == want;
            yaml_event_delete(&event);
            if (end || (mapping && !skip(f, item))) {
                return;
            }
            if (hit) {
                f->best = line;
            }
            if (mapping) {
                if (!next(f, &event)) {
                    return;
                }
                item = event.type;
                yaml_event_delete(&event);
            }
            if (hit) {
                type = item;
                break;
            }
            if (!skip(f, item)) {
                return;
            }
        }
    }
}

size_t at_yaml_find_line(const char *text, size_t len, size_t doc_line, const char *field)
{
    struct finder f = {.best = doc_line};
    if (yaml_parser_initialize(&f.parser) != 1) {
        return doc_line;
    }
    yaml_parser_set_input_string(&f.parser, (const unsigned char *)text, len);
    yaml_event_t event;
    bool at_root = false;
    while (next(&f, &event)) {
        yaml_event_type_t type = event.type;
        size_t line = event.start_mark.line + 1;
        yaml_event_delete(&event);
        if (at_root && line == doc_line) {
            descend(&f, type, field);
            break;
        }
        at_root = type == YAML_DOCUMENT_START_EVENT;
        if (type == YAML_STREAM_END_EVENT) {
            break;
        }
    }
    yaml_parser_delete(&f.parser);
    return f.best;
}
