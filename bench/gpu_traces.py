"""Traces made from an openb trace by rule: the published variants by the counts of their names, and others that nobody has
seen. Each is (nodes, pods), lists of dicts with the columns of the files; the same seed gives the same trace."""
import csv
import os
import random

NODE_COLUMNS = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
POD_COLUMNS = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec", "creation_time", "deletion_time")

# How many pods ask for no GPU, a share, one, two, four, eight (Weng et al., ATC 2023, and the files beside it).
CPU_ONLY = {"cpu050": 375, "cpu100": 789, "cpu200": 1768, "cpu250": 2356}
SHARED = {"gpushare40": (4001, 3001, 62), "gpushare60": (5233, 1801, 30), "gpushare80": (6279, 768, 17),
          "gpushare100": (7064, 0, 0)}
MULTI = {"multigpu20": 247, "multigpu30": 431, "multigpu40": 669, "multigpu50": 984}
SPEC = {"gpuspec10": 732, "gpuspec20": 1444, "gpuspec25": 1759, "gpuspec33": 2388}
PUBLISHED = ("default", *CPU_ONLY, *SHARED, *MULTI, *SPEC)
UNSEEN = ("resampled", "sizes-shifted", "sizes-uniform", "few-sizes", "big-cluster", "small-cluster", "nodes-of-2", "nodes-of-8",
          "cpu-scarce", "cpu-plenty", "one-model", "lean-and-fat", "half-spec")


def read(folder, trace):
    with open(os.path.join(folder, "openb_node_list_gpu_node.csv"), encoding="utf-8") as f:
        nodes = list(csv.DictReader(f))
    with open(os.path.join(folder, f"openb_pod_list_{trace}.csv"), encoding="utf-8") as f:
        pods = list(csv.DictReader(f))
    return nodes, pods


def write(rows, columns, path):
    with open(path, "w", encoding="utf-8", newline="") as f:
        out = csv.DictWriter(f, columns, extrasaction="ignore", lineterminator="\n")
        out.writeheader()
        out.writerows(rows)


def kind_of(pod):
    if pod["num_gpu"] == "0":
        return "cpu"
    if pod["num_gpu"] == "1":
        return "share" if int(pod["gpu_milli"]) < 1000 else "one"
    return "multi"


def renamed(pods):
    return [{**p, "name": f"pod-{i:06}"} for i, p in enumerate(pods)]


def by_counts(r, pods, counts):
    """So many pods of each kind: all of it as often as goes, the rest drawn."""
    out = []
    for kind, n in counts.items():
        of_kind = [p for p in pods if kind_of(p) == kind]
        out += of_kind * (n // len(of_kind)) + r.sample(of_kind, n % len(of_kind))
    return renamed(out)


def with_spec(r, nodes, pods, n):
    """n GPU pods insist on models; each set holds a model with its share of the GPU requests' favour."""
    models = sorted({x["model"] for x in nodes if x["gpu"] != "0"})
    sets = [r.sample(models, 1 + i % 3) for i in range(6)] + [["T4"], ["V100M16", "V100M32"]]
    out = [dict(p) for p in pods]
    for p in r.sample([p for p in out if p["num_gpu"] != "0"], n):
        p["gpu_spec"] = "|".join(r.choice(sets))
    return out


def made(r, name, nodes, pods):
    """One of UNSEEN."""
    if name == "sizes-shifted":
        pods = [{**p, "gpu_milli": str(max(10, min(990, int(int(p["gpu_milli"]) * 0.83))))} if kind_of(p) == "share" else p
                for p in pods]
    elif name == "sizes-uniform":
        pods = [{**p, "gpu_milli": str(r.randrange(20, 1000))} if kind_of(p) == "share" else p for p in pods]
    elif name == "few-sizes":
        pods = [{**p, "gpu_milli": r.choice(("250", "300", "500", "600"))} if kind_of(p) == "share" else p for p in pods]
    elif name == "big-cluster":
        nodes = [{**n, "sn": f"{n['sn']}-{k}"} for n in nodes for k in range(3)]
    elif name == "small-cluster":
        nodes = r.sample(nodes, 250)
    elif name == "nodes-of-2":
        nodes = [n for n in nodes if n["gpu"] in ("1", "2")] * 3
        nodes = [{**n, "sn": f"node-{i}"} for i, n in enumerate(nodes)]
    elif name == "nodes-of-8":
        nodes = [n for n in nodes if n["gpu"] == "8"]
    elif name in ("cpu-scarce", "cpu-plenty"):
        factor = 0.7 if name == "cpu-scarce" else 2
        nodes = [{**n, "cpu_milli": str(int(int(n["cpu_milli"]) * factor))} for n in nodes]
    elif name == "one-model":
        nodes = [{**n, "model": "T4"} for n in nodes]
    elif name == "lean-and-fat":
        nodes = [{**n, "cpu_milli": str(int(n["cpu_milli"]) * r.choice((1, 3)) // 2)} for n in nodes]
    elif name == "half-spec":
        pods = with_spec(r, nodes, pods, sum(p["num_gpu"] != "0" for p in pods) // 2)
    return nodes, renamed(r.choices(pods, k=len(pods)))


def make(name, seed, nodes, pods):
    """name: of PUBLISHED or UNSEEN; nodes, pods: the default trace."""
    r = random.Random(f"{name}-{seed}")
    counts = {kind: sum(kind_of(p) == kind for p in pods) for kind in ("cpu", "share", "one", "multi")}
    if name == "default":
        return nodes, pods
    if name in CPU_ONLY:
        return nodes, by_counts(r, pods, {**counts, "cpu": CPU_ONLY[name]})
    if name in SHARED:
        share, one, multi = SHARED[name]
        return nodes, by_counts(r, pods, {**counts, "share": share, "one": one, "multi": multi})
    if name in MULTI:
        return nodes, by_counts(r, pods, {**counts, "multi": MULTI[name]})
    if name in SPEC:
        return nodes, with_spec(r, nodes, pods, SPEC[name])
    return made(r, name, nodes, pods)
