/* For tests that turn a loop: on which back end. */
#ifndef AT_LOOP_KIT_TEST_H
#define AT_LOOP_KIT_TEST_H

#include "loop/loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* By the back end that $ATOLL_TEST_LOOP names: meson.build runs the tests once with each. Skips
 * the test where the kernel has no io_uring. */
static inline struct at_loop *kit_loop(void)
{
    const char *name = at_sys_getenv("ATOLL_TEST_LOOP");
    enum at_loop_backend backend = AT_LOOP_EPOLL;
    struct at_loop *loop = NULL;
    struct at_err err;
    if (name != NULL) {
        assert_int_equal(at_loop_backend_parse(name, &backend, &err), AT_OK);
    }
    if (at_loop_new_on(at_sys_real(), backend, &loop, &err) != AT_OK) {
        print_message("%s\n", err.msg);
        skip();
    }
    return loop;
}

#endif
