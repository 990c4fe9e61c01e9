/* What the files of atoll sim share. */
#ifndef AT_APPS_SIM_H
#define AT_APPS_SIM_H

int at_app_sim_run(int argc, char **argv); /* without a verb of its own */

#endif
