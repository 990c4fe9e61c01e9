/* Stands in for the LLM runner in builds without libllama's header. */
#include "runners/llm.h"
#include "runners/process.h"

#include <stdio.h>

int at_runner_llm_main(const struct at_sys *sys, int argc, char **argv)
{
    (void)sys, (void)argc, (void)argv;
    fputs("atoll runner llm: this build has no LLM runner; run `make`, which fetches what it "
          "needs, and build again\n",
          stderr);
    return RUNNER_NO_LIBRARY;
}
