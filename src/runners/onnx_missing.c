/* Stands in for the ONNX runner in builds without ONNX Runtime's header. */
#include "runners/onnx.h"
#include "runners/process.h"

#include <stdio.h>

int at_runner_onnx_main(const struct at_sys *sys, int argc, char **argv)
{
    (void)sys, (void)argc, (void)argv;
    fputs("atoll runner onnx: this build has no ONNX runner; run `make`, which fetches what it "
          "needs, and build again\n",
          stderr);
    return RUNNER_NO_LIBRARY;
}
