/* What tunnel.c (agents' tunnels, logs), exec.c (commands) and forward.c (ports) share. */
#ifndef AT_API_TUNNEL_PRIV_H
#define AT_API_TUNNEL_PRIV_H

#include "api/api_priv.h"

struct tunnel {
    struct api_req *req; /* of the agent's GET */
    struct api_tunnels *owner;
    char node[API_NAME_BYTES];
};

struct api_exec;

struct session {
    struct api_req *req; /* of the client's GET; a port's is its forward's */
    struct api_tunnels *owner;
    char id[40];
    char node[API_NAME_BYTES];
    bool owns_req;
    bool begun;
    at_timer_id timer;
    struct api_exec *exec; /* a command */
    struct api_port *port; /* a connection to the instance's port; both NULL: a log */
};

struct api_tunnels {
    struct at_map *by_node;  /* struct tunnel */
    struct at_map *sessions; /* by id: struct session */
};

/* tunnel.c */
bool api_tunnel_send(struct api_tunnels *tunnels, const char *node, json_t *line_take);
/* Ask the agent of the instance that the route names: line_take with id and names put in. NULL:
 * answered. The session is in the map, its first answer is waited for. */
struct session *api_session_new(struct api_req *req, json_t *line_take);
/* As api_session_new, but nothing is answered and the session does not own req. */
enum at_rc api_session_open(struct api_req *req, json_t *line_take, struct session **ret,
                            struct at_err *err) AT_WARN_UNUSED;
/* Does it run on a node whose agent is connected? False: answered. */
bool api_session_possible(struct api_req *req);
void api_session_free(struct session *s); /* with its request, without an answer */
/* The words of a Status or of the stream, and the end of the session. */
void api_session_fail(struct session *s, enum at_rc rc, const char *message);

/* An agent's piece whose answer waits until the client has read on, at most AT_API_EXEC_HOLD_NS:
 * the agent sends the next one after it. One at a time. */
struct api_brake {
    struct api_req *held;
    at_timer_id timer;
};
/* Answer req now, or hold it when much is queued for the client. */
void api_brake_answer(struct api_brake *brake, struct api_req *req,
                      const struct at_http_exchange *client);
void api_brake_release(struct api_brake *brake);

/* exec.c */
void api_exec_answer(struct session *s, struct api_req *req); /* of the agent; answers it */
void api_exec_fail(struct session *s, enum at_rc rc, const char *message);

/* forward.c */
struct api_port;
void api_port_answer(struct session *s, struct api_req *req); /* of the agent; answers it */
void api_port_fail(struct session *s, enum at_rc rc, const char *message);

#endif
