/* Until an object is what somebody waits for. */
#ifndef AT_CLI_WAITING_H
#define AT_CLI_WAITING_H

#include "cli/cli_priv.h"

struct cli_condition {
    enum { CLI_UNTIL_DELETED, CLI_UNTIL_CREATED, CLI_UNTIL_CONDITION, CLI_UNTIL_JSONPATH } what;
    const char *type, *status; /* condition */
    const char *path, *value;  /* jsonpath; value NULL: anything but empty */
    const char *uid;           /* deleted: this object, not a later one of its name; may be NULL */
};
enum at_rc cli_condition_parse(const struct cli *cli, const char *text, struct cli_condition *ret,
                               struct at_err *err) AT_WARN_UNUSED;
/* Does object (NULL: absent) meet it? why: what it is instead, for people. */
bool cli_condition_met(const struct cli_condition *condition, const json_t *object, char *why,
                       size_t why_size);
/* err: AT_TIMEOUT; AT_NOT_FOUND it is not there, or vanished, while something else is waited for.
 */
enum at_rc cli_wait_until(struct cli *cli, const struct at_model_kind *kind, const char *ns,
                          const char *name, const struct cli_condition *condition,
                          int64_t deadline_mono_ns, struct at_err *err) AT_WARN_UNUSED;

#endif
