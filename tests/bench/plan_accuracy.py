#!/usr/bin/env python3
"""How well `moesaic plan` foretells this machine: step time and memory of short trainings against their plan.

    tests/bench/plan_accuracy.py [--calibration] [--names REGEX] [--json FILE] [--priority] [--binary build/release/moesaic]

Trains each configuration for nine steps under mpirun, on a machine that should be quiet, with a learning rate that leaves
routing as it is at the start, and plans it, with the load of the fullest rank that the run had (`--traffic hot_rank`).
Measured is the fastest of the last seven steps, and with --json of all runs that the file holds: a machine that others
share is slower now and then, never faster. --priority (as root): before other programs, as real-time processes where
every rank has a core. Exit code 3 where a step time is off by more than 25 % or memory by more than 5 %. --calibration
takes the configurations that the factors of launch/plan/cost_model.cpp were fitted to instead of those they have not seen.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

# name, base, ranks, overrides
CALIBRATION = [
    ("quad", "quad", 1, {}),
    ("quad, 2 ranks", "quad", 2, {"parallel.expert": 2}),
    ("quad, 4 ranks", "quad", 4, {"parallel.expert": 4}),
    ("replicas", "quad", 2, {"parallel.expert": 1}),
    ("wide", "quad", 2, {"model.width": 256, "model.moe.hidden": 512, "train.batch_sequences": 8, "parallel.expert": 2}),
    ("many experts", "quad", 2, {"model.moe.experts": 32, "model.moe.top_k": 4, "model.moe.hidden": 64, "parallel.expert": 2}),
    ("dense", "quad", 1, {"model.moe.experts": 0, "model.dense_hidden": 512}),
    ("long", "quad", 1, {"task.data.seq_len": 1024, "train.batch_sequences": 8, "train.micro_sequences": 1}),
    ("tiny", "tiny", 1, {}),
    ("tiny, 2 ranks", "tiny", 2, {"parallel.expert": 2}),
    ("vocabulary", "tiny", 1, {"model.vocabulary": 8192, "model.width": 64}),
    ("deep", "quad", 1, {"model.layers": 12, "model.width": 64, "train.batch_sequences": 16}),
    ("16 experts of 128", "quad", 2, {"model.moe.experts": 16, "model.moe.hidden": 128, "parallel.expert": 2}),
    ("4 ranks, 2 replicas", "quad", 4, {"parallel.expert": 2, "model.moe.hidden": 384}),
    ("tiny, wider", "tiny", 2, {"model.width": 96, "model.moe.hidden": 192, "parallel.expert": 2}),
    ("tiny, 4 ranks", "tiny", 4, {"parallel.expert": 4}),
    ("4 ranks, 4 replicas", "quad", 4, {"parallel.expert": 1, "model.layers": 3}),
    ("64 experts of 32", "quad", 1, {"model.moe.experts": 64, "model.moe.hidden": 32, "model.moe.top_k": 4}),
    ("width 512", "quad", 1, {"model.width": 512, "model.moe.hidden": 1024, "model.layers": 2, "train.batch_sequences": 8}),
    ("width 512, 2 ranks", "quad", 2, {"model.width": 512, "model.moe.hidden": 1024, "model.layers": 2, "train.batch_sequences": 8, "parallel.expert": 2}),
]
UNSEEN = [
    ("quad, 6 layers", "quad", 2, {"model.layers": 6, "parallel.expert": 2}),
    ("24 experts of 96", "quad", 2, {"model.moe.experts": 24, "model.moe.top_k": 3, "model.moe.hidden": 96, "parallel.expert": 2}),
    ("width 192", "quad", 1, {"model.width": 192, "train.batch_sequences": 16}),
    ("top 1", "quad", 2, {"model.moe.top_k": 1, "model.moe.router.normalize": "false", "parallel.expert": 2}),
    ("sequences of 512", "quad", 2, {"task.data.seq_len": 512, "train.batch_sequences": 16, "train.micro_sequences": 2, "parallel.expert": 2}),
    ("shared expert, every other layer", "quad", 1, {"model.moe.every": 2, "model.moe.shared_experts": 1}),
    ("4 replicas, width 96", "quad", 4, {"parallel.expert": 1, "model.width": 96}),
    ("4 ranks, width 192", "quad", 4, {"parallel.expert": 4, "model.width": 192, "train.batch_sequences": 16}),
    ("width 320, 4 experts", "quad", 2, {"model.width": 320, "model.moe.experts": 4, "train.batch_sequences": 8, "parallel.expert": 2}),
    ("tiny, 4 layers, 16 experts", "tiny", 2, {"model.layers": 4, "model.width": 64, "model.moe.experts": 16, "parallel.expert": 2}),
    ("recomputed", "quad", 1, {"train.recompute": "layer", "model.layers": 3}),
]
STEPS = 9


def sets(values):
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


def phases_of(path):
    """Seconds by phase of the mean rank, from a trace."""
    with open(path) as file:
        events = [event for event in json.load(file)["traceEvents"] if event["ph"] == "X"]
    ranks = len({event["pid"] for event in events})
    seconds = {}
    for event in events:
        name = event["name"].split(",")[0].replace(" backward", "")
        name = name if event["cat"] == "compute" else event["cat"]
        seconds[name] = seconds.get(name, 0) + 1e-6 * event["dur"] / ranks
    return seconds


def measure(binary, base, ranks, values, folder):
    more = {"train.steps": STEPS, "train.log_every": 1, "train.eval_every": 1000, "train.checkpoint_every": 1000,
            "metrics.sinks": "[jsonl]", "generalization.heldout_sequences": 4, "generalization.probe_sequences": 4,
            "parallel.exchange": "shared_memory" if values.get("parallel.expert", 1) > 1 else "flat",
            "optimizer.schedule.warmup": 2, "optimizer.lr": 1e-6}
    words = [binary, "train", f"configs/{base}.yaml", "--out", folder, "--trace-step", str(STEPS - 2)]
    words += sets({**more, **values})
    if ranks > 1:
        words = ["mpirun", "--quiet", "--oversubscribe", "-np", str(ranks)] + words
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env=environment)
    with open(f"{folder}/{base}/metrics.jsonl") as lines:
        steps = [record for record in map(json.loads, lines) if record["event"] == "step"][2:]
    return {"step_ms": min(step["step_ms"] for step in steps),
            "memory_bytes": max(step["memory_bytes"] for step in steps),
            "load": statistics.median(step["rank_load_max_over_mean"] or 1 for step in steps),
            "phases": phases_of(f"{folder}/{base}/trace.step{STEPS - 2}.json")}


def plan(binary, base, ranks, values, load, folder):
    cluster = f"{folder}/cluster.yaml"
    with open(cluster, "w") as file:
        file.write(f"ranks_per_node: {ranks}\ndevice: cpu\n")
    group = values.get("parallel.expert", 1)
    traffic = f"hot_rank:{min(load / group, 1):.4f}" if group > 1 and load > 1 else "uniform"
    out = subprocess.run([binary, "plan", f"configs/{base}.yaml", "--cluster", cluster, "--ranks", str(ranks), "--rows", "100",
                          "--traffic", traffic, "--json"] + sets(values), check=True, capture_output=True, text=True).stdout
    for row in json.loads(out)["rows"]:
        if row["expert_parallel"] == values.get("parallel.expert", 1):
            return row
    raise SystemExit(f"no such layout: {values}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--calibration", action="store_true")
    parser.add_argument("--binary", default="build/release/moesaic")
    parser.add_argument("--names", help="only these, a regular expression")
    parser.add_argument("--priority", action="store_true", help="run before other programs")
    parser.add_argument("--json", help="write everything here, beside what an earlier call has written there")
    options = parser.parse_args()
    os.chdir(os.path.join(os.path.dirname(__file__), "..", ".."))
    rows, wrong = {}, 0
    if options.json and os.path.exists(options.json):
        with open(options.json) as file:
            rows = json.load(file)
    print("| configuration | ranks | measured ms | planned ms | off | measured MiB | planned MiB | off |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, base, ranks, values in CALIBRATION if options.calibration else UNSEEN:
        if options.names and not re.fullmatch(options.names, name):
            continue
        if options.priority:
            own_cores = ranks <= len(os.sched_getaffinity(0))
            os.sched_setscheduler(0, os.SCHED_FIFO if own_cores else os.SCHED_OTHER, os.sched_param(1 if own_cores else 0))
            os.setpriority(os.PRIO_PROCESS, 0, -10)
        with tempfile.TemporaryDirectory() as folder:
            got = measure(options.binary, base, ranks, values, folder)
            want = plan(options.binary, base, ranks, values, got["load"], folder)
        rows.setdefault(name, []).append({"ranks": ranks, "measured": got, "planned": want})
        got = min((row["measured"] for row in rows[name]), key=lambda measured: measured["step_ms"])
        time = want["step_ms"] / got["step_ms"] - 1
        memory = want["memory_bytes"] / got["memory_bytes"] - 1
        wrong += abs(time) > 0.25 or abs(memory) > 0.05
        print(f"| {name} | {ranks} | {got['step_ms']:.1f} | {want['step_ms']:.1f} | {time:+.0%} | "
              f"{got['memory_bytes'] / 2**20:.1f} | {want['memory_bytes'] / 2**20:.1f} | {memory:+.1%} |", flush=True)
        if options.json:
            with open(options.json, "w") as file:
                json.dump(rows, file)
    return 3 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
