#!/usr/bin/env python3
"""How well `train --check` foretells memory: memory_bytes of the metrics, and what the system says that a process had resident.

    tests/bench/memory_accuracy.py [--names REGEX] [--binary build/release/moesaic]

Trains each configuration for six steps, with its evaluations and checkpoints. The larger of two ranks. `process` is the most that
was resident at any time (ru_maxrss), as --check names it, less what the program and its data take before training, which
--check measures itself. Exit code 3 where either is off by more than 10 %.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

# name, configuration, ranks, overrides
ROWS = [
    ("quad", "configs/quad.yaml", 1, {}),
    ("quad, 2 ranks, flat", "configs/quad.yaml", 2, {"parallel.expert": 2, "parallel.exchange": "flat"}),
    ("dense, bf16, no copies", "configs/quad.yaml", 1, {"model.moe.experts": 0, "model.dense_hidden": 2048, "model.width": 512,
                                                        "train.batch_sequences": 8, "train.precision": "bf16", "train.async_checkpoints": "false"}),
    ("64 experts, recomputed, no copies", "configs/quad.yaml", 1, {"model.moe.experts": 64, "model.width": 256, "train.recompute": "layer", "train.batch_sequences": 8,
                                                                    "train.async_checkpoints": "false"}),
]
STEPS = 6
UNITS = {"KiB": 2**-10, "MiB": 1, "GiB": 2**10}


def as_rank(folder, command):
    """Runs the program as one rank of a job, and leaves its peak of resident memory in the folder."""
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    with open(f"{folder}/peak.{os.environ.get('OMPI_COMM_WORLD_RANK', '0')}", "w") as file:
        file.write(str(usage.ru_maxrss / 1024))
    sys.exit(os.waitstatus_to_exitcode(status))


def mebibytes(text, pattern):
    value, unit = re.search(pattern, text).groups()
    return float(value) * UNITS[unit]


def measure(binary, path, ranks, values):
    sets = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    sets += ["--set", f"train.steps={STEPS}", "--set", "train.log_every=1", "--set", "metrics.sinks=[jsonl]", "--set", "optimizer.schedule.warmup=1"]
    launcher = ["mpirun", "--quiet", "--oversubscribe", "-np", str(ranks)] if ranks > 1 else []
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    check = subprocess.run(launcher + [binary, "train", path, "--check"] + sets, check=True, capture_output=True, text=True, env=environment).stdout
    with tempfile.TemporaryDirectory() as folder:
        train = [binary, "train", path, "--out", folder] + sets
        subprocess.run(launcher + [sys.executable, os.path.abspath(__file__), "--rank-in", folder, *train], check=True, env=environment,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        name = os.path.splitext(os.path.basename(path))[0]
        with open(f"{folder}/{name}/metrics.jsonl") as lines:
            steps = [record for record in map(json.loads, lines) if record["event"] == "step"]
        peaks = [float(open(f"{folder}/peak.{rank}").read()) for rank in range(ranks)]
    base = mebibytes(check, r"([\d.]+) (.iB) of program, libraries and data")
    return {"memory": max(step["memory_bytes"] for step in steps) / 2**20, "foretold": mebibytes(check, r"memory +([\d.]+) (.iB) a rank"),
            "process": max(peaks) - base, "foretold_process": mebibytes(check, r"process +([\d.]+) (.iB)") - base}


def main():
    if sys.argv[1:2] == ["--rank-in"]:
        as_rank(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser()
    parser.add_argument("--names", help="only these, a regular expression")
    parser.add_argument("--binary", default="build/release/moesaic")
    options = parser.parse_args()
    os.chdir(os.path.join(os.path.dirname(__file__), "..", ".."))
    wrong = 0
    print("| configuration | memory_bytes, MiB | foretold | off | process, MiB | foretold | off |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, path, ranks, values in ROWS:
        if options.names and not re.fullmatch(options.names, name):
            continue
        got = measure(options.binary, path, ranks, values)
        memory, process = got["foretold"] / got["memory"] - 1, got["foretold_process"] / got["process"] - 1
        wrong += abs(memory) > 0.1 or abs(process) > 0.1
        print(f"| {name} | {got['memory']:.1f} | {got['foretold']:.1f} | {memory:+.1%} | {got['process']:.1f} | "
              f"{got['foretold_process']:.1f} | {process:+.1%} |", flush=True)
    return 3 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
