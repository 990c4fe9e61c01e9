/* Kubernetes messages in protobuf, as tables. */
#ifndef AT_API_PROTOBUF_H
#define AT_API_PROTOBUF_H

enum pb_type {
    PB_STRING,
    PB_BYTES, /* base64 in JSON */
    PB_INT,
    PB_BOOL,
    PB_MESSAGE,
    PB_STRINGS,      /* repeated string */
    PB_MESSAGES,     /* repeated message */
    PB_MAP,          /* string to string */
    PB_MAP_BYTES,    /* string to bytes */
    PB_MAP_QUANTITY, /* string to Quantity */
};

struct pb_field {
    unsigned number;
    const char *name;
    enum pb_type type;
    const struct pb_field *sub;
};

/* Fields of a kind's message, ended by number 0; NULL: the kind is not known. */
const struct pb_field *api_pb_message(const char *kind);

#endif
