/* How the stand-in for libcuda meets the one for nvidia-cuda-mps-control. */
#include "interpose/standin/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int64_t standin_mps_join(void)
{
    const char *dir = getenv("CUDA_MPS_PIPE_DIRECTORY");
    const char *percent = getenv("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE");
    const char *limit = getenv("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT");
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    char text[64];
    long mib = 0, given = 0;
    snprintf(a.sun_path, sizeof a.sun_path, "%.90s/control", dir != NULL ? dir : "/tmp/nvidia-mps");
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
        close(fd);
        return 0; /* as without MPS */
    }
    if (limit != NULL) {
        sscanf(limit, "0=%ldM", &mib);
    }
    int len = snprintf(text, sizeof text, "client %ld %ld\n",
                       percent != NULL ? strtol(percent, NULL, 10) : 0L, mib);
    ssize_t n = write(fd, text, (size_t)len) == len ? read(fd, text, sizeof text - 1) : -1;
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    return sscanf(text, "ok %*d %ld", &given) == 1 ? (int64_t)given << 20 : -1;
}
