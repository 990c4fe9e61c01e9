/* What a model file says of itself: inputs and outputs of ONNX, the description of GGUF. Only as
 * much of the file is read as that takes; weights are passed over. */
#ifndef AT_PACKAGE_DESCRIBE_H
#define AT_PACKAGE_DESCRIBE_H

#include "core/json.h"

/* Bytes of a file, or of memory (for tests); read through a small window. */
struct at_pkg_source {
    const char *data; /* NULL: of fd */
    int fd;
    int64_t bytes;
    char window[8192];
    int64_t window_at;
    size_t window_len;
};

/* out: {"inputs":[{"name","datatype","shape"}],"outputs":[...],"producer","opset","externalData":
 *      [paths]}; datatype as the Open Inference Protocol writes it, -1 for free dimensions
 * err: AT_CORRUPT it is no ONNX model, or cut off; AT_UNSUPPORTED an input that is no tensor
 * own: caller decrefs */
enum at_rc at_pkg_describe_onnx(struct at_pkg_source *source, json_t **ret,
                                struct at_err *err) AT_WARN_UNUSED;
/* out: {"architecture","name","contextTokens","quantization","parameters","inputs","outputs"} */
enum at_rc at_pkg_describe_gguf(struct at_pkg_source *source, json_t **ret,
                                struct at_err *err) AT_WARN_UNUSED;
/* By the first bytes, then the name: "onnx", "gguf" or "other". */
const char *at_pkg_format_of(const char *path, struct at_pkg_source *source);

/* Copy len bytes at offset. err: AT_CORRUPT past the end. */
enum at_rc at_pkg_source_read(struct at_pkg_source *source, int64_t offset, void *out, size_t len,
                              struct at_err *err) AT_WARN_UNUSED;

#endif
