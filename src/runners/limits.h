/* Named limits of the model servers. */
#ifndef AT_RUNNERS_LIMITS_H
#define AT_RUNNERS_LIMITS_H

#include <stddef.h>
#include <stdint.h>

#define AT_RUNNER_BODY_BYTES_MAX ((size_t)64 << 20)
#define AT_RUNNER_ARENA_BYTES_MAX ((size_t)512 << 20) /* one request with its answer's buffers */
#define AT_RUNNER_CONNECTIONS_MAX 4096
#define AT_RUNNER_QUEUE_MAX 1024 /* requests waiting for a worker; 503 past it */
#define AT_RUNNER_THREADS_MAX 256
#define AT_RUNNER_DRAIN_NS ((int64_t)5000000000)

#define AT_OIP_DIMS_MAX 8
#define AT_OIP_TENSORS_MAX 64 /* inputs, and outputs, of one model */
#define AT_OIP_ELEMENTS_MAX ((int64_t)64 << 20)
#define AT_OIP_ID_BYTES_MAX 1024

#endif
