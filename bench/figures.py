"""What the bench scripts share: roles of the binary started and stopped, figures printed, how they were got."""
import base64
import http.client
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ATOLL = os.environ.get("ATOLL_BIN", os.path.join(ROOT, "build/atoll"))


def figure(name, value, unit):
    text = f"{value:.2f}" if isinstance(value, float) and value < 100 else f"{value:.0f}"
    print(f"{name} {text} {unit}", flush=True)


def method(text):
    print(f"# {text}", flush=True)


def median(values):
    return sorted(values)[len(values) // 2]


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
        proc.stdout.close()

    def server(self, state="server"):
        """Returns (process, Api, seconds to ready)."""
        proc, line, took = self.start("server", "--state", self.path(state), "--listen", "127.0.0.1:0")
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


def memory_kib(pid):
    """(RSS, PSS) of a process."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        text = f.read()
    return tuple(int(re.search(rf"^{key}:\s+(\d+)", text, re.M).group(1)) for key in ("Rss", "Pss"))
