/* Named limits of the model servers. */
#ifndef AT_RUNNERS_LIMITS_H
#define AT_RUNNERS_LIMITS_H

#include <stddef.h>
#include <stdint.h>

#define AT_RUNNER_BODY_BYTES_MAX ((size_t)64 << 20)
#define AT_RUNNER_ARENA_BYTES_MAX ((size_t)512 << 20) /* one request with its answer's buffers */
#define AT_RUNNER_CONNECTIONS_MAX 4096
#define AT_RUNNER_MODELS_MAX 64     /* in one process, beside the first */
#define AT_RUNNER_QUEUE_MAX 1024    /* requests waiting for a worker; 503 past it */
#define AT_RUNNER_QUEUE_LIMIT 65536 /* the most that it may be set to */
#define AT_RUNNER_WAIT_NS_MAX ((int64_t)3600 * 1000000000)
#define AT_RUNNER_THREADS_MAX 256
#define AT_RUNNER_DRAIN_NS ((int64_t)5000000000)

#define AT_OIP_DIMS_MAX 8
#define AT_OIP_TENSORS_MAX 64 /* inputs, and outputs, of one model */
#define AT_OIP_ELEMENTS_MAX ((int64_t)64 << 20)
#define AT_OIP_ID_BYTES_MAX 1024
#define AT_OIP_PROPERTIES_MAX 64
#define AT_OIP_PROPERTY_BYTES_MAX 4096

#define AT_BATCH_ROWS_MAX 4096
#define AT_BATCH_ROWS_DEFAULT 32
#define AT_BATCH_PREFERRED_MAX 16
#define AT_BATCH_LEVELS_MAX 16
#define AT_BATCH_HEADS_MAX 16 /* kinds of shapes that are looked at for one batch */
#define AT_BATCH_FILE_BYTES_MAX ((size_t)64 << 10) /* settings beside a model */

#define AT_LLM_SEQUENCES_MAX 200
#define AT_LLM_STEP_TOKENS_MAX 65536
#define AT_LLM_CONTEXT_TOKENS_MAX ((size_t)16 << 20)
#define AT_LLM_CELLS_DEFAULT 8192 /* of the cache, where the model's context is not smaller */
#define AT_LLM_SEQUENCES_DEFAULT 16
#define AT_LLM_STEP_TOKENS_DEFAULT 512
#define AT_LLM_EMBED_TOKENS_MAX 4096 /* of one text */
#define AT_LLM_LOGPROBS_MAX 20
#define AT_LLM_STOPS_MAX 16
#define AT_LLM_STOP_BYTES_MAX 256
#define AT_LLM_CHOICES_MAX 32 /* answers to one request */
#define AT_LLM_BIAS_MAX 1024
#define AT_LLM_EMBED_TEXTS_MAX 2048
#define AT_LLM_MESSAGES_MAX 4096
#define AT_LLM_BODY_BYTES_MAX ((size_t)16 << 20)
#define AT_GGUF_HEAD_BYTES_FIRST ((size_t)1 << 20)
#define AT_GGUF_HEAD_BYTES_MAX ((size_t)64 << 20)
#define AT_GGUF_TAIL_BYTES_MAX ((size_t)1 << 20) /* that no tensor has, behind the last */
#define AT_GGUF_ENTRIES_MAX 1000000
#define AT_LLM_KEPT_MAX 32    /* prefixes of finished sequences */
#define AT_LLM_PREFIX_MIN 4   /* tokens; shorter prefixes are not worth sharing */
#define AT_LLM_PREFIX_WAIT 32 /* so much more is worth waiting for, while another computes it */
#define AT_LLM_GAP_STEPS 4    /* so long a slot among running ones waits for one that comes */
/* A cache with a part for each sequence: all of it, and its share of the memory of its group. */
#define AT_LLM_SPLIT_BYTES_MAX ((uint64_t)64 << 20)
#define AT_LLM_SPLIT_SHARE 8
#define AT_LLM_SCORES_BYTES_MAX ((uint64_t)64 << 20) /* of a step's attention, computed at once */
#define AT_LLM_COPY_BYTES_MAX ((size_t)1 << 30)      /* a longer prefix is computed again */
#define AT_LLM_SPLIT_TOKENS_MIN 256                  /* less for each: all share them */
#define AT_LLM_TRIES_MAX 64 /* clients tried in one step that cannot be admitted yet */

#endif
