#!/usr/bin/env python3
"""Trains a few steps with the sink tensorboard, resumes them, and compares what TensorBoard's own reader finds with
metrics.jsonl: every scalar of every step, the loads of the experts, the texts.

    pip install tensorboard
    tests/reference/check_tensorboard.py [build/release/moesaic]

Prints a line a tag and exits with 1 where anything differs.
"""

import json
import math
import os
import subprocess
import sys
import tempfile

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

GROUPS = {"tokens_per_s": "speed", "step_ms": "speed", "exchange_ms": "speed", "exchange_bytes": "speed",
          "flops_utilization": "speed", "memory_bytes": "speed", "slowest_rank": "speed", "slowest_excess_ms": "speed",
          "load_max_over_mean": "routing", "dropped_fraction": "routing", "rank_load_max_over_mean": "routing"}


def number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) or value in ("nan", "inf", "-inf")


def expected(records):
    """(tag, step) to value, by a reading of metrics.jsonl of its own."""
    values = {}
    for record in records:
        event, step = record["event"], record.get("step")
        if event not in ("step", "eval", "experts"):
            continue
        for name, value in record.items():
            if name in ("event", "step", "layer"):
                continue
            if event == "experts":
                tag = f"{name}/layer_{record['layer']:02}"
            elif event == "eval":
                tag = f"eval/{name}"
            else:
                tag = f"{GROUPS.get(name, 'train')}/{name}"
            if number(value):
                values[tag, step] = float(value)
            elif isinstance(value, dict) and "value" in value:
                values[tag, step] = float(value["value"])
            elif isinstance(value, dict):
                for key, inner in value.items():
                    if number(inner):
                        values[f"{name}/{key}", step] = float(inner)
                    elif isinstance(inner, dict) and "value" in inner:
                        values[f"{name}/{key}", step] = float(inner["value"])
                    elif isinstance(inner, dict):
                        for last, innermost in inner.items():
                            values[f"{name}/{key}/{last}", step] = float(innermost)
            elif name == "routing_changed":
                for change in value:
                    values[f"routing_changed/layer_{change['layer']:02}", step] = change["share"]
    return values


def main():
    binary = sys.argv[1] if len(sys.argv) > 1 else "build/release/moesaic"
    root = os.path.join(os.path.dirname(__file__), "..", "..")
    wrong = 0
    with tempfile.TemporaryDirectory() as out:
        base = [binary, "train", "configs/tiny.yaml", "--out", out, "--ranks-as-threads", "2", "--set",
                "metrics.sinks=[jsonl, tensorboard]", "--set", "train.log_every=2", "--set", "train.eval_every=4",
                "--set", "train.checkpoint_every=4"]
        subprocess.run(base + ["--set", "train.steps=10"], cwd=root, check=True, stdout=subprocess.DEVNULL)
        # From step 8, though records up to 10 are there: the reader has to forget those.
        checkpoint = os.path.join(out, "tiny", "checkpoints", "step-00000008")
        subprocess.run(base + ["--set", "train.steps=12", "--resume", checkpoint], cwd=root, check=True,
                       stdout=subprocess.DEVNULL)
        with open(os.path.join(out, "tiny", "metrics.jsonl")) as lines:
            records = [json.loads(line) for line in lines]
        reader = EventAccumulator(os.path.join(out, "tiny", "tensorboard"),
                                  size_guidance={"scalars": 0, "histograms": 0, "tensors": 0})
        reader.Reload()
        tags = reader.Tags()
        want = expected(records)
        got = {(tag, event.step): event.value for tag in tags["scalars"] for event in reader.Scalars(tag)}
        for tag in sorted({tag for tag, _ in want} | {tag for tag, _ in got}):
            steps = {step for name, step in want if name == tag} | {step for name, step in got if name == tag}
            bad = [step for step in sorted(steps) if not same(got.get((tag, step)), want.get((tag, step)))]
            if bad:
                wrong += 1
                print(f"{tag}: steps {bad}: TensorBoard reads {[got.get((tag, s)) for s in bad]}, "
                      f"metrics.jsonl has {[want.get((tag, s)) for s in bad]}")
        loads = [record for record in records if record["event"] == "experts"]
        for record in loads:
            tag = f"load/layer_{record['layer']:02}"
            found = [event.histogram_value for event in reader.Histograms(tag) if event.step == record["step"]]
            if len(found) != 1 or list(found[0].bucket) != record["load"]:
                wrong += 1
                print(f"{tag}, step {record['step']}: {found} is not {record['load']}")
        texts = [tag for tag in tags["tensors"] if tag.startswith("run/")]
        configuration = reader.Tensors("run/config")[0].tensor_proto.string_val[0].decode()
        if "learning" not in configuration and "optimizer:" not in configuration:
            wrong += 1
            print("run/config does not hold the configuration")
        print(f"{len(got)} scalars of {len(tags['scalars'])} tags, {len(loads)} histograms, texts {', '.join(texts)}: "
              f"{'all as in metrics.jsonl' if wrong == 0 else f'{wrong} differ'}")
    return 1 if wrong else 0


def same(got, want):
    if got is None or want is None:
        return False
    if math.isnan(want):
        return math.isnan(got)
    return got == want or abs(got - want) <= 1e-6 * abs(want)  # single precision


if __name__ == "__main__":
    sys.exit(main())
