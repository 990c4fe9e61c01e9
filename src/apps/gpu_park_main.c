/* `atoll gpu-park park|unpark LOCK PID...`: what an agent has done to an instance's processes, in a
 * process of its own, as it means talking to a GPU's driver for long, and a driver may hang or
 * fall. LOCK is a file: who comes while another is at it waits for its turn. Exit status: enum
 * at_gpu_park_end; what to say of it goes to standard output. */
#include "apps/apps.h"

#include "core/mem.h"
#include "core/units.h"
#include "devices/park.h"
#include "sys/entry.h"
#include "sys/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOCK_TRIES 6000
#define LOCK_PAUSE_NS (100 * AT_NS_PER_MS)

/* Held until this process ends. */
static bool wait_for(const char *lock)
{
    struct at_err err = {0};
    int fd;
    enum at_rc rc = AT_CONFLICT;
    for (int n = 0; n < LOCK_TRIES && rc == AT_CONFLICT; n++) {
        rc = at_file_lock(lock, &fd, &err);
        if (rc == AT_CONFLICT) {
            at_sleep_ns(LOCK_PAUSE_NS);
        }
    }
    if (rc != AT_OK) {
        puts(err.msg);
    }
    return rc == AT_OK;
}

int at_app_gpu_park(int argc, char **argv)
{
    static pid_t pids[AT_GPU_PARK_PIDS_MAX];
    size_t n = 0;
    bool park = argc > 0 && strcmp(argv[0], "park") == 0;
    if (argc < 3 || (!park && strcmp(argv[0], "unpark") != 0)) {
        fputs("atoll gpu-park: agents use it, as atoll gpu-park park|unpark LOCK PID...\n", stderr);
        return at_rc_exit_status(AT_BAD_REQUEST);
    }
    for (int i = 2; i < argc && n < AT_GPU_PARK_PIDS_MAX; i++) {
        char *end;
        long pid = strtol(argv[i], &end, 10);
        if (*end != '\0' || pid <= 0 || pid > INT32_MAX) {
            fprintf(stderr, "atoll gpu-park: %s is no process\n", argv[i]);
            return at_rc_exit_status(AT_BAD_REQUEST);
        }
        pids[n++] = (pid_t)pid;
    }
    if (!wait_for(argv[1])) {
        return AT_GPU_PARK_REFUSED;
    }
    struct at_err why = {0};
    enum at_gpu_park_end end =
        park ? at_gpu_park(NULL, pids, n, &why) : at_gpu_unpark(NULL, pids, n, &why);
    puts(why.msg);
    return (int)end;
}
