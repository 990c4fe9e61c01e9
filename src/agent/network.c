/* NetworkPolicies, as far as a machine keeps them without a firewall of its own: what may reach
 * nobody and be reached by nobody runs in a network of its own, with nothing in it but loopback.
 * Our own runners answer on a Unix socket besides, so that gateways reach them there all the same.
 */
#include "agent/agent_priv.h"

#include <stdio.h>
#include <string.h>

static const struct at_instance_network *network_of(const struct agent_instance *i)
{
    return i->typed != NULL ? i->typed->status.network : NULL;
}

static bool is_runner(const struct agent_instance *i)
{
    const char *runner = i->typed->spec.runner;
    return runner != NULL && runner[0] != '\0';
}

/* Why no network of its own would do; NULL: it does. */
static const char *obstacle(const struct agent_instance *i)
{
    const struct at_instance_network *n = network_of(i);
    bool serves = i->typed->spec.port >= 0;
    if ((n->ingress_isolated && n->ingress.n > 0) || (n->egress_isolated && n->egress.n > 0)) {
        return "instances share the network of their machine, so rules that let some through and "
               "not others cannot be kept";
    }
    if (is_runner(i)) {
        return NULL; /* it asks nobody, and is asked by its socket */
    }
    if (serves && n->ingress_isolated) {
        return "it serves on a port of its machine, which whoever reaches the machine reaches; set "
               "port: -1, or use a built-in runner";
    }
    if (!n->egress_isolated) {
        return "it may open connections, and shares the network of its machine for that";
    }
    return serves ? "it serves on a port of its machine" : NULL;
}

bool agent_network_own(const struct agent_instance *i)
{
    const struct at_instance_network *n = network_of(i);
    return n != NULL && (n->ingress_isolated || n->egress_isolated) && obstacle(i) == NULL;
}

bool agent_network_has_own(const struct agent_instance *i)
{
    return i->isolation != NULL && strstr(i->isolation, AT_RUNTIME_OWN_NETWORK) != NULL;
}

const char *agent_network_addr(const struct agent_instance *i)
{
    return agent_network_has_own(i) && i->local_endpoint != NULL ? i->local_endpoint : i->endpoint;
}

json_t *agent_network_json(const struct agent_instance *i)
{
    const struct at_instance_network *n = network_of(i);
    const char *message;
    if (n == NULL || (!n->ingress_isolated && !n->egress_isolated) || i->pid == 0) {
        return NULL;
    }
    const char *why = obstacle(i);
    bool kept = why == NULL && agent_network_has_own(i);
    if (kept) {
        message = "it runs in a network of its own";
    } else if (why != NULL) {
        message = why;
    } else {
        message = "it was started before the policy, or this machine gives no networks of their "
                  "own (the agent is not root): delete it, so that a new one takes its place";
    }
    char text[400];
    snprintf(text, sizeof text, "%s%s%s%s%s", message,
             kept ? "" : "; left open: ", !kept && n->ingress_isolated ? "Ingress" : "",
             !kept && n->ingress_isolated && n->egress_isolated ? " and " : "",
             !kept && n->egress_isolated ? "Egress" : "");
    return json_pack("{s:s, s:s, s:s}", "enforced", kept ? "Yes" : "No", "enforcedDigest",
                     n->digest != NULL ? n->digest : "", "message", text);
}
