#include "apps/apps.h"
#include "core/json.h"
#include "core/mem.h"
#include "runners/llm.h"
#include "runners/onnx.h"
#include "sys/sys.h"

#include <stdio.h>
#include <string.h>

static int app_runner(int argc, char **argv)
{
    if (argc >= 1 && strcmp(argv[0], "onnx") == 0) {
        return at_runner_onnx_main(at_sys_real(), argc, argv);
    }
    if (argc >= 1 && strcmp(argv[0], "llm") == 0) {
        return at_runner_llm_main(at_sys_real(), argc, argv);
    }
    bool help = argc > 0 && strcmp(argv[0], "--help") == 0;
    fputs("atoll runner: say which: atoll runner onnx --model FILE --listen ADDR, or atoll runner "
          "llm "
          "--model FILE --listen ADDR\n",
          help ? stdout : stderr);
    return help ? 0 : at_rc_exit_status(AT_BAD_REQUEST);
}

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} ROLES[] = {
    {"server", at_app_server},     {"agent", at_app_agent}, {"gateway", at_app_gateway},
    {"dev", at_app_dev},           {"runner", app_runner},  {"store", at_app_store},
    {"restore", at_app_restore},   {"sim", at_app_sim},     {"audit", at_app_audit},
    {"gpu-park", at_app_gpu_park},
};

int main(int argc, char **argv)
{
    json_set_alloc_funcs(at_json_alloc, at_json_free);
    for (size_t i = 0; argc > 1 && i < AT_ARRAY_LEN(ROLES); i++) {
        if (strcmp(argv[1], ROLES[i].name) == 0) {
            return ROLES[i].run(argc - 2, argv + 2);
        }
    }
    return at_app_cli(argc, argv);
}
