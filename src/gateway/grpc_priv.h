/* Element types of tensors, for grpc.c and grpc_answer.c. */
#ifndef AT_GATEWAY_GRPC_PRIV_H
#define AT_GATEWAY_GRPC_PRIV_H

#include "gateway/grpc.h"

enum gw_element {
    GW_BOOL,
    GW_UINT,
    GW_INT,
    GW_FLOAT,
    GW_HALF,  /* FP16 and BF16: as bytes only */
    GW_BYTES, /* u32 length and bytes each */
};
struct gw_datatype {
    const char *name;
    enum gw_element element;
    size_t size;       /* of an element; 0: they differ */
    uint32_t contents; /* field of InferTensorContents */
};
const struct gw_datatype *gw_datatype_find(struct at_str name); /* NULL: there is none */

#endif
