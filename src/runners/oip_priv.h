/* Shared by oip.c and oip_encode.c. */
#ifndef AT_RUNNERS_OIP_PRIV_H
#define AT_RUNNERS_OIP_PRIV_H

#include "runners/oip.h"

#define AT_OIP_SHAPE_TEXT_MAX (AT_OIP_DIMS_MAX * 21 + 3)

/* "[1,64]" into out; returns out. */
const char *at_oip_shape_text(const int64_t *shape, size_t n_dims, char out[AT_OIP_SHAPE_TEXT_MAX]);

#endif
