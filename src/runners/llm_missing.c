/* Stands in for the LLM runner in builds without libllama's header. */
#include "runners/llm.h"

#include <stdio.h>

#define EXIT_NO_LIBRARY 69

int at_runner_llm_main(const struct at_sys *sys, int argc, char **argv)
{
    (void)sys, (void)argc, (void)argv;
    fputs("atoll runner llm: this build has no LLM runner; run `make`, which fetches what it "
          "needs, and build again\n",
          stderr);
    return EXIT_NO_LIBRARY;
}
