/* A simulated fleet loses a site. Usage: drill_load NODES DEPLOYMENTS REPLICAS
 * Prints instances, those that lost their node, those bound again, seconds waited (simulated),
 * seconds computed (real), and nodes that were over-committed. */
#include "sim/drill.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    if (argc != 4) {
        fputs("usage: drill_load NODES DEPLOYMENTS REPLICAS\n", stderr);
        return 2;
    }
    struct at_drill_options o = {.real = at_sys_real(),
                                 .seed = 1,
                                 .nodes = (uint32_t)strtoul(argv[1], NULL, 10),
                                 .deployments = (uint32_t)strtoul(argv[2], NULL, 10),
                                 .replicas = (uint32_t)strtoul(argv[3], NULL, 10)};
    struct at_drill_result r = {0};
    struct at_err err = {0};
    if (at_drill_run(&o, &r, &err) != AT_OK) {
        fprintf(stderr, "drill_load: %s\n", err.msg);
        return 1;
    }
    printf("%zu %zu %zu %.2f %.2f %zu %.2f\n", r.instances, r.lost, r.bound_again, r.wait_s,
           r.compute_s, r.over_committed, r.set_up_s);
    return 0;
}
