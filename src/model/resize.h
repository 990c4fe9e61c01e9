/* What of an Instance may change while it runs: its share of one GPU, and when it is parked. */
#ifndef AT_MODEL_RESIZE_H
#define AT_MODEL_RESIZE_H

#include <jansson.h>

/* Take out of the spec of a workload what may change, so that the rest can be compared. */
void at_model_drop_resizable(json_t *spec);

#endif
