/* The one table of verbs and options: help, the man page and the completions are made from it. */
#include "cli/cli_priv.h"

const struct cli_option_row CLI_OPTIONS[OPT_COUNT] = {
    [OPT_ALL] = {"all", 0, NULL, NULL, "every object of the kind in the namespace"},
    [OPT_ADDRESS] = {"address", 0, "ADDRESS[,...]", NULL, "listen there (default 127.0.0.1)"},
    [OPT_ALL_NAMESPACES] = {"all-namespaces", 'A', NULL, NULL, "in all namespaces"},
    [OPT_APPLYSET] = {"applyset", 0, "[KIND/]NAME", NULL,
                      "with --prune: the set that the objects belong to, kept by a Secret or "
                      "ConfigMap of that name"},
    [OPT_AS] = {"as", 0, "USER", NULL, "act as that user, if you may"},
    [OPT_AS_GROUP] = {"as-group", 0, "GROUP", NULL,
                      "with --as: as a member of that group; may be repeated"},
    [OPT_CASCADE] = {"cascade", 0, "HOW", "background foreground orphan",
                     "what becomes of what it owns: deleted after it (background, the default), "
                     "before it (foreground), or left (orphan)"},
    [OPT_CERTIFICATE_AUTHORITY] = {"certificate-authority", 0, "FILE", "@file",
                                   "certificate of the authority that the server's is checked by"},
    [OPT_CLIENT] = {"client", 0, NULL, NULL, "of this program only; ask no server"},
    [OPT_CLIENT_CERTIFICATE] = {"client-certificate", 0, "FILE", "@file", "the user's certificate"},
    [OPT_CLIENT_KEY] = {"client-key", 0, "FILE", "@file", "the certificate's key"},
    [OPT_CLUSTER] = {"cluster", 0, "NAME", "@cluster", "cluster of the context"},
    [OPT_CONCURRENCY] = {"concurrency", 'c', "N", NULL,
                         "requests outstanding at any time (default 8)"},
    [OPT_CONTEXT] = {"context", 0, "NAME", "@context", "context of the kubeconfig to use"},
    [OPT_CURRENT] = {"current", 0, NULL, NULL, "the current context"},
    [OPT_DATA] =
        {"data", 0, "FILE.json", "@file",
         "a request with many rows, and labels when there are any: each row is sent by itself"},
    [OPT_DRY_RUN] = {"dry-run", 0, "server|client", "server client",
                     "check only: by the server, or here"},
    [OPT_DURATION] = {"duration", 0, "DURATION", NULL, "for so long (load: default 10s)"},
    [OPT_FAIL_ON] = {"fail-on", 0, "SEVERITY", "low medium high critical none",
                     "exit with status 1 for findings of this severity and above (default high)"},
    [OPT_EMBED_CERTS] = {"embed-certs", 0, NULL, NULL,
                         "put the files' content into the kubeconfig"},
    [OPT_EXEC_ARG] = {"exec-arg", 0, "TEXT", NULL, "argument of the program; may be repeated"},
    [OPT_EXEC_COMMAND] = {"exec-command", 0, "PROGRAM", "@file",
                          "program that prints credentials (client.authentication.k8s.io/v1)"},
    [OPT_EXEC_ENV] = {"exec-env", 0, "NAME=VALUE", NULL,
                      "variable for the program; may be repeated"},
    [OPT_FIELD_SELECTOR] = {"field-selector", 0, "FIELD=VALUE", NULL,
                            "only objects with that field, such as metadata.name=x"},
    [OPT_FILE] = {"file", 'f', "FILE", "@file",
                  "YAML or JSON file, folder, or - for standard input; may be repeated"},
    [OPT_FLATTEN] = {"flatten", 0, NULL, NULL, "files' content in place of their names"},
    [OPT_FOLLOW] = {"follow", 'f', NULL, NULL, "go on with what comes"},
    [OPT_FOR] = {"for", 0, "WHAT", "condition= create delete jsonpath=",
                 "condition=TYPE[=STATUS], create, delete, or jsonpath={.a.b}[=VALUE]"},
    [OPT_FOR_OBJECT] = {"for", 0, "KIND/NAME", "@object", "of this object only"},
    [OPT_GATEWAY] = {"gateway", 0, "URL", NULL,
                     "gateway to call (else $ATOLL_GATEWAY, else the file gateway beside the "
                     "kubeconfig)"},
    [OPT_GRACE_PERIOD] = {"grace-period", 0, "SECONDS", NULL,
                          "time to end by itself (0: none), in place of its own"},
    [OPT_IGNORE_NOT_FOUND] = {"ignore-not-found", 0, NULL, NULL, "absent objects are no error"},
    [OPT_IMAGE] = {"image", 0, "FILE.pgm", "@file",
                   "grey image (PGM), scaled to the model's input"},
    [OPT_INPUT] = {"input", 'i', "NAME=JSON", NULL,
                   "input tensor as nested JSON arrays; may be repeated"},
    [OPT_KUBECONFIG] = {"kubeconfig", 'k', "FILE", "@file",
                        "configuration (else $KUBECONFIG, else ~/.kube/config)"},
    [OPT_LABEL_COLUMNS] = {"label-columns", 'L', "KEY[,...]", NULL, "columns for these labels"},
    [OPT_LIST] = {"list", 0, NULL, NULL, "everything that is allowed"},
    [OPT_LIVE] = {"live", 0, NULL, NULL, "what the server holds"},
    [OPT_MAN] = {"man", 0, NULL, NULL, "print the man page (troff)"},
    [OPT_MINIFY] = {"minify", 0, NULL, NULL, "only what the current context needs"},
    [OPT_NAMESPACE] = {"namespace", 'n', "NAME", "@namespaces", "namespace (else the context's)"},
    [OPT_NO_HEADERS] = {"no-headers", 0, NULL, NULL, "leave out the header line"},
    [OPT_OUTPUT] = {"output", 'o', "FORMAT", "json yaml wide name jsonpath= custom-columns=",
                    "json, yaml, wide, name, jsonpath={.a.b} or custom-columns=NAME:.a.b,..."},
    [OPT_OVERWRITE] = {"overwrite", 0, NULL, NULL, "change what is there already"},
    [OPT_PATCH] = {"patch", 'p', "JSON", NULL, "what changes, as JSON or YAML"},
    [OPT_PATCH_TYPE] = {"type", 0, "TYPE", "strategic merge json",
                        "strategic (default), merge (RFC 7396) or json (RFC 6902)"},
    [OPT_PRUNE] = {"prune", 0, NULL, NULL,
                   "delete what was applied before and is in no document now"},
    [OPT_PRUNE_ALLOWLIST] = {"prune-allowlist", 0, "GROUP/VERSION/KIND", NULL,
                             "with --prune: only this kind; may be repeated"},
    [OPT_QUIET] = {"quiet", 'q', NULL, NULL, "print nothing; the exit status tells"},
    [OPT_RAW] = {"raw", 0, NULL, NULL, "secrets and certificates as they are"},
    [OPT_RECURSIVE] = {"recursive", 'r', NULL, NULL, "show fields within fields"},
    [OPT_RECURSIVE_FILES] = {"recursive", 'R', NULL, NULL, "with all folders below"},
    [OPT_REPLICAS] = {"replicas", 0, "N", NULL, "how many copies"},
    [OPT_REQUEST] = {"request", 0, "FILE.json", "@file", "send this whole request"},
    [OPT_REQUESTS] = {"requests", 0, "N", NULL, "so many requests"},
    [OPT_ROLE] = {"role", 0, "agent|gateway", "agent gateway", "what may join with it"},
    [OPT_RULES] = {"rules", 0, NULL, NULL, "list the rules"},
    [OPT_SCALE] = {"scale", 0, "MAX", NULL,
                   "value of a white pixel (default: the image's own maximum)"},
    [OPT_SELECTOR] = {"selector", 'l', "LABELS", NULL, "only objects with these labels"},
    [OPT_SERVER] = {"server", 0, "URL", NULL, "address of the server, https://HOST:PORT"},
    [OPT_SHOW_LABELS] = {"show-labels", 0, NULL, NULL, "a column with all labels"},
    [OPT_SINCE_TIME] = {"since-time", 0, "TIME", NULL,
                        "only what is not older, such as 2026-01-31T08:00:00Z"},
    [OPT_SINCE] = {"since", 0, "DURATION", NULL, "only what is not older, such as 5m"},
    [OPT_SITE] = {"site", 0, "NAME", "@sites", "site that it joins"},
    [OPT_SORT_BY] = {"sort-by", 0, "PATH", NULL, "by this field, such as .spec.replicas"},
    [OPT_STDIN] = {"stdin", 'i', NULL, NULL, "pass standard input on"},
    [OPT_SUBRESOURCE] = {"subresource", 0, "NAME", "status scale exec log portforward attach",
                         "a part of the object, such as exec or status"},
    [OPT_TAIL] = {"tail", 0, "LINES", NULL, "only the last lines; -1: all"},
    [OPT_TENSOR] = {"tensor", 0, "FILE.json", "@file",
                    "input tensors: {name, shape, datatype, data}, or a list of them"},
    [OPT_TIMEOUT] = {"timeout", 0, "DURATION", NULL, "give up after so long, such as 30s or 5m"},
    [OPT_TIMESTAMPS] = {"timestamps", 0, NULL, NULL, "the time before each line"},
    [OPT_TLS_SERVER_NAME] = {"tls-server-name", 0, "NAME", NULL,
                             "name that the server's certificate has, if it is not the host"},
    [OPT_TOKEN] = {"token", 0, "TOKEN", NULL, "bearer token"},
    [OPT_TOKEN_FILE] = {"token-file", 0, "FILE", "@file",
                        "inference token (else $ATOLL_TOKEN_FILE, else the file inference.token "
                        "beside the kubeconfig)"},
    [OPT_TTL] = {"ttl", 0, "DURATION", NULL, "how long it may be used (default 1h)"},
    [OPT_TTY] = {"tty", 't', NULL, NULL, "with a terminal"},
    [OPT_TYPES] = {"types", 0, "TYPE[,...]", "Normal Warning", "only events of these types"},
    [OPT_TOKEN_USER] = {"user", 0, "NAME", NULL, "whose it is: a token to act as NAME"},
    [OPT_GROUP] = {"group", 0, "NAME", NULL, "with --user: a group of it; may be repeated"},
    [OPT_NODE] = {"node", 0, "NAME", NULL,
                  "only for this node, which may take the place of one that has joined"},
    [OPT_REASON] = {"reason", 0, "TEXT", NULL, "why, for those who look later"},
    [OPT_USER] = {"user", 0, "NAME", "@user", "user of the context"},
    [OPT_WAIT] = {"wait", 0, NULL, NULL, "wait until it is done (--wait=false: do not)"},
    [OPT_WATCH] = {"watch", 'w', NULL, NULL, "go on with changes until interrupted"},
    [OPT_BASE] = {"base", 0, "PACKAGE", NULL,
                  "container image to build on (default: none is needed)"},
    [OPT_CA] = {"ca", 0, "FILE.pem", "@file",
                "authorities to trust for registries (else $SSL_CERT_FILE, else the system's)"},
    [OPT_CA_PIN] = {"ca-pin", 0, "PIN", NULL, "sha256:... of the control plane's authority"},
    [OPT_CHUNK] = {"chunk", 0, "SIZE", NULL,
                   "send larger blobs in pieces of this size (default 256Mi)"},
    [OPT_DATA_CLASS] = {"data-class", 0, "CLASS", NULL, "class of the data that it handles"},
    [OPT_FORCE] = {"force", 0, NULL, NULL, "over what is there already"},
    [OPT_JOIN] = {"join", 0, "URL|kubeconfig", "kubeconfig",
                  "offer this machine to the control plane there, as a local runner"},
    [OPT_JOIN_TOKEN] = {"token-file", 0, "FILE", "@file",
                        "join token (else one is made, which takes an administrator)"},
    [OPT_KEY] = {"key", 0, "FILE.pem", "@file",
                 "sign: private key; else public key that must have signed, may be repeated"},
    [OPT_LICENCE] = {"licence", 0, "SPDX", NULL, "licence of the model, such as Apache-2.0"},
    [OPT_LISTEN] = {"listen", 0, "ADDRESS", NULL,
                    "serve there (default 127.0.0.1:8080; with --join: a host, default 127.0.0.1)"},
    [OPT_MODEL_FILE] = {"file", 0, "PATH", "@file", "the file of the folder that is served"},
    [OPT_MODEL_VERSION] = {"version", 0, "VERSION", NULL, "version of the model (default 1)"},
    [OPT_MOUNT_FROM] = {"mount-from", 0, "REPOSITORY", NULL,
                        "take blobs from this repository of the same registry"},
    [OPT_NAME] = {"name", 0, "NAME", NULL, "name of the model"},
    [OPT_PARALLEL] = {"parallel", 0, "N", NULL, "blobs at a time (default 4)"},
    [OPT_PASSWORD_STDIN] = {"password-stdin", 0, NULL, NULL,
                            "read the password from standard input"},
    [OPT_PLAIN_HTTP] = {"plain-http", 0, NULL, NULL, "the registry speaks no TLS"},
    [OPT_RUNNABLE] = {"image", 0, "NAME", NULL, "make a container image too that serves the model"},
    [OPT_STORE] =
        {"store", 0, "DIR", "@dir",
         "where packages are kept (else $ATOLL_MODELS, else ~/.local/share/atoll/models)"},
    [OPT_TAG] = {"tag", 't', "NAME", NULL, "name of the package here (default NAME:VERSION)"},
    [OPT_TO] = {"to", 0, "DIR", "@dir", "unpack it there, into a new folder"},
    [OPT_USERNAME] = {"username", 'u', "NAME", NULL,
                      "user of the registry, with --password-stdin (else docker's config.json)"},
    [OPT_BUDGET] = {"budget", 0, "DOLLARS/WINDOW", NULL,
                    "money for a day, week, month or in total; may be repeated"},
    [OPT_BY] = {"by", 0, "WORDS", "day namespace team key model",
                "sum up by these (default namespace,team,key,model)"},
    [OPT_DESCRIPTION] = {"description", 0, "TEXT", NULL, "what it is for"},
    [OPT_EXPIRES] = {"expires", 0, "DURATION", NULL,
                     "how long it opens anything, such as 720h (default: for ever)"},
    [OPT_FROM] = {"from", 0, "DAY", NULL, "from this day on, such as 2026-11-24"},
    [OPT_GRACE] = {"grace", 0, "DURATION", NULL,
                   "how long the old secret still works (default: not at all)"},
    [OPT_KEY_NAME] = {"key", 0, "NAME", NULL, "only this key"},
    [OPT_MODEL] = {"model", 0, "NAME", NULL,
                   "a model, or names with *; may be repeated where a key is made"},
    [OPT_OPEN_NAMESPACE] = {"open-namespace", 0, "NAME", NULL,
                            "models of this namespace too; may be repeated"},
    [OPT_PRIORITY] = {"priority", 0, "CLASS", "critical high normal low",
                      "class of its requests while they wait"},
    [OPT_RPM] = {"rpm", 0, "N", NULL, "requests a minute"},
    [OPT_TEAM] = {"team", 0, "NAME", NULL, "whose usage it is"},
    [OPT_TPM] = {"tpm", 0, "N", NULL, "tokens a minute"},
    [OPT_UNTIL] = {"until", 0, "DAY", NULL, "until this day, with it"},
    [OPT_HELP] = {"help", 'h', NULL, NULL, "show help"},
};

#define CONNECT OPT_NAMESPACE, OPT_CONTEXT, OPT_KUBECONFIG, OPT_AS, OPT_AS_GROUP, OPT_HELP
#define OPTIONS(...)                                                                               \
    (const enum cli_option[]){__VA_ARGS__},                                                        \
        sizeof((const enum cli_option[]){__VA_ARGS__}) / sizeof(enum cli_option)

const struct cli_verb CLI_VERBS[] = {
    {"apply", "-f FILE...", "Create or change objects from files",
     "All documents are checked first, here and by the server; when one is wrong, nothing is\n"
     "applied. Works together with kubectl apply: both keep the same annotation.\n"
     "--prune deletes what was applied before and is in no document now: of the labels of\n"
     "--selector, or of an apply set. atoll plan shows all of it before.",
     "apply -f site.yaml\napply -f examples/quickstart/\ncat x.yaml | atoll apply -f -\n"
     "apply -f x.yaml --dry-run=server\napply -R -f deploy/ --prune --applyset shop",
     OPTIONS(OPT_FILE, OPT_RECURSIVE_FILES, OPT_DRY_RUN, OPT_PRUNE, OPT_SELECTOR, OPT_ALL,
             OPT_APPLYSET, OPT_PRUNE_ALLOWLIST, OPT_OUTPUT, CONNECT),
     0, 0, false, cli_apply},
    {"plan", "-f FILE... | moves",
     "Show what apply would change, or which instances would be moved",
     "Field by field, with what the server fills in, in colour on a terminal; nothing is changed.\n"
     "Takes the options of apply, --prune too. Exit status: 0 no changes, 2 changes, 1 an error.\n"
     "plan moves shows which instances would be moved, what that gains and costs: the same look\n"
     "that the server takes by the policy's rules (spec.rescheduling), without its limits.",
     "plan -f examples/quickstart/\nplan -R -f deploy/ --prune --applyset shop -o json\n"
     "plan moves",
     OPTIONS(OPT_FILE, OPT_RECURSIVE_FILES, OPT_PRUNE, OPT_SELECTOR, OPT_ALL, OPT_APPLYSET,
             OPT_PRUNE_ALLOWLIST, OPT_OUTPUT, OPT_NO_HEADERS, CONNECT),
     0, 1, false, cli_plan, 1},
    {"diff", "-f FILE...", "Compare files with what the server has, as apply would leave it",
     "By diff -u -N, or the program in $ATOLL_EXTERNAL_DIFF or $KUBECTL_EXTERNAL_DIFF, which is\n"
     "given two folders. Exit status: 0 no difference, 1 differences, more than 1 an error.",
     "diff -f examples/quickstart/\ncat x.yaml | atoll diff -f -",
     OPTIONS(OPT_FILE, OPT_RECURSIVE_FILES, OPT_PRUNE, OPT_SELECTOR, OPT_ALL, OPT_APPLYSET,
             OPT_PRUNE_ALLOWLIST, CONNECT),
     0, 0, false, cli_diff, 2},
    {"get", "KIND[,KIND...] [NAME...] | KIND/NAME...", "Show objects",
     "KIND is a kind, its plural or its short name (atoll api-resources lists them); all means\n"
     "every kind of the category.",
     "get nodes\nget deployments,instances -A -o wide\nget deployment digits -o yaml\n"
     "get instances -l atoll.dev/deployment=digits -w\n"
     "get node edge-1 -o jsonpath='{.status.allocatable.cpu}'\n"
     "get deployments --sort-by .spec.replicas -o "
     "custom-columns=NAME:.metadata.name,COPIES:.spec.replicas",
     OPTIONS(OPT_OUTPUT, OPT_WATCH, OPT_ALL_NAMESPACES, OPT_SELECTOR, OPT_FIELD_SELECTOR,
             OPT_SORT_BY, OPT_SHOW_LABELS, OPT_LABEL_COLUMNS, OPT_NO_HEADERS, OPT_IGNORE_NOT_FOUND,
             CONNECT),
     1, -1, true, cli_get},
    {"describe", "KIND [NAME...] | KIND/NAME...", "Tell everything about objects, with the why",
     "Shows the specification, the state, why it runs where it runs, and recent events.",
     "describe deployment digits\ndescribe instances -l atoll.dev/deployment=digits",
     OPTIONS(OPT_ALL_NAMESPACES, OPT_SELECTOR, CONNECT), 1, -1, true, cli_describe},
    {"delete", "KIND NAME... | KIND/NAME... | -f FILE", "Delete objects and wait until gone", NULL,
     "delete deployment digits\ndelete -f examples/quickstart/\ndelete jobs --all --wait=false",
     OPTIONS(OPT_FILE, OPT_RECURSIVE_FILES, OPT_ALL, OPT_SELECTOR, OPT_IGNORE_NOT_FOUND,
             OPT_CASCADE, OPT_GRACE_PERIOD, OPT_WAIT, OPT_TIMEOUT, CONNECT),
     0, -1, true, cli_delete},
    {"wait", "KIND NAME... | KIND/NAME... --for=WHAT", "Wait for a condition", NULL,
     "wait deployment/digits --for=condition=Available --timeout=2m\n"
     "wait instance/digits-x1y2z-abcde --for=delete\nwait job/train "
     "--for=jsonpath='{.status.succeeded}'=3",
     OPTIONS(OPT_FOR, OPT_TIMEOUT, OPT_SELECTOR, OPT_ALL, CONNECT), 1, -1, true, cli_wait},
    {"logs", "[KIND/]NAME | -l LABELS", "Print what instances wrote",
     "NAME is an instance; KIND/NAME means all its instances, whatever kind made them.",
     "logs digits-x1y2z-abcde\nlogs deployment/digits -f --tail 20\n"
     "logs -l atoll.dev/deployment=digits --since 10m --timestamps",
     OPTIONS(OPT_FOLLOW, OPT_TAIL, OPT_SINCE, OPT_SINCE_TIME, OPT_TIMESTAMPS, OPT_SELECTOR,
             CONNECT),
     0, 2, false, cli_logs},
    {"edit", "KIND NAME... | KIND/NAME...", "Change an object in an editor",
     "The editor is $ATOLL_EDITOR, $KUBE_EDITOR, $VISUAL, $EDITOR, else vi. What is refused is\n"
     "opened again with what is wrong; what others changed meanwhile is kept, and told where both\n"
     "changed the same field.",
     "edit deployment digits\nedit configmap/settings -o json", OPTIONS(OPT_OUTPUT, CONNECT), 1, -1,
     true, cli_edit},
    {"events", "[--for KIND/NAME]", "Tell what happened, the newest last", NULL,
     "events --types Warning\nevents --for deployment/digits\nevents -A -w",
     OPTIONS(OPT_FOR_OBJECT, OPT_TYPES, OPT_WATCH, OPT_ALL_NAMESPACES, OPT_NO_HEADERS, OPT_OUTPUT,
             CONNECT),
     0, 0, false, cli_events},
    {"auth", "can-i VERB KIND[/NAME] | can-i --list | whoami",
     "Ask who you are and what you may do",
     "can-i answers yes or no, with exit status 0 or 1; a path such as /metrics may stand in "
     "place\n"
     "of the kind. With --as it answers for somebody else.",
     "auth whoami\nauth can-i create deployments\nauth can-i delete node/edge-1 --as eve "
     "--as-group "
     "ops\nauth can-i --list",
     OPTIONS(OPT_LIST, OPT_SUBRESOURCE, OPT_QUIET, OPT_ALL_NAMESPACES, OPT_NO_HEADERS, OPT_OUTPUT,
             CONNECT),
     1, 4, false, cli_auth},
    {"exec", "[KIND/]NAME [-it] -- COMMAND...", "Run a command beside an instance",
     "NAME is an instance; KIND/NAME means one of its instances that runs, a ready one first. The\n"
     "exit status is the command's. It sees the instance's files, environment and limits.",
     "exec deployment/digits -- env\nexec -it deployment/digits -- sh",
     OPTIONS(OPT_STDIN, OPT_TTY, CONNECT), 1, -1, false, cli_exec},
    {"port-forward", "[KIND/]NAME [[LOCAL]:[REMOTE]...]", "Reach the port of an instance from here",
     "NAME is an instance; KIND/NAME means one of its instances that is ready, chosen anew for "
     "each\nconnection. 8080: listens on port 8080 and means the port that the instance serves; "
     "without a\nport any free one is taken. It goes on until Ctrl-C.",
     "port-forward deployment/digits 8080:\nport-forward digits-x1y2z-abcde :",
     OPTIONS(OPT_ADDRESS, CONNECT), 1, -1, false, cli_port_forward},
    {"scale", "KIND NAME... | KIND/NAME... --replicas=N", "Set how many copies run", NULL,
     "scale deployment digits --replicas=5\nscale deployment/digits --replicas=0 --wait",
     OPTIONS(OPT_REPLICAS, OPT_WAIT, OPT_TIMEOUT, CONNECT), 1, -1, true, cli_scale},
    {"infer", "MODEL", "Ask a model through the gateway (Open Inference Protocol)",
     "Prints each output, its largest element, and how long the answer took.",
     "infer digits --image examples/quickstart/data/digit-7.pgm\n"
     "infer digits --input image=\"$(cat pixels.json)\"\ninfer digits --request request.json -o "
     "json",
     OPTIONS(OPT_IMAGE, OPT_SCALE, OPT_INPUT, OPT_TENSOR, OPT_REQUEST, OPT_GATEWAY, OPT_TOKEN_FILE,
             OPT_TIMEOUT, OPT_OUTPUT, OPT_KUBECONFIG, OPT_HELP),
     1, 1, false, cli_infer},
    {"load", "MODEL --data FILE.json", "Send requests at a fixed concurrency and measure",
     "Each row of the file's tensors becomes one request. Prints requests a second, latencies,\n"
     "accuracy when the file has labels, and which instances answered.",
     "load digits --data examples/quickstart/data/digits-test.json\n"
     "load digits --data digits-test.json --concurrency 32 --duration 30s -o json",
     OPTIONS(OPT_DATA, OPT_CONCURRENCY, OPT_DURATION, OPT_REQUESTS, OPT_GATEWAY, OPT_TOKEN_FILE,
             OPT_OUTPUT, OPT_KUBECONFIG, OPT_HELP),
     1, 1, false, cli_load},
    {"top", "[nodes|instances]", "Show what is reserved and what is free", NULL,
     "top\ntop instances -A", OPTIONS(OPT_ALL_NAMESPACES, OPT_SELECTOR, OPT_NO_HEADERS, CONNECT), 0,
     1, false, cli_top},
    {"model", "init|pack|push|pull|save|load|inspect|ls|rm|sign|verify|run ...",
     "Models as packages: make, move, inspect, sign and serve them",
     "init FOLDER writes model.yaml: files with digests, inputs and outputs by the model file "
     "itself.\n"
     "pack FOLDER makes an OCI artifact (CNCF ModelPack) of it, with --image a container image "
     "too.\n"
     "push NAME [WHERE] and pull PACKAGE move it; WHERE and PACKAGE are "
     "oci://HOST/REPOSITORY:TAG,\n"
     "oci-layout:FOLDER:NAME or oci-archive:FILE.tar. save and load are the latter. inspect tells "
     "what\n"
     "is in a package or a folder, ls and rm are of the packages here. sign and verify keep "
     "signatures\n"
     "as cosign does. run serves a folder or a package here, with --join as a runner of a cluster.",
     "model init ./digits --licence MIT\nmodel pack ./digits\n"
     "model push digits:1 oci://registry.example.com/team/digits:1\n"
     "model pull oci://registry.example.com/team/digits:1 --to ./copy\nmodel run ./digits\n"
     "model run ./digits --join kubeconfig --site edge",
     OPTIONS(OPT_BASE, OPT_CA, OPT_CA_PIN, OPT_CHUNK, OPT_DATA_CLASS, OPT_FORCE, OPT_JOIN,
             OPT_JOIN_TOKEN, OPT_KEY, OPT_LICENCE, OPT_LISTEN, OPT_MODEL_FILE, OPT_MODEL_VERSION,
             OPT_MOUNT_FROM, OPT_NAME, OPT_NO_HEADERS, OPT_OUTPUT, OPT_PARALLEL, OPT_PASSWORD_STDIN,
             OPT_PLAIN_HTTP, OPT_RUNNABLE, OPT_SITE, OPT_STORE, OPT_TAG, OPT_TIMEOUT, OPT_TO,
             OPT_USERNAME, CONNECT),
     1, -1, false, cli_model},
    {"label", "KIND NAME KEY=VALUE... KEY-...", "Set or take off labels", NULL,
     "label node edge-1 rack=7\nlabel node/edge-1 rack-\nlabel nodes --all zone=west --overwrite",
     OPTIONS(OPT_OVERWRITE, OPT_SELECTOR, OPT_ALL, CONNECT), 2, -1, true, cli_label},
    {"annotate", "KIND NAME KEY=VALUE... KEY-...", "Set or take off annotations", NULL,
     "annotate deployment digits owner='the vision team'\nannotate deployment/digits owner-",
     OPTIONS(OPT_OVERWRITE, OPT_SELECTOR, OPT_ALL, CONNECT), 2, -1, true, cli_annotate},
    {"patch", "KIND NAME... | KIND/NAME... --patch=JSON", "Change fields of objects", NULL,
     "patch deployment digits -p '{\"spec\": {\"replicas\": 2}}'\n"
     "patch node/edge-1 --type=json -p '[{\"op\": \"add\", \"path\": \"/spec/unschedulable\", "
     "\"value\": false}]'",
     OPTIONS(OPT_PATCH, OPT_PATCH_TYPE, OPT_SUBRESOURCE, CONNECT), 1, -1, true, cli_patch},
    {"cordon", "NODE...", "Let nodes take nothing new", "What runs there goes on.",
     "cordon cloud-1\ncordon node/cloud-1", OPTIONS(CONNECT), 1, -1, false, cli_cordon},
    {"uncordon", "NODE...", "Let nodes take instances again", NULL,
     "uncordon cloud-1\nuncordon node/cloud-1", OPTIONS(CONNECT), 1, -1, false, cli_uncordon},
    {"explain", "KIND[.FIELD...] | placement KIND/NAME",
     "Explain a kind's fields, or why something runs where it runs",
     "explain placement tells of an instance, a deployment or a job: for what runs, the score of\n"
     "its node and of the next best one; for what is pending, how many nodes each rule refused,\n"
     "what is missing least, what would make room, and after which changes it is tried again.",
     "explain deployment\nexplain deployment.spec.template.spec.resources\n"
     "explain site --recursive\nexplain placement deployment/digits\n"
     "explain placement instance/digits-x1y2z-abcde -o yaml",
     OPTIONS(OPT_RECURSIVE, OPT_OUTPUT, CONNECT), 1, 3, true, cli_explain},
    {"api-resources", "", "List the kinds", NULL,
     "api-resources\napi-resources --no-headers -o name",
     OPTIONS(OPT_OUTPUT, OPT_NO_HEADERS, OPT_HELP), 0, 0, false, cli_api_resources},
    {"token", "create | revoke NAME", "Tokens with which machines join, or people come in",
     "create makes a token for a machine to join with (--role, --site), which works once, or one\n"
     "for a person or a program (--user), which works until it ends (default 30 days) or is\n"
     "revoked. Either is shown once; only digests are kept. atoll get accesstokens lists the "
     "latter.",
     "token create --role agent --site edge\ntoken create --role gateway --site edge --ttl 10m\n"
     "token create --user ada --group readers --ttl 24h\ntoken revoke 0123456789abcdef",
     OPTIONS(OPT_ROLE, OPT_SITE, OPT_NODE, OPT_TOKEN_USER, OPT_GROUP, OPT_DESCRIPTION, OPT_TTL,
             OPT_OUTPUT, CONNECT),
     1, 2, false, cli_token},
    {"revoke", "user NAME | node NAME | gateway NAME | serial HEX | fingerprint HEX",
     "Refuse certificates before they end",
     "Of a user, node or gateway: all that were issued up to now, so that a new one is good. It\n"
     "holds at once, on open connections too. atoll get certificaterevocations lists them; to\n"
     "delete one takes it back.",
     "revoke node edge-1 --reason stolen\nrevoke user ada\nrevoke serial 5F3A01",
     OPTIONS(OPT_REASON, OPT_OUTPUT, CONNECT), 2, 2, false, cli_revoke},
    {"key", "create NAME | list | revoke NAME | restore NAME | rotate NAME",
     "API keys with which gateways are asked for models",
     "create shows the secret once; the control plane keeps its digest only. A key opens the "
     "models\n"
     "of its namespace, or those named by --model. revoke is felt by every gateway within a "
     "second,\n"
     "restore takes it back, rotate gives it a new secret.",
     "key create ci --team research --model 'llama-*' --rpm 60 --budget 20/month\n"
     "key rotate ci --grace 1h",
     OPTIONS(OPT_TEAM, OPT_MODEL, OPT_OPEN_NAMESPACE, OPT_RPM, OPT_TPM, OPT_BUDGET, OPT_EXPIRES,
             OPT_PRIORITY, OPT_DESCRIPTION, OPT_GRACE, OPT_OUTPUT, CONNECT, OPT_ALL_NAMESPACES),
     1, 2, false, cli_key},
    {"usage", "", "What API keys used: requests, tokens and money",
     "From the records of all gateways, which are a second or two behind. -o csv is for\n"
     "spreadsheets and bills.",
     "usage\nusage --by team,model --from 2026-11-01 --until 2026-11-30 -o csv",
     OPTIONS(OPT_BY, OPT_FROM, OPT_UNTIL, OPT_TEAM, OPT_KEY_NAME, OPT_MODEL, OPT_OUTPUT,
             OPT_NO_HEADERS, CONNECT, OPT_ALL_NAMESPACES),
     0, 0, false, cli_usage},
    {"backup", "FILE", "Write all of a running server into a file",
     "Everything at one revision, and the key of the certificate authority: whoever has the file\n"
     "is the server. It is written with mode 0600, and takes its name only when it is complete.\n"
     "- is standard output. Put it back with atoll restore FILE --state DIR.",
     "backup /var/backups/atoll-$(date +%F)\nbackup - | age -r KEY > atoll.age",
     OPTIONS(OPT_CONTEXT, OPT_KUBECONFIG, OPT_HELP), 1, 1, false, cli_backup},
    {"secrets", "status | rotate-key", "The keys that Secrets are encrypted with at rest",
     "status lists the ids of the keys, the newest first. rotate-key makes a new one, writes all\n"
     "Secrets anew with it in the background, and then forgets the old ones: backups made before\n"
     "need a copy of the key file as it was. With several servers on one etcd old keys stay.",
     "secrets status\nsecrets rotate-key -o json", OPTIONS(OPT_OUTPUT, CONNECT), 1, 1, false,
     cli_secrets},
    {"record", "FILE", "Record what comes and goes, for atoll sim to replay",
     "Nodes, sites, rules, requests, where they were placed and when they ended, a line of JSON\n"
     "each, until Ctrl-C or the end of --duration. Environments, arguments and annotations are\n"
     "left out. - is standard output. atoll sim --trace FILE replays it.",
     "record fleet.jsonl\nrecord --duration 8h fleet.jsonl",
     OPTIONS(OPT_DURATION, OPT_CONTEXT, OPT_KUBECONFIG, OPT_HELP), 1, 1, false, cli_record},
    {"scan", "FILE... | --live | --rules", "Check manifests, or what the server holds, for risks",
     "FILE is a YAML or JSON file, a folder (with all below it), or - for standard input;\n"
     "manifests of Kubernetes are understood too. Each finding says where, why and how to mend "
     "it.\n"
     "-o sarif is for code hosts. An annotation scan.atoll.dev/ignore-RULE with a reason "
     "suppresses\n"
     "a finding. Exit status: 0 nothing severe, 1 findings (see --fail-on), 2 something could not\n"
     "be read.",
     "scan deploy/\nscan deploy/ -o sarif > atoll.sarif\nscan --live --fail-on critical\n"
     "cat app.yaml | atoll scan -\nscan --rules",
     OPTIONS(OPT_FILE, OPT_LIVE, OPT_FAIL_ON, OPT_RULES, OPT_OUTPUT, OPT_NO_HEADERS, CONNECT), 0,
     -1, false, cli_scan, 2},
    {"config", "WORD [ARGUMENTS]", "Contexts, clusters and users of the kubeconfig",
     "The same files as kubectl's, merged and changed as kubectl does: those of $KUBECONFIG, else\n"
     "~/.kube/config. WORD is current-context, get-contexts, use-context, set-context,\n"
     "rename-context, delete-context, get-clusters, set-cluster, delete-cluster, get-users,\n"
     "set-credentials, delete-user, set, unset or view.",
     "config get-contexts\nconfig set-context --current --namespace team\n"
     "config view --minify --flatten --raw",
     OPTIONS(OPT_CLUSTER, OPT_USER, OPT_CURRENT, OPT_SERVER, OPT_CERTIFICATE_AUTHORITY,
             OPT_TLS_SERVER_NAME, OPT_TOKEN, OPT_CLIENT_CERTIFICATE, OPT_CLIENT_KEY,
             OPT_EMBED_CERTS, OPT_EXEC_COMMAND, OPT_EXEC_ARG, OPT_EXEC_ENV, OPT_MINIFY, OPT_FLATTEN,
             OPT_RAW, OPT_NO_HEADERS, OPT_OUTPUT, OPT_NAMESPACE, OPT_CONTEXT, OPT_KUBECONFIG,
             OPT_HELP),
     1, -1, false, cli_config},
    {"version", "", "Show the versions of this program and of the server", NULL,
     "version\nversion --client -o json",
     OPTIONS(OPT_CLIENT, OPT_OUTPUT, OPT_CONTEXT, OPT_KUBECONFIG, OPT_HELP), 0, 0, false,
     cli_version},
    {"completion", "bash|zsh|fish", "Print a completion script for a shell", NULL,
     "completion bash > ~/.local/share/bash-completion/completions/atoll\n"
     "completion zsh > ~/.zfunc/_atoll\ncompletion fish > ~/.config/fish/completions/atoll.fish",
     OPTIONS(OPT_HELP), 1, 1, false, cli_completion},
    {"help", "[VERB]", "Show help, or the man page with --man", NULL,
     "help apply\nhelp --man | man -l -", OPTIONS(OPT_MAN, OPT_HELP), 0, 1, false, cli_help_verb},
};
const size_t CLI_VERBS_COUNT = AT_ARRAY_LEN(CLI_VERBS);

/* Run by src/apps; named here for help, completion and the man page. */
const struct cli_role CLI_ROLES[] = {
    {"dev", "everything on this machine: control plane, sites, gateway"},
    {"server", "control plane"},
    {"agent", "one per machine: runs instances"},
    {"gateway", "inference data plane"},
    {"runner", "model server for one model file"},
    {"sim", "planning: replay recordings and traces, and what if things had been others"},
    {"store", "a store at rest: export, import, check"},
    {"restore", "a server's state from a backup"},
    {"audit", "check a server's audit log"},
};
const size_t CLI_ROLES_COUNT = AT_ARRAY_LEN(CLI_ROLES);

const struct cli_verb *cli_verb_find(const char *name)
{
    for (size_t i = 0; i < CLI_VERBS_COUNT; i++) {
        if (strcmp(CLI_VERBS[i].name, name) == 0) {
            return &CLI_VERBS[i];
        }
    }
    return NULL;
}
