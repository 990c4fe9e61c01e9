/* The table of rules: names, and what is told of each. docs/reference/scan-rules.md is tested
 * against it. */
#include "scan/scan_priv.h"

#define WORKLOADS "workloads"
#define SECRETS "secrets"
#define SUPPLY "supply chain"
#define NETWORK "network"
#define RIGHTS "rights"
#define TENANTS "data and tenants"
#define SCAN "this scan"

const struct at_scan_rule SCAN_TABLE[SCAN_RULES] = {
    [SCAN_PRIVILEGED] = {"privileged", WORKLOADS, AT_SCAN_CRITICAL,
                         "A workload runs with the rights of the machine itself",
                         "What is privileged can read every other tenant's memory and files on its "
                         "machine, and take it over.",
                         "Take securityContext.privileged out, or the command that asks for it "
                         "(sudo, nsenter, docker run --privileged); give the one capability that "
                         "is needed, if any."},
    [SCAN_ROOT] = {"run-as-root", WORKLOADS, AT_SCAN_HIGH, "A workload runs, or may run, as root",
                   "A flaw in it is then a flaw of root: one kernel or mount mistake away from the "
                   "machine.",
                   "Set spec.user (in pods runAsUser and runAsNonRoot: true) to a number above 0."},
    [SCAN_ESCALATION] = {"privilege-escalation", WORKLOADS, AT_SCAN_MEDIUM,
                         "A process may gain more rights than its parent",
                         "A set-uid program in the image turns an ordinary user into root.",
                         "Set securityContext.allowPrivilegeEscalation: false."},
    [SCAN_CAPABILITIES] = {"added-capabilities", WORKLOADS, AT_SCAN_HIGH,
                           "A workload gets kernel capabilities",
                           "Many capabilities, SYS_ADMIN first, are as good as root.",
                           "Drop ALL; add back only what is proven to be needed."},
    [SCAN_HOST_NAMESPACES] = {"host-namespaces", WORKLOADS, AT_SCAN_HIGH,
                              "A workload shares network, processes or IPC with its machine",
                              "It sees and reaches what everybody else on the machine has there.",
                              "Leave out hostNetwork, hostPID and hostIPC (in command lines: "
                              "--net=host, --pid=host)."},
    [SCAN_HOST_PATH] = {"host-path", WORKLOADS, AT_SCAN_HIGH,
                        "A workload uses files of its machine",
                        "Files of the machine outlive the workload, tie it to that machine, and a "
                        "socket or a system folder among them is the machine itself.",
                        "Take data in as a model or as data with a digest; keep its own files in "
                        "its private folder; never hand in sockets of container engines."},
    [SCAN_HOST_PORT] = {"host-port", WORKLOADS, AT_SCAN_MEDIUM,
                        "A workload takes a fixed port of its machine",
                        "Two copies cannot share a machine, and whoever reaches the machine "
                        "reaches the port.",
                        "Let the agent give a port ($PORT), and let gateways find it."},
    [SCAN_SECCOMP_OFF] = {"seccomp-unconfined", WORKLOADS, AT_SCAN_MEDIUM,
                          "The filter of system calls is switched off",
                          "Seldom used system calls are where most kernel flaws are.",
                          "Use seccompProfile type RuntimeDefault."},
    [SCAN_WRITABLE_ROOT] = {"writable-root-filesystem", WORKLOADS, AT_SCAN_LOW,
                            "A container may change its own program files",
                            "An intruder can stay by changing what is started next time.",
                            "Set securityContext.readOnlyRootFilesystem: true, and mount what must "
                            "be written."},
    [SCAN_AUTOMOUNT] = {"mounted-account-token", WORKLOADS, AT_SCAN_LOW,
                        "A workload is given a token for the API without a need for one",
                        "Whoever gets in, gets the account's rights too.",
                        "Set automountServiceAccountToken: false where the API is not called."},
    [SCAN_DOWNLOAD_RUN] = {"download-and-run", WORKLOADS, AT_SCAN_HIGH,
                           "A command runs what it has just downloaded",
                           "Whoever holds that address, or the network to it, runs code here; and "
                           "it may be another program tomorrow.",
                           "Build it into an image, and name that by its digest."},
    [SCAN_NO_LIMITS] = {"missing-limits", WORKLOADS, AT_SCAN_MEDIUM,
                        "A workload says not how much it may use",
                        "It can starve its neighbours, and placement has to guess.",
                        "Set resources.cpu and resources.memory (in pods resources.limits)."},
    [SCAN_NO_GPU_MEMORY] = {"missing-gpu-memory", WORKLOADS, AT_SCAN_LOW,
                            "A share of a GPU without a bound of its memory",
                            "Who shares the GPU may find no memory left on it.",
                            "Set resources.gpuMemory beside the fraction."},
    [SCAN_NO_PROBE] = {"missing-probe", WORKLOADS, AT_SCAN_LOW,
                       "Nobody asks whether a server is ready",
                       "Traffic comes before it can answer, and goes on when it cannot any more.",
                       "Set readinessProbe; runners bring their own."},
    [SCAN_ONE_REPLICA] = {"single-replica", WORKLOADS, AT_SCAN_LOW, "One copy alone serves",
                          "When its machine goes, nothing serves until another one has started.",
                          "Set spec.replicas to 2 or more, or autoscaling."},
    [SCAN_SECRET_ENV] = {"secret-in-env", SECRETS, AT_SCAN_HIGH,
                         "A secret stands in the environment in clear",
                         "Whoever reads the manifest, its history or the object has it; it does "
                         "not change when it should.",
                         "Change that secret now, put the new one into a Secret, and name it with "
                         "secretKeyRef."},
    [SCAN_SECRET_ARGS] = {"secret-in-args", SECRETS, AT_SCAN_HIGH,
                          "A secret stands in a command line",
                          "Everybody on the machine sees command lines, and logs keep them.",
                          "Change that secret now; hand the new one in as an environment variable "
                          "from a Secret, or as a file."},
    [SCAN_SECRET_CONFIG] = {"secret-in-config", SECRETS, AT_SCAN_HIGH,
                            "A secret stands in a ConfigMap",
                            "ConfigMaps are not encrypted, and everyone who may view the namespace "
                            "reads them.",
                            "Change that secret now, and keep the new one in a Secret."},
    [SCAN_SECRET_METADATA] = {"secret-in-metadata", SECRETS, AT_SCAN_HIGH,
                              "A secret stands in a label or an annotation",
                              "Metadata is shown in lists, events and logs.",
                              "Change that secret now, and keep the new one in a Secret."},
    [SCAN_SECRET_FILE] = {"secret-in-file", SECRETS, AT_SCAN_LOW,
                          "A file holds a Secret with its values",
                          "base64 hides nothing: whoever reads the file, or the repository, has "
                          "them.",
                          "Make Secrets where they are used (kubectl create secret), or keep the "
                          "file sealed."},
    [SCAN_IMAGE_DIGEST] = {"image-without-digest", SUPPLY, AT_SCAN_MEDIUM,
                           "An image is named by what can change",
                           "The same tag may be other bytes tomorrow, on one machine and not on "
                           "another.",
                           "Name it by digest: registry/name@sha256:..."},
    [SCAN_IMAGE_LATEST] = {"image-latest", SUPPLY, AT_SCAN_MEDIUM,
                           "An image is named latest, or by nothing at all",
                           "Nobody can tell which version runs, or go back to the one before.",
                           "Name a version, better a digest."},
    [SCAN_MODEL_DIGEST] = {"model-without-digest", SUPPLY, AT_SCAN_MEDIUM,
                           "A model file is named without its digest",
                           "A changed file is served as though nothing had happened.",
                           "Set model.digest: sha256:<output of sha256sum>; agents then refuse "
                           "anything else."},
    [SCAN_MODEL_PLAIN] = {"model-over-http", SUPPLY, AT_SCAN_HIGH,
                          "A model is fetched without encryption",
                          "Anybody on the way can put in another model.",
                          "Fetch it over https, and set its digest."},
    [SCAN_MODEL_PICKLE] = {"model-runs-code", SUPPLY, AT_SCAN_MEDIUM,
                           "A model's file format can hold code",
                           "Opening a pickle runs whatever its author put into it.",
                           "Use safetensors, ONNX or GGUF."},
    [SCAN_OPEN_LISTENER] = {"open-listener", NETWORK, AT_SCAN_MEDIUM,
                            "A program listens on every address of its machine",
                            "It is reached past the gateway, without its tokens, limits and "
                            "records.",
                            "Listen on 127.0.0.1 with $PORT; gateways come through the agent's "
                            "machine."},
    [SCAN_PUBLIC_SERVICE] = {"public-service", NETWORK, AT_SCAN_HIGH,
                             "A service is open to everybody", "Nobody has to show who they are.",
                             "Leave service.access at Token, or put a proxy that authenticates in "
                             "front and say so in a suppression. Services of other clusters: "
                             "ClusterIP."},
    [SCAN_TLS_OFF] = {"tls-verification-off", NETWORK, AT_SCAN_HIGH,
                      "A program does not check whom it talks to",
                      "Anybody on the way can read and change everything.",
                      "Trust the right authority (a CA file) instead of none."},
    [SCAN_NETPOL_ALL] = {"network-policy-allows-all", NETWORK, AT_SCAN_LOW,
                         "A network policy has a rule that lets everybody through",
                         "It looks like protection and is none.",
                         "Name who may come, and to which ports."},
    [SCAN_RBAC_WILDCARD] = {"rbac-wildcard", RIGHTS, AT_SCAN_HIGH,
                            "A role says * for verbs, resources or groups",
                            "It grants what exists, and what will ever exist.",
                            "List verbs and resources."},
    [SCAN_RBAC_ESCALATES] = {"rbac-escalation", RIGHTS, AT_SCAN_HIGH,
                             "A role has a verb with which one gives oneself more",
                             "bind, escalate, impersonate, and tokens of accounts lead to rights "
                             "that the role does not list.",
                             "Take the verb out, or bound it by resourceNames."},
    [SCAN_RBAC_SECRETS] = {"rbac-reads-secrets", RIGHTS, AT_SCAN_MEDIUM, "A role reads all Secrets",
                           "One stolen token is then all of them.",
                           "Name the Secrets in resourceNames, with the verb get."},
    [SCAN_RBAC_EXEC] = {"rbac-exec", RIGHTS, AT_SCAN_MEDIUM,
                        "A role runs commands inside workloads",
                        "Whoever has it has the workload's secrets and its network.",
                        "Give it for the time of an incident, to people, by name."},
    [SCAN_RBAC_ADMIN] = {"rbac-cluster-admin", RIGHTS, AT_SCAN_HIGH,
                         "A binding hands out cluster-admin",
                         "It is every right in every namespace, also that of giving it on.",
                         "Bind a role that lists what is needed; keep cluster-admin for "
                         "emergencies."},
    [SCAN_RBAC_EVERYBODY] = {"rbac-everybody", RIGHTS, AT_SCAN_CRITICAL,
                             "A binding gives rights to everybody",
                             "system:anonymous and system:unauthenticated are the whole network; "
                             "system:authenticated is every account there is.",
                             "Name users, groups or accounts."},
    [SCAN_RBAC_DEFAULT_ACCOUNT] = {"rbac-default-account", RIGHTS, AT_SCAN_MEDIUM,
                                   "A binding gives rights to an account named default",
                                   "Everything that names no account runs with them.",
                                   "Make an account for what needs the right."},
    [SCAN_CERTIFICATE] = {"certificate-expiring", TENANTS, AT_SCAN_MEDIUM,
                          "A certificate ends soon, or has ended",
                          "From that moment nobody who checks it connects any more.",
                          "Renew it, and let something renew it from now on."},
    [SCAN_CERTIFICATE_WEAK] = {"certificate-weak", TENANTS, AT_SCAN_MEDIUM,
                               "A certificate has a weak key or signature",
                               "RSA below 2048 bits and SHA-1 can be forged.",
                               "Make a new key: EC P-256, or RSA with 3072 bits; sign with "
                               "SHA-256."},
    [SCAN_DATA_CLASS] = {"data-class-without-residency", TENANTS, AT_SCAN_HIGH,
                         "Data of a class for which no rule says where it may be",
                         "A class without a rule keeps nothing anywhere: the data may be placed "
                         "in any jurisdiction.",
                         "Add the class to spec.residency of a Policy, or correct the class."},
    [SCAN_NS_QUOTA] = {"namespace-without-quota", TENANTS, AT_SCAN_LOW,
                       "A namespace may hold as much as it likes",
                       "One tenant's mistake takes the capacity of all.",
                       "Make a ResourceQuota in it."},
    [SCAN_NS_POLICY] = {"namespace-without-network-policy", TENANTS, AT_SCAN_LOW,
                        "Instances of a namespace may be reached by all others",
                        "A workload that is taken over reaches every neighbour.",
                        "Make a NetworkPolicy in it that selects all and allows what is meant."},
    [SCAN_NS_DEFAULT] = {"default-namespace", TENANTS, AT_SCAN_LOW,
                         "A workload is put into the namespace default",
                         "Rights, quotas and policies belong to a namespace of one's own.",
                         "Name a namespace in metadata."},
    [SCAN_IGNORE_REASON] = {"suppression-without-reason", SCAN, AT_SCAN_MEDIUM,
                            "A suppression gives no reason, so it does nothing",
                            "In a year nobody knows whether it still holds.",
                            "Write the reason as the annotation's value."},
    [SCAN_IGNORE_RULE] = {"suppression-of-unknown-rule", SCAN, AT_SCAN_LOW,
                          "A suppression names a rule that is none",
                          "What was meant is not suppressed.",
                          "Correct the name: atoll scan --rules lists them."},
};

const struct at_scan_rule *at_scan_rules(size_t *ret_count)
{
    *ret_count = SCAN_RULES;
    return SCAN_TABLE;
}

const struct at_scan_rule *at_scan_rule_find(const char *name)
{
    for (size_t i = 0; i < SCAN_RULES; i++) {
        if (at_streq(SCAN_TABLE[i].name, name)) {
            return &SCAN_TABLE[i];
        }
    }
    return NULL;
}
