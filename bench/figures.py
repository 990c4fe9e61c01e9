"""What the bench scripts share: roles of the binary started and stopped, figures printed, how they were got."""
import base64
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ATOLL = os.environ.get("ATOLL_BIN", os.path.join(ROOT, "build/atoll"))
RELEASE = os.environ.get("ATOLL_BUILD", os.path.join(ROOT, "build/release"))
RESULTS = os.environ.get("ATOLL_BENCH_RESULTS", os.path.join(ROOT, "build/bench-results.json"))


def figure(name, value, unit):
    text = f"{value:.2f}" if isinstance(value, float) and value < 100 else f"{value:.0f}"
    print(f"{name} {text} {unit}", flush=True)


def method(text):
    print(f"# {text}", flush=True)


def median(values):
    return sorted(values)[len(values) // 2]


def table(rows):
    """Rows of texts in columns, the first one being the heads; every line begins with two spaces."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  " + "  ".join(text.rjust(width) if i else text.ljust(width)
                               for i, (text, width) in enumerate(zip(row, widths))).rstrip(), flush=True)


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        model = re.search(r"^model name\s*: (.*)$", f.read(), re.M)
    folder = os.environ.get("TMPDIR", "/tmp")
    system = subprocess.run(["findmnt", "-no", "FSTYPE", "-T", folder], capture_output=True, text=True, check=False)
    with open("/proc/loadavg", encoding="ascii") as f:
        load = f.read().split()[0]
    return {"cpu": model.group(1) if model else os.uname().machine, "cores": len(os.sched_getaffinity(0)),
            "kernel": os.uname().release, "filesystem": system.stdout.strip() or "unknown", "load": load,
            "date": time.strftime("%Y-%m-%d", time.gmtime())}


def record(section, results):
    """Keep a script's results for bench/report, which makes the page in docs/ of them."""
    everything = {}
    if os.path.exists(RESULTS):
        with open(RESULTS, encoding="utf-8") as f:
            everything = json.load(f)
    everything[section] = {"machine": machine(), "results": results}
    os.makedirs(os.path.dirname(RESULTS), exist_ok=True)
    with open(RESULTS, "w", encoding="utf-8") as f:
        json.dump(everything, f, indent=1, sort_keys=True)


def build(*programs):
    """Build load generators; no optimised build, no figures."""
    subprocess.run(["ninja", "-C", RELEASE, "--quiet", *(f"bench/{name}" for name in programs)], check=True)


def load(target, operation, clients, seconds, first=0, count=0):
    """Drive a server with bench-load; its line of JSON as a dict."""
    done = subprocess.run([os.path.join(RELEASE, "bench/bench-load"), target, operation, str(clients), str(seconds),
                           str(first), str(count)], capture_output=True, text=True, check=False, timeout=600)
    if done.returncode != 0:
        sys.exit(f"bench: {operation} by {clients} clients: {done.stderr.strip()}")
    return json.loads(done.stdout)


def cpu_s(pid):
    """CPU time of a process so far, all threads."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Bench:
    """A temporary folder and the processes started from it; all end with the `with` block."""

    def __enter__(self):
        self.dir = tempfile.mkdtemp(prefix="atoll-bench-")
        self.procs = []
        return self

    def __exit__(self, *_):
        for proc in reversed(self.procs):
            self.stop(proc)
        shutil.rmtree(self.dir, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.dir, name)

    def start(self, role, *args, timeout_s=30):
        """Start a role; returns (process, ready line, seconds from start to that line)."""
        begin = time.monotonic()
        with open(self.path(f"{role}.log"), "ab") as log:
            proc = subprocess.Popen([ATOLL, role, *args], stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL,
                                    text=True)
        self.procs.append(proc)
        signal.alarm(timeout_s)
        line = proc.stdout.readline()
        signal.alarm(0)
        took = time.monotonic() - begin
        if not line.startswith("ready"):
            with open(self.path(f"{role}.log"), encoding="utf-8", errors="replace") as log:
                sys.exit(f"bench: atoll {role} does not start:\n{log.read()[-2000:]}")
        return proc, line.split(), took

    def stop(self, proc):
        if proc in self.procs:
            self.procs.remove(proc)
        if proc.poll() is None:
            proc.terminate()
            try:
                proc.wait(timeout=20)
            except subprocess.TimeoutExpired:
                proc.kill()
                proc.wait()
        if proc.stdout is not None:
            proc.stdout.close()

    def server(self, state="server", *options, timeout_s=30):
        """Returns (process, Api, seconds to ready)."""
        proc, line, took = self.start("server", "--state", self.path(state), "--listen", "127.0.0.1:0", *options,
                                      timeout_s=timeout_s)
        return proc, Api(line[-1], self.path(state)), took

    def join(self, api, role, site="bench"):
        answer = api.call("POST", "/join/v1/tokens", {"role": role, "site": site, "ttl": "1h"})
        return ["--server", api.url, "--token", answer["token"], "--ca-pin", answer["caPin"], "--state", self.path(role)]

    def agent(self, api):
        api.call("POST", "/apis/atoll.dev/v1/sites",
                 {"metadata": {"name": "bench"}, "spec": {"class": "onprem", "jurisdiction": "EU"}})
        proc, _, took = self.start("agent", *self.join(api, "agent"), "--name", "bench", "--stop-instances")
        return proc, took

    def gateway(self, api):
        proc, _, took = self.start("gateway", *self.join(api, "gateway"), "--name", "bench", "--listen", "127.0.0.1:0")
        return proc, took


class Api:
    """The control plane's API with the admin's client certificate from admin.kubeconfig."""

    def __init__(self, url, state):
        self.url = url
        self.host = url.removeprefix("https://")
        self.kubeconfig = os.path.join(state, "admin.kubeconfig")
        with open(self.kubeconfig, encoding="utf-8") as f:
            text = f.read()
        files = {}
        for key in ("certificate-authority", "client-certificate", "client-key"):
            files[key] = os.path.join(state, f"bench-{key}.pem")
            with open(files[key], "wb") as f:
                f.write(base64.b64decode(re.search(rf"{key}-data: (\S+)", text).group(1)))
        self.tls = ssl.create_default_context(cafile=files["certificate-authority"])
        self.tls.load_cert_chain(files["client-certificate"], files["client-key"])
        self.connection = http.client.HTTPSConnection(self.host, context=self.tls, timeout=30)

    def call(self, verb, path, body=None):
        self.connection.request(verb, path, json.dumps(body) if body is not None else None,
                                {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            sys.exit(f"bench: {verb} {path}: {answer.status} {text.decode()[:500]}")
        return json.loads(text)

    def watch(self, path):
        """Events of a watch, one by one."""
        connection = http.client.HTTPSConnection(self.host, context=self.tls, timeout=30)
        connection.request("GET", path)
        answer = connection.getresponse()
        while line := answer.readline():
            yield json.loads(line)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def await_answer(bench, name, proc, url, tls=None, token=None, timeout_s=60):
    """Until GET url answers 200. Returns the seconds that it took."""
    begin = time.monotonic()
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    while True:
        try:
            with urllib.request.urlopen(request, context=tls, timeout=5) as answer:
                if answer.status == 200:
                    return time.monotonic() - begin
        except (OSError, http.client.HTTPException):
            pass
        if proc.poll() is not None or time.monotonic() - begin > timeout_s:
            with open(bench.path(f"{name}.log"), encoding="utf-8", errors="replace") as log:
                sys.exit(f"bench: {name} does not start:\n{log.read()[-2000:]}")
        time.sleep(0.05)


def start_peer(bench, name, *command):
    with open(bench.path(f"{name}.log"), "ab") as log:
        proc = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=bench.dir)
    bench.procs.append(proc)
    return proc


def etcd(bench, name="etcd"):
    """A fresh etcd of one member that syncs each write to disk: (process, url); None when it is not installed."""
    if shutil.which("etcd") is None:
        return None
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    proc = start_peer(bench, name, "etcd", "--name", name, "--data-dir", bench.path(name), "--listen-client-urls", client,
                      "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls",
                      peer, "--initial-cluster", f"{name}={peer}")
    await_answer(bench, name, proc, f"{client}/health")
    return proc, client


def kube_apiserver(bench, etcd_url):
    """A real kube-apiserver: (process, kubeconfig, seconds to ready); None when there is none."""
    binary = os.environ.get("KUBE_APISERVER") or shutil.which("kube-apiserver")
    if binary is None:
        return None
    port, token = free_port(), "bench-token"
    with open(bench.path("tokens.csv"), "w", encoding="ascii") as f:
        f.write(f'{token},admin,admin,"system:masters"\n')
    subprocess.run(["openssl", "genrsa", "-out", bench.path("sa.key"), "2048"], check=True, capture_output=True)
    url, certs = f"https://127.0.0.1:{port}", bench.path("kube")
    options = {
        "etcd-servers": etcd_url, "bind-address": "127.0.0.1", "advertise-address": "127.0.0.1", "secure-port": port,
        "cert-dir": certs, "service-cluster-ip-range": "10.96.0.0/16", "token-auth-file": bench.path("tokens.csv"),
        "authorization-mode": "RBAC", "service-account-key-file": bench.path("sa.key"),
        "service-account-signing-key-file": bench.path("sa.key"),
        "service-account-issuer": "https://kubernetes.default.svc", "endpoint-reconciler-type": "none",
    }
    begin = time.monotonic()
    proc = start_peer(bench, "kube-apiserver", binary, *(f"--{key}={value}" for key, value in options.items()))
    trust = ssl._create_unverified_context()  # its certificate is made while it starts
    await_answer(bench, "kube-apiserver", proc, f"{url}/readyz", trust, token)
    await_answer(bench, "kube-apiserver", proc, f"{url}/api/v1/namespaces/default", trust, token)
    took = time.monotonic() - begin
    kubeconfig = bench.path("kube.kubeconfig")
    with open(os.path.join(certs, "apiserver.crt"), "rb") as f:
        authority = base64.b64encode(f.read()).decode()
    with open(kubeconfig, "w", encoding="ascii") as f:
        json.dump({"apiVersion": "v1", "kind": "Config", "current-context": "x",
                   "clusters": [{"name": "c", "cluster": {"server": url, "certificate-authority-data": authority}}],
                   "users": [{"name": "u", "user": {"token": token}}],
                   "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}]}, f)
    return proc, kubeconfig, took


def memory_kib(pid):
    """(RSS, PSS) of a process."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        text = f.read()
    return tuple(int(re.search(rf"^{key}:\s+(\d+)", text, re.M).group(1)) for key in ("Rss", "Pss"))
