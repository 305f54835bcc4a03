#!/usr/bin/env python3
"""Times one mixture-of-experts layer or a language model in PyTorch and in Moesaic, in turn on the same cores.

    tests/peers/against_pytorch.py --results FILE --what layer --dtype fp32 --threads 2 [--formulations "sorted loop"]
    tests/peers/against_pytorch.py --results FILE --table

A call times what its options name: in every round Moesaic first, then each formulation of PyTorch, so that neighbours
on the machine disturb all alike; every time is appended to FILE. So a table comes together from short calls. --table
prints it: medians and their spread, shares of the peak that Moesaic measured beside, and, of rounds in which both ran, how
many times as long PyTorch took. --rounds 0 compiles alone, for torch.compile's cache. A formulation that PyTorch refuses
is written down with its error. Exit code 1 when a run of ours fails.

Makes a virtual environment with the current PyTorch of PyPI (--venv, about 6 GB) unless it runs inside one that has it.
"""

import argparse
import collections
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = ROOT / "tests/bench/reference_model.yaml"
LAYER = dict(width=512, hidden=2048, experts=8, top_k=2)
MODEL = dict(vocabulary=256, width=512, layers=6, heads=8, hidden=1024, experts=8, top_k=2, length=512)
LAYER_TOKENS = 4096
OURS = "Moesaic"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=pathlib.Path, required=True, help="file of JSON lines")
    parser.add_argument("--table", action="store_true", help="print the table of the results; time nothing")
    parser.add_argument("--what", choices=("layer", "model"), default="layer")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--formulations", default="masked loop,sorted loop,padded bmm,grouped_mm",
                        help="a list, also of 'widened loop'; with ' compiled' behind the name, by torch.compile")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sequences", type=int, default=16, help="of the model's batch, 512 tokens each")
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "build/release/moesaic")
    parser.add_argument("--venv", type=pathlib.Path, default=ROOT / "build/peers-venv")
    return parser.parse_args()


def enter_environment(venv):
    """Runs this script again with a Python that has torch."""
    try:
        import torch  # noqa: F401
    except ImportError:
        python = venv / "bin/python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
            subprocess.run([venv / "bin/pip", "install", "--quiet", "torch", "numpy"], check=True)
        os.execv(python, [python, *sys.argv])


def tokens_of(options):
    return LAYER_TOKENS if options.what == "layer" else options.sequences * MODEL["length"]


def run_ours(options):
    """Seconds of a forward and backward (model: of a training step), its model FLOPs, and the peak beside it."""
    if options.what == "layer":
        command = ["layer", f"--tokens={LAYER_TOKENS}", *(f"--{name.replace('_', '-')}={value}" for name, value in LAYER.items())]
    else:
        batch = [f"train.batch_sequences={options.sequences}", f"train.micro_sequences={options.sequences}"]
        command = ["step", CONFIG, *(word for setting in batch for word in ("--set", setting))]
    command = [options.binary, "bench", *command, "--json", "--threads", str(options.threads), "--dtype", options.dtype,
               "--warmup", "1", "--iterations", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stderr}")
    report = json.loads(done.stdout.splitlines()[-1])
    seconds = 1e-6 * report["time_us"]["p50"]
    return dict(seconds=seconds, flops=1e9 * report["gflops"] * seconds, peak=1e9 * report["peak_gflops"])


def layer_step(formulation, dtype, compiled):
    import torch
    from pytorch_models import FORMULATIONS, Layer

    layer = Layer(**LAYER, formulation=FORMULATIONS[formulation]).to(dtype)
    call = torch.compile(layer) if compiled else layer
    x = torch.randn(LAYER_TOKENS, LAYER["width"], dtype=dtype, requires_grad=True)
    dy = torch.randn_like(x)

    def step():
        layer.zero_grad(set_to_none=True)
        x.grad = None
        call(x).backward(dy)

    return step


def model_step(formulation, dtype, compiled, sequences):
    import torch
    from pytorch_models import FORMULATIONS, LanguageModel

    model = LanguageModel(**MODEL, formulation=FORMULATIONS[formulation]).to(dtype)
    call = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    tokens = torch.randint(0, MODEL["vocabulary"], (sequences, MODEL["length"] + 1))

    def step():
        optimizer.zero_grad(set_to_none=True)
        call(tokens[:, :-1], tokens[:, 1:]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def prepare(options, name):
    """A step of PyTorch that has run once: compiled, its memory allocated."""
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[options.dtype]
    compiled = name.endswith(" compiled")
    formulation = name.removesuffix(" compiled")
    torch.manual_seed(1)
    step = (layer_step(formulation, dtype, compiled) if options.what == "layer"
            else model_step(formulation, dtype, compiled, options.sequences))
    step()
    return step


def time_all(options):
    import torch

    torch.set_num_threads(options.threads)
    call = dict(what=options.what, dtype=options.dtype, threads=options.threads, tokens=tokens_of(options), torch=torch.__version__)
    with open(options.results, "a", buffering=1) as results:

        def write(contender, **what):
            results.write(json.dumps({**call, "contender": contender, **what}) + "\n")

        ready = []
        for name in options.formulations.split(","):
            try:
                ready.append((name, prepare(options, name)))
            except Exception as refusal:  # what this PyTorch cannot do on this CPU
                write(name, refusal=str(refusal).strip().splitlines()[0][:160])
        for _ in range(options.rounds):
            ours = run_ours(options)
            write(OURS, **ours)
            for name, step in ready:
                start = time.perf_counter()
                step()
                seconds = time.perf_counter() - start
                write(name, seconds=seconds, flops=ours["flops"], peak=ours["peak"], times_ours=seconds / ours["seconds"])


def print_table(path):
    groups = collections.defaultdict(lambda: collections.defaultdict(list))
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        groups[entry["what"], entry["dtype"], entry["tokens"], entry["torch"]][entry["contender"], entry["threads"]].append(entry)
    for (what, dtype, tokens, torch), contenders in groups.items():
        print(f"\n{what}, {dtype}, {tokens} tokens, PyTorch {torch}\n")
        print("| contender | threads | rounds | ms, median | least to most | tokens/s | of the peak of its threads | times ours, same threads |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        timed = {key: [entry for entry in entries if "seconds" in entry] for key, entries in contenders.items()}
        for (name, threads), entries in sorted(timed.items(), key=lambda item: statistics.median(e["seconds"] for e in item[1] or [{"seconds": 1e9}])):
            if not entries:
                print(f"| {name} | {threads} | refused: {contenders[name, threads][0]['refusal']} | | | | | |")
                continue
            seconds = [entry["seconds"] for entry in entries]
            share = statistics.median(entry["flops"] / entry["seconds"] / entry["peak"] for entry in entries)
            ratios = [entry["times_ours"] for entry in entries if "times_ours" in entry]
            ratio = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]" if ratios else ""
            median = statistics.median(seconds)
            print(f"| {name} | {threads} | {len(entries)} | {1e3 * median:.0f} | {1e3 * min(seconds):.0f} to {1e3 * max(seconds):.0f} "
                  f"| {tokens / median:.0f} | {100 * share:.1f} % | {ratio} |")


def main():
    options = arguments()
    if options.table:
        return print_table(options.results)
    enter_environment(options.venv)
    time_all(options)


if __name__ == "__main__":
    main()
