#!/usr/bin/env python3
"""How much of the communication's time is hidden behind computing, with parallel.chunks off (1) and on.

    tests/bench/hidden_share.py [--rates 1gbit,full,box] [--chunks 1,4] [--set KEY=VALUE ...] [--binary build/release/moesaic]

Trains tests/bench/overlap_model.yaml on two ranks of one thread, on a machine that should be quiet: on two hosts of their own
with TCP at each rate (tests/bench/on_two_hosts.sh, as root), or for `box` as two ranks of one MPI job. From the trace of a
step, per rank and then their mean, in ms: `communication` is where a collective is under way and all of its ranks are there,
`hidden` is the part of it in which the rank's other thread is inside a span of its own work (attention, router, experts,
head, update; small operations between these do not count, so that the share is rather too low), `late` is where a rank is in
a collective that another one has not come to. Besides, what a step with chunks gains on one without, as a part of the
latter's communication. Step time: the fastest of the last steps.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

STEPS, TRACED = 6, 5


def union(spans):
    merged = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([begin, end])
    return merged


def common(first, second):
    """Intersection of two unions."""
    both = []
    for begin, end in first:
        for other_begin, other_end in second:
            if other_begin >= end:
                break
            if other_end > begin:
                both.append([max(begin, other_begin), min(end, other_end)])
    return both


def length(spans):
    return sum(end - begin for begin, end in spans)


def read_trace(path):
    """Milliseconds of the mean rank: compute, communication, hidden, late."""
    with open(path) as file:
        events = [event for event in json.load(file)["traceEvents"] if event["ph"] == "X"]
    ranks = sorted({event["pid"] for event in events})
    sums = {"compute": 0, "communication": 0, "hidden": 0, "late": 0}
    for rank in ranks:
        def spans(category):
            return union((event["ts"], event["ts"] + event["dur"]) for event in events
                         if event["pid"] == rank and event["cat"] == category)
        work, late = spans("compute"), spans("wait")
        under_way = spans("exchange")
        sums["compute"] += length(work)
        sums["late"] += length(late)
        sums["communication"] += length(under_way) - length(common(under_way, late))
        sums["hidden"] += length(common(under_way, work)) - length(common(common(under_way, late), work))
    return {key: value / len(ranks) / 1000 for key, value in sums.items()}


def measure(options, rate, chunks, folder):
    words = [options.binary, "train", "tests/bench/overlap_model.yaml", "--out", folder, "--trace-step", str(TRACED)]
    for setting in [f"train.steps={STEPS}", f"parallel.chunks={chunks}"] + options.set:
        words += ["--set", setting]
    launcher = ["mpirun", "--oversubscribe", "-np", "2"] if rate == "box" else ["tests/bench/on_two_hosts.sh", rate]
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    ended = subprocess.run(launcher + words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, text=True)
    if ended.returncode:
        raise SystemExit(ended.stdout)
    with open(f"{folder}/overlap/metrics.jsonl") as lines:
        steps = [record for record in map(json.loads, lines) if record["event"] == "step"]
    return {**read_trace(f"{folder}/overlap/trace.step{TRACED}.json"), "step": min(step["step_ms"] for step in steps[2:]),
            "losses": [step["loss"] for step in steps]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rates", default="1gbit,full,box")
    parser.add_argument("--chunks", default="1,4")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--binary", default="build/release/moesaic")
    options = parser.parse_args()
    os.chdir(os.path.join(os.path.dirname(__file__), "..", ".."))
    print("| wire | chunks | step ms | compute | communication | hidden | share | late | gained on 1 chunk |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    differs = False
    for rate in options.rates.split(","):
        off = None
        for chunks in map(int, options.chunks.split(",")):
            with tempfile.TemporaryDirectory() as folder:
                got = measure(options, rate, chunks, folder)
            off = got if chunks == 1 else off
            gain = f"{(off['step'] - got['step']) / off['communication']:.0%}" if off and chunks > 1 else ""
            print(f"| {rate} | {chunks} | {got['step']:.0f} | {got['compute']:.0f} | {got['communication']:.0f} | {got['hidden']:.0f} | "
                  f"{got['hidden'] / got['communication']:.0%} | {got['late']:.0f} | {gain} |", flush=True)
            differs |= off is not None and got["losses"] != off["losses"]
    if differs:
        print("losses differ with the number of chunks")
    return 3 if differs else 0


if __name__ == "__main__":
    sys.exit(main())
