/* What the reader, the writer and the line finder of YAML share. */
#ifndef AT_CORE_YAML_PRIV_H
#define AT_CORE_YAML_PRIV_H

#include "core/json.h"

/* What a plain scalar is in the core schema of YAML 1.2 (sections 10.2.1 and 10.3.2). */
enum at_yaml_plain {
    AT_YAML_PLAIN_STRING,
    AT_YAML_PLAIN_NULL,
    AT_YAML_PLAIN_TRUE,
    AT_YAML_PLAIN_FALSE,
    AT_YAML_PLAIN_INT,
    AT_YAML_PLAIN_REAL,
    AT_YAML_PLAIN_NOT_FINITE, /* .inf and .nan, which JSON has not */
};

enum at_yaml_plain at_yaml_plain_kind(const char *s, size_t len);

#endif
