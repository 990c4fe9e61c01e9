/* The few mounts that containers need. All need root. */
#ifndef AT_SYS_MOUNT_H
#define AT_SYS_MOUNT_H

#include "core/err.h"

/* Show lower (read-only) with changes kept in upper; work is an empty folder beside upper. */
enum at_rc at_mount_overlay(const char *lower, const char *upper, const char *work,
                            const char *target, struct at_err *err) AT_WARN_UNUSED;
/* Detach whatever is mounted on target; nothing there is no error. */
enum at_rc at_unmount(const char *target, struct at_err *err) AT_WARN_UNUSED;

#endif
