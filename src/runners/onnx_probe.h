/* Is a model one that may be batched? Asked of its declaration, then of the model itself. */
#ifndef AT_RUNNERS_ONNX_PROBE_H
#define AT_RUNNERS_ONNX_PROBE_H

#include "runners/ort.h"

/* Do all inputs and outputs have a first dimension that is dynamic? why (at least 160 bytes) says
 * which has not. */
bool at_onnx_declares_batches(const struct at_oip_spec *spec, char *why, size_t why_len);

enum at_onnx_verdict {
    AT_ONNX_ROWS_INDEPENDENT, /* two rows together gave what they give alone */
    AT_ONNX_ROWS_MIX,         /* they did not: batching would spoil answers */
    AT_ONNX_UNKNOWN,          /* the model refuses made-up input */
};
/* Run made-up rows alone and together. cost: three runs or a few more. */
enum at_onnx_verdict at_onnx_probe(struct at_ort_lane *lane, const struct at_oip_spec *spec);
/* One run with so many made-up rows (as declared, when the first dimension is fixed); false: the
 * model refuses made-up input. */
bool at_onnx_warm_up(struct at_ort_lane *lane, const struct at_oip_spec *spec, size_t rows);

#endif
