/* Durable creates per second through the API: so many clients, each with its own connection, each
 * sending the next create when the last is answered.
 * Usage: create_load KUBECONFIG CLIENTS SECONDS */
#include "client/client.h"
#include "core/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLIENTS_MAX 64 /* the client's pool opens as many connections */
#define LATENCIES_MAX 1000000
#define DATA_BYTES 1024

struct load {
    struct at_loop *loop;
    struct at_client *client;
    json_t *body;
    int64_t begin_ns, end_ns;
    int open;
    uint64_t next_name, failed;
    int64_t *latencies;
    size_t n;
    char first_error[AT_ERR_MSG_BYTES_MAX];
};

struct worker {
    struct load *load;
    int64_t sent_ns;
};

static int64_t now_ns(void)
{
    return at_sys_mono_ns(at_sys_real());
}

static void send_next(struct worker *w);

static void on_answer(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    (void)status;
    (void)body;
    struct worker *w = ctx;
    struct load *load = w->load;
    int64_t now = now_ns();
    if (rc != AT_OK) {
        load->failed++;
        snprintf(load->first_error, sizeof load->first_error, "%s",
                 err != NULL ? err->msg : at_rc_name(rc));
    } else if (load->n < LATENCIES_MAX) {
        load->latencies[load->n++] = now - w->sent_ns;
    }
    if (rc != AT_OK || now >= load->end_ns) {
        if (--load->open == 0) {
            at_loop_stop(load->loop);
        }
        return;
    }
    send_next(w);
}

static void send_next(struct worker *w)
{
    struct load *load = w->load;
    char name[48];
    snprintf(name, sizeof name, "bench-%llx-%llu", (unsigned long long)load->begin_ns,
             (unsigned long long)load->next_name++);
    at_json_set_at(load->body, "metadata.name", json_string(name));
    w->sent_ns = now_ns();
    at_client_create(load->client, &AT_KIND_CONFIG_MAP, "default", load->body, on_answer, w);
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static double percentile_ms(const struct load *load, int per_thousand)
{
    return (double)load->latencies[(load->n - 1) * (size_t)per_thousand / 1000] / 1e6;
}

static int report(struct load *load, int clients)
{
    if (load->failed != 0 || load->n == 0) {
        fprintf(stderr, "create_load: %llu creates failed: %s\n", (unsigned long long)load->failed,
                load->first_error);
        return 1;
    }
    qsort(load->latencies, load->n, sizeof(load->latencies[0]), compare);
    double seconds = (double)(now_ns() - load->begin_ns) / 1e9;
    printf("durable_creates_%d_clients %.0f 1/s\n", clients, (double)load->n / seconds);
    printf("durable_create_p50_%d_clients %.2f ms\n", clients, percentile_ms(load, 500));
    printf("durable_create_p99_%d_clients %.2f ms\n", clients, percentile_ms(load, 990));
    return 0;
}

int main(int argc, char **argv)
{
    int clients = argc == 4 ? atoi(argv[2]) : 0;
    int seconds = argc == 4 ? atoi(argv[3]) : 0;
    if (clients < 1 || clients > CLIENTS_MAX || seconds < 1) {
        fprintf(stderr, "usage: create_load KUBECONFIG CLIENTS(1..%d) SECONDS\n", CLIENTS_MAX);
        return 2;
    }
    struct at_err err = {0};
    struct at_client_kubeconfig *config = NULL;
    struct load load = {.loop = at_loop_new(at_sys_real()), .open = clients};
    enum at_rc rc = at_client_kubeconfig_load(argv[1], NULL, &config, &err);
    if (rc == AT_OK) {
        rc = at_client_new(load.loop, &config->options, &load.client, &err);
    }
    if (rc != AT_OK) {
        fprintf(stderr, "create_load: %s\n", err.msg);
        return 1;
    }
    char data[DATA_BYTES + 1];
    memset(data, 'd', DATA_BYTES);
    data[DATA_BYTES] = '\0';
    load.body = json_pack("{s:s, s:s, s:{}, s:{s:s}}", "apiVersion", "v1", "kind", "ConfigMap",
                          "metadata", "data", "value", data);
    load.latencies = at_alloc(LATENCIES_MAX * sizeof(load.latencies[0]));
    load.begin_ns = now_ns();
    load.end_ns = load.begin_ns + seconds * AT_NS_PER_S;
    struct worker workers[CLIENTS_MAX];
    for (int i = 0; i < clients; i++) {
        workers[i].load = &load;
        send_next(&workers[i]);
    }
    at_loop_run(load.loop);
    int status = report(&load, clients);
    at_client_free(load.client);
    at_client_kubeconfig_free(config);
    at_loop_free(load.loop);
    json_decref(load.body);
    at_free(load.latencies);
    return status;
}
