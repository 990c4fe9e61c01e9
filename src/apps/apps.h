/* The roles of the one binary. Each takes the arguments after its name and returns the exit status.
 */
#ifndef AT_APPS_APPS_H
#define AT_APPS_APPS_H

#include "loop/loop.h"

int at_app_server(int argc, char **argv);
int at_app_agent(int argc, char **argv);
int at_app_gateway(int argc, char **argv);
int at_app_dev(int argc, char **argv);
int at_app_sim(int argc, char **argv); /* simulations: sim place */
int at_app_store(int argc, char **argv);
int at_app_restore(int argc, char **argv);
int at_app_audit(int argc, char **argv);    /* audit verify */
int at_app_gpu_park(int argc, char **argv); /* by an agent; no verb for people */
int at_app_cli(int argc, char **argv);      /* every other verb */

/* --- what the roles share --- */

/* One option of a role: --name VALUE or --name=VALUE; flags take none. The row without a name ends
 * them; its help are examples, a line each, if there are any. */
struct at_app_option {
    const char *name;
    const char **value; /* NULL for a flag or a list */
    bool *flag;
    const char **list; /* NULL-terminated array of AT_APP_LIST_MAX + 1 */
    const char *metavar;
    const char *help;
};
#define AT_APP_LIST_MAX 32
/* How a machine joins: as it was written, and what at_app_join_read makes of it. */
struct at_app_join {
    const char *servers[AT_APP_LIST_MAX + 1], *token, *token_file, *state_dir;
    char *server, *secret, *dir; /* "a,b"; the token; the folder. NULL: none given; dir: never */
};
/* The rows for it; agents and gateways have the same. */
#define AT_APP_JOIN_OPTIONS(join, ca_pin)                                                          \
    {"server", NULL,                                                                               \
     NULL,     (join)->servers,                                                                    \
     "URL",    "Control plane, https://host:port. Repeat for each server; more are learned."},     \
        {"token",                                                                                  \
         &(join)->token,                                                                           \
         NULL,                                                                                     \
         NULL,                                                                                     \
         "TOKEN",                                                                                  \
         "Join token; needed the first time only. Others can see it: --token-file is safer."},     \
        {"token-file", &(join)->token_file, NULL, NULL, "FILE", "File with the join token."},      \
    {                                                                                              \
        "ca-pin", (ca_pin), NULL, NULL, "PIN",                                                     \
            "sha256:<hex> of the control plane's CA; printed with the token."                      \
    }
/* Parse; `--help` prints usage and returns false with *ret_exit 0, an error prints it and sets 2.
 */
bool at_app_options(const char *role, const char *summary, const struct at_app_option *options,
                    int argc, char **argv, int *ret_exit);
/* Duration option with a default; prints and returns false when malformed. */
bool at_app_duration(const char *option, const char *text, int64_t default_ns, int64_t *ret_ns);
/* Structured log to standard error: text on a terminal, JSON lines otherwise; level from
 * $ATOLL_LOG. */
void at_app_log_start(const char *component);
/* Print "atoll <role>: <message>" and return the exit status. */
int at_app_fail(const char *role, const struct at_err *err);
/* The one line on standard output that tells that the role serves. */
void at_app_ready(const char *fmt, ...) AT_PRINTF(1, 2);
/* SIGINT and SIGTERM call fn; SIGPIPE is ignored. */
enum at_rc at_app_on_stop(struct at_loop *loop, at_signal_fn *fn, void *ctx,
                          struct at_err *err) AT_WARN_UNUSED;
/* fn when standard input reaches its end: the parent that held the other end of the pipe is gone.
 */
void at_app_on_stdin_eof(struct at_loop *loop, at_signal_fn *fn, void *ctx);
/* What a role's on_ready does first: true when it serves; else the error is kept and the loop ends.
 */
bool at_app_began(struct at_loop *loop, enum at_rc rc, const struct at_err *err,
                  struct at_err *ret_err);
void at_app_stopped(void *loop); /* a callback: the loop ends */
/* The token is the first line of its file where one is named. own: at_app_join_done, also after an
 * error. */
enum at_rc at_app_join_read(const char *role, struct at_app_join *join,
                            struct at_err *err) AT_WARN_UNUSED;
void at_app_join_done(struct at_app_join *join);
/* Default state folder of a role: $ATOLL_STATE/<role>, else /var/lib/atoll/<role> as root, else
 * ~/.local/state/atoll/<role>. own:
 * at_free. */
char *at_app_state_dir(const char *role);

#endif
