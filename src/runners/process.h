/* What the runners have in common as processes: options, exit statuses, the engine's library,
 * words, and their end by a signal. */
#ifndef AT_RUNNERS_PROCESS_H
#define AT_RUNNERS_PROCESS_H

#include "core/err.h"
#include "loop/loop.h"

/* sysexits(3), so that whoever starts a runner can tell a bad model from a bad machine. */
enum runner_status {
    RUNNER_USAGE = 2,
    RUNNER_BAD_MODEL = 65,
    RUNNER_NO_MODEL = 66,
    RUNNER_NO_LIBRARY = 69,
    RUNNER_ENGINE = 70,
    RUNNER_OS = 71,
    RUNNER_NO_MEMORY = 75
};

struct runner_option {
    const char *name; /* "--model" */
    const char **value;
};
/* argv[1..] into the options' values: "--name value" or "--name=value"; rows[0] is needed. Values
 * borrow from argv. err: AT_BAD_REQUEST. */
enum at_rc runner_options(int argc, char **argv, const struct runner_option *rows, size_t n,
                          struct at_err *err) AT_WARN_UNUSED;

/* Where an engine's library is. */
struct runner_library {
    const char *variable; /* names it, whatever else there is */
    const char *name; /* file or folder: beside the executable, in ../lib/atoll, /usr/lib/atoll */
    const char *third_party;            /* the same below third_party/ of a source tree */
    char *(*try_take)(char *path_take); /* what is to be used when the library is there, or NULL */
};
char *runner_library_find(const struct runner_library *library); /* own: caller; NULL: nowhere */

char *runner_model_name(const char *path); /* "models/digits.onnx" is "digits". own: caller */

/* One line about kind to stderr, then advice. Returns status. */
int runner_say(const char *kind, int status, const struct at_err *err, const char *advice);
void runner_say_ready(const char *addr); /* the line that whoever started it waits for */

/* Engines are C++, and what they throw cannot be caught in C: it ends the process. on_end is called
 * then instead of abort, on the thread that threw, and calls runner_engine_threw. To be called when
 * the engine's library is loaded. */
void runner_on_throw(void (*on_end)(void));
/* Say what was thrown and what helps, in one line, and end the process: RUNNER_NO_MEMORY when it
 * was for want of memory, else RUNNER_ENGINE. */
_Noreturn void runner_engine_threw(const char *kind, const char *less);

/* First signal: finish what is in flight, for a while. Second: end at once. */
struct runner_process {
    struct at_loop *loop;
    void (*drain)(void *service, at_post_fn *done, void *ctx);
    void *service;
    bool stopping;
};
enum at_rc runner_process_signals(struct runner_process *p, struct at_err *err) AT_WARN_UNUSED;

#endif
