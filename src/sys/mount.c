#include "sys/mount.h"

#include "core/mem.h"

#include <errno.h>
#include <string.h>
#include <sys/mount.h>

enum at_rc at_mount_overlay(const char *lower, const char *upper, const char *work,
                            const char *target, struct at_err *err)
{
    if (strpbrk(lower, ",:") != NULL || strpbrk(upper, ",") != NULL) {
        return at_err_set(err, AT_UNSUPPORTED, "overlay paths may not hold ',' or ':'");
    }
    AT_CLEANUP(at_cleanup_free)
    char *options = at_asprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work);
    if (mount("overlay", target, "overlay", MS_NODEV | MS_NOSUID, options) != 0) {
        return at_err_set_errno(err, errno, "cannot mount an overlay on %s", target);
    }
    return AT_OK;
}

enum at_rc at_unmount(const char *target, struct at_err *err)
{
    if (umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW) != 0 && errno != EINVAL && errno != ENOENT) {
        return at_err_set_errno(err, errno, "cannot unmount %s", target);
    }
    return AT_OK;
}
