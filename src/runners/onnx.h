/* `atoll runner onnx`: a model server for one ONNX file, Open Inference Protocol v2. */
#ifndef AT_RUNNERS_ONNX_H
#define AT_RUNNERS_ONNX_H

#include "sys/sys.h"

/* argv[0] is the role's name ("onnx"), options follow: --model FILE --listen ADDR [--name NAME]
 * [--version V] [--threads N]. Serves until SIGTERM or SIGINT. Returns an exit status: 0 ended as
 * asked, 2 usage, 65 the file is not an ONNX model that can be served, 66 no such file, 69 no ONNX
 * Runtime library, 71 the address cannot be listened on. */
int at_runner_onnx_main(const struct at_sys *sys, int argc, char **argv);

#endif
