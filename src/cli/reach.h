/* Instances behind what somebody names, and commands beside them. */
#ifndef AT_CLI_REACH_H
#define AT_CLI_REACH_H

#include "cli/cli_priv.h"

/* --- instances.c --- */
/* NAME (of an instance), KIND/NAME or KIND NAME: one object that is an instance or has some. */
enum at_rc cli_instance_target(const struct cli *cli, const char *const *words, size_t n,
                               struct cli_target *ret, struct at_err *err) AT_WARN_UNUSED;
/* Its instances, one at least. own: caller decrefs. err: AT_NOT_FOUND none. */
enum at_rc cli_instances(struct cli *cli, const struct cli_target *target, json_t **ret,
                         struct at_err *err) AT_WARN_UNUSED;
/* One that runs, a ready one if there is any. own: caller decrefs. err: AT_UNAVAILABLE none runs.
 */
enum at_rc cli_instance_pick(struct cli *cli, const struct cli_target *target, json_t **ret,
                             struct at_err *err) AT_WARN_UNUSED;
/* The fittest of items that belongs to target; NULL: none does. Borrowed. */
json_t *cli_instance_best(const json_t *items, const struct cli_target *target);

/* --- remote.c --- */
struct cli_remote;
struct cli_remote_options {
    const char *const *command;
    size_t n_command;
    int stdin_fd; /* -1: none */
    bool tty;     /* a terminal there, whose size is that of terminal_fd */
    int terminal_fd;
    void *ctx;
    bool (*put)(void *ctx, bool is_err, const char *data, size_t len); /* false: end it */
};
/* Run it to its end. *handle (may be NULL) is for cli_remote_resized while it runs. *ret_exit: the
 * command's exit status. */
enum at_rc cli_remote_run(struct cli *cli, const char *instance,
                          const struct cli_remote_options *options, struct cli_remote **handle,
                          int *ret_exit, struct at_err *err) AT_WARN_UNUSED;
void cli_remote_resized(struct cli_remote *remote);

#endif
