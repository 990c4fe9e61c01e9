/* What others reach through the agent: commands, logs, and instances from other machines. */
#ifndef AT_AGENT_REACH_H
#define AT_AGENT_REACH_H

#include "agent/agent_priv.h"

/* exec.c: commands that clients run beside instances. ops: exec, stdin, stdin-close, resize,
 * cancel. */
struct agent_execs *agent_execs_new(struct at_agent *a);
/* server: that asked, and gets the answers. */
void agent_execs_ask(struct agent_execs *x, const char *server, const char *op, const char *id,
                     const json_t *ask);
void agent_execs_end(struct agent_execs *x, const char *server); /* it is out of reach: end its */
void agent_execs_free(struct agent_execs *x);

/* relay.c: takes TLS connections of gateways for instances, once it has an identity. */
enum at_rc agent_relay_new(struct at_agent *a, const char *listen,
                           struct at_err *err) AT_WARN_UNUSED;
void agent_relay_identity(void *agent, const char *cert_pem, const char *key_pem,
                          const char *ca_pem);
const char *agent_relay_addr(const struct at_agent *a); /* NULL: it takes none */
void agent_relay_free(struct at_agent *a);

/* tunnel.c */
struct agent_tunnel *agent_tunnel_new(struct at_agent *a);
void agent_tunnel_free(struct agent_tunnel *t);

#endif
