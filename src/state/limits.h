/* Named limits of state. */
#ifndef AT_STATE_LIMITS_H
#define AT_STATE_LIMITS_H

#include "core/units.h"

/* Memory of one decoded object. */
#define AT_STATE_OBJECT_BYTES_MAX ((size_t)8 << 20)
/* Changes that are collected before they are brought into a kind's list, when nobody looks at it.
 */
#define AT_STATE_EDITS_MAX 1024
/* Objects that a walk over a kind decodes at a time. */
#define AT_STATE_EACH_PAGE 128
/* Equal Events within this time are counted up in one object. */
#define AT_STATE_EVENT_SAME_NS (600 * AT_NS_PER_S)
/* Events are deleted when they are this old, looked for in small steps. */
#define AT_STATE_EVENT_TTL_NS (3600 * AT_NS_PER_S)
#define AT_STATE_REPORT_TTL_NS (600 * AT_NS_PER_S) /* of a gateway that reports no more */
#define AT_STATE_EVENT_SWEEP_NS (60 * AT_NS_PER_S)
#define AT_STATE_EVENT_SWEEP_MAX 256
/* A write that a quota let through on a shared store, and how long one waits for those before it.
 */
#define AT_STATE_QUOTA_PASS_TTL_S 60
#define AT_STATE_QUOTA_LOOK_NS (10 * AT_NS_PER_MS)
#define AT_STATE_QUOTA_LOOKS_MAX 50
/* Events being written at one time; more are dropped. */
#define AT_STATE_EVENTS_IN_FLIGHT_MAX 4096
#define AT_STATE_EVENT_MESSAGE_BYTES_MAX 1024

#endif
