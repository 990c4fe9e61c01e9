/* A stand-in for nvidia-cuda-mps-control: -d makes a daemon of it, without an option it passes the
 * commands on its standard input to that daemon and prints the answers. One server at a time, for
 * the user of its clients, as the real one has it. The stand-in for libcuda says `client PERCENT
 * MIB` here and is told what it gets. `clients` prints them: process, user, percent, MiB. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define CLIENTS_MAX 64
#define NO_LIMIT 0x7fffffffL

static struct {
    long percent, mib; /* defaults, of servers to come */
    long server, server_uid, server_percent, server_mib;
    struct {
        long pid, uid, percent, mib;
    } clients[CLIENTS_MAX];
    int n_clients;
    char pid_path[200];
} m = {.percent = 100, .mib = NO_LIMIT};

static const char *pipe_dir(void)
{
    const char *dir = getenv("CUDA_MPS_PIPE_DIRECTORY");
    return dir != NULL ? dir : "/tmp/nvidia-mps";
}

static struct sockaddr_un address(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%.90s/control", pipe_dir());
    return a;
}

static void forget_dead(void)
{
    int n = 0;
    for (int i = 0; i < m.n_clients; i++) {
        if (kill((pid_t)m.clients[i].pid, 0) == 0 || errno == EPERM) {
            m.clients[n++] = m.clients[i];
        }
    }
    m.n_clients = n;
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
    if (m.server != 0 && kill((pid_t)m.server, 0) != 0) {
        m.server = 0;
    }
}

static void server_end(void)
{
    if (m.server != 0) {
        kill((pid_t)m.server, SIGKILL);
        waitpid((pid_t)m.server, NULL, 0);
    }
    m.server = 0;
}

static void server_start(long uid)
{
    m.server = fork();
    if (m.server == 0) {
        if (getuid() == 0 && setuid((uid_t)uid) != 0) {
            _exit(1);
        }
        for (;;) {
            pause();
        }
    }
    m.server_uid = uid;
    m.server_percent = m.percent;
    m.server_mib = m.mib;
}

static long least(long a, long b)
{
    return a > 0 && a < b ? a : b;
}

static void take_client(FILE *out, const struct ucred *who, long percent, long mib)
{
    forget_dead();
    if (m.server != 0 && m.server_uid != (long)who->uid && m.n_clients > 0) {
        fprintf(out, "queued\n");
        return;
    }
    if (m.server != 0 && m.server_uid != (long)who->uid) {
        server_end();
    }
    if (m.server == 0) {
        server_start((long)who->uid);
    }
    int i = 0;
    while (i < m.n_clients && m.clients[i].pid != who->pid) {
        i++;
    }
    if (i == CLIENTS_MAX) {
        fprintf(out, "full\n");
        return;
    }
    m.n_clients = i == m.n_clients ? i + 1 : m.n_clients;
    m.clients[i].pid = who->pid;
    m.clients[i].uid = (long)who->uid;
    m.clients[i].percent = least(percent, m.server_percent);
    m.clients[i].mib = least(mib, m.server_mib);
    fprintf(out, "ok %ld %ld\n", m.clients[i].percent, m.clients[i].mib);
}

static void print_clients(FILE *out, bool all)
{
    forget_dead();
    for (int i = 0; i < m.n_clients; i++) {
        if (all) {
            fprintf(out, "%ld %ld %ld %ld\n", m.clients[i].pid, m.clients[i].uid,
                    m.clients[i].percent, m.clients[i].mib);
        } else {
            fprintf(out, "%ld\n", m.clients[i].pid);
        }
    }
}

static bool set(const char *line, long *a, long *b)
{
    long value, pid;
    if (sscanf(line, "set_default_active_thread_percentage %ld", a) == 1 ||
        sscanf(line, "set_default_device_pinned_mem_limit 0 %ldM", b) == 1) {
        return true;
    }
    if (sscanf(line, "set_active_thread_percentage %ld %ld", &pid, &value) == 2) {
        m.server_percent = pid == m.server ? value : m.server_percent;
        return true;
    }
    if (sscanf(line, "set_device_pinned_mem_limit %ld 0 %ldM", &pid, &value) == 2) {
        m.server_mib = pid == m.server ? value : m.server_mib;
        return true;
    }
    return false;
}

static void answer(FILE *out, const struct ucred *who, const char *line)
{
    long percent = 0, mib = 0;
    if (sscanf(line, "client %ld %ld", &percent, &mib) == 2) {
        take_client(out, who, percent, mib);
    } else if (set(line, &m.percent, &m.mib)) {
        return;
    } else if (strncmp(line, "get_server_list", 15) == 0) {
        forget_dead();
        if (m.server != 0) {
            fprintf(out, "%ld\n", m.server);
        }
    } else if (strncmp(line, "get_client_list", 15) == 0 || strncmp(line, "clients", 7) == 0) {
        print_clients(out, line[0] == 'c');
    } else if (strncmp(line, "get_default_active_thread_percentage", 36) == 0) {
        fprintf(out, "%ld.0\n", m.percent);
    } else if (strncmp(line, "get_default_device_pinned_mem_limit", 35) == 0) {
        fprintf(out, "%ldM\n", m.mib);
    } else if (strncmp(line, "get_active_thread_percentage", 28) == 0) {
        fprintf(out, "%ld.0\n", m.server_percent);
    } else if (strncmp(line, "quit", 4) == 0) {
        server_end();
        unlink(m.pid_path);
        fclose(out);
        exit(0);
    } else {
        fprintf(out, "Command not found\n");
    }
}

static void serve(int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) {
            continue;
        }
        struct ucred who = {0};
        socklen_t len = sizeof who;
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len);
        FILE *in = fdopen(fd, "r"), *out = fdopen(dup(fd), "w");
        char line[256];
        while (in != NULL && out != NULL && fgets(line, sizeof line, in) != NULL) {
            answer(out, &who, line);
            fflush(out);
        }
        if (in != NULL) {
            fclose(in);
        }
        if (out != NULL) {
            fclose(out);
        }
    }
}

static int become_daemon(void)
{
    struct sockaddr_un a = address();
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(probe, (struct sockaddr *)&a, sizeof a) == 0) {
        fprintf(stderr, "An instance of this daemon is already running\n");
        return 1;
    }
    close(probe);
    unlink(a.sun_path);
    if (bind(listener, (struct sockaddr *)&a, sizeof a) != 0 || listen(listener, 16) != 0 ||
        chmod(a.sun_path, 0777) != 0) {
        fprintf(stderr, "%s: %s\n", a.sun_path, strerror(errno));
        return 1;
    }
    pid_t child = fork();
    if (child != 0) {
        return child > 0 ? 0 : 1;
    }
    setsid();
    signal(SIGPIPE, SIG_IGN);
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++) {
        dup2(null, fd);
    }
    snprintf(m.pid_path, sizeof m.pid_path, "%.150s/nvidia-cuda-mps-control.pid", pipe_dir());
    FILE *file = fopen(m.pid_path, "w");
    if (file == NULL) {
        _exit(1);
    }
    fprintf(file, "%d\n", (int)getpid());
    fclose(file);
    serve(listener);
    return 0;
}

static int pass_on(void)
{
    struct sockaddr_un a = address();
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char text[4096];
    if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
        printf("Cannot find MPS control daemon process\n");
        return 1;
    }
    ssize_t n;
    while ((n = read(0, text, sizeof text)) > 0) {
        if (write(fd, text, (size_t)n) != n) {
            return 1;
        }
    }
    shutdown(fd, SHUT_WR);
    while ((n = read(fd, text, sizeof text)) > 0) {
        fwrite(text, 1, (size_t)n, stdout);
    }
    return 0;
}

int main(int argc, char **argv)
{
    return argc > 1 && strcmp(argv[1], "-d") == 0 ? become_daemon() : pass_on();
}
