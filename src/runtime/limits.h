#ifndef AT_RUNTIME_LIMITS_H
#define AT_RUNTIME_LIMITS_H

#define AT_RUNTIME_PIDS_DEFAULT 4096
#define AT_RUNTIME_UID_BASE 200000
#define AT_RUNTIME_UID_COUNT 100000
#define AT_RUNTIME_IMAGE_TIMEOUT_NS (INT64_C(600) * 1000000000)  /* pull and unpack */
#define AT_RUNTIME_COMMAND_TIMEOUT_NS (INT64_C(20) * 1000000000) /* runc delete and the like */
#define AT_RUNTIME_START_TIMEOUT_NS (INT64_C(30) * 1000000000)   /* runc until its container runs */
#define AT_RUNTIME_CONFIG_BYTES_MAX ((size_t)1 << 20)

#endif
