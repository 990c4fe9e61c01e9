/* `atoll runner llm`: a model server for one GGUF file, OpenAI's protocol, on libllama. */
#ifndef AT_RUNNERS_LLM_H
#define AT_RUNNERS_LLM_H

#include "sys/sys.h"

/* argv[0] is the role's name ("llm"), options follow: --model FILE --listen ADDR [--name NAME] ...
 * Serves until SIGTERM or SIGINT. Returns an exit status: 0 ended as asked, 2 usage, 65 the file is
 * not a model that can be served, 66 no such file, 69 no libllama, 70 the engine gave up, 71 the
 * address cannot be listened on, 75 not enough memory. */
int at_runner_llm_main(const struct at_sys *sys, int argc, char **argv);

#endif
