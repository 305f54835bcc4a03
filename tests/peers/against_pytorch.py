#!/usr/bin/env python3
"""Times one mixture-of-experts layer or a language model in PyTorch and in Moesaic, in turn on the same device.

    tests/peers/against_pytorch.py --results FILE --what layer --dtype fp32 --threads 2 [--formulations "sorted loop"]
    tests/peers/against_pytorch.py --results FILE --device cuda --what olmoe,gpu_model --dtype bf16
    tests/peers/against_pytorch.py --results FILE --table

A call times what its options name: in every round and for every workload and type Moesaic first, then each formulation of
PyTorch, so that neighbours on the machine disturb all alike; every time is appended to FILE. So a table comes together from
short calls. --table prints it: medians and their spread, shares of the peak that Moesaic measured beside, and, of rounds in
which both ran, how many times as long PyTorch took. --rounds 0 compiles alone, for torch.compile's cache. A formulation that
PyTorch refuses is written down with its error, and so is a run of ours that fails, with exit code 1 at the end. On the CPU a
time is one step after a step; on a GPU it is the median of --iterations steps after --warmup, PyTorch's between CUDA events
while the host runs ahead, ours by the host's clock with a synchronisation after every step.

--verify: every formulation's results and gradients against the masked loop's, on a small layer; times nothing.

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
OURS = "Moesaic"
# Tokens and shape of a layer, as `bench layer` names them.
LAYERS = {
    "layer": (4096, dict(width=512, hidden=2048, experts=8, top_k=2)),
    "olmoe": (8192, dict(width=2048, hidden=1024, experts=64, top_k=8)),  # of OLMoE-1B-7B, arXiv 2409.02060
    "mixtral": (4096, dict(width=4096, hidden=14336, experts=8, top_k=2)),  # of Mixtral 8x7B, arXiv 2401.04088
    "small layer": (64, dict(width=32, hidden=32, experts=4, top_k=2)),  # to try this script
}
# Configuration, sequences of a batch, and the same model for PyTorch.
MODELS = {
    "model": ("tests/bench/reference_model.yaml", 16,
              dict(vocabulary=256, width=512, layers=6, heads=8, hidden=1024, experts=8, top_k=2, length=512)),
    "quad": ("configs/quad.yaml", 32, dict(vocabulary=256, width=128, layers=4, heads=4, hidden=256, experts=8, top_k=2, length=256)),
    "gpu_model": ("tests/bench/gpu_model.yaml", 8,
                  dict(vocabulary=256, width=2048, layers=8, heads=16, hidden=1024, experts=16, top_k=2, length=2048)),
    "small model": ("configs/tiny.yaml", 8, dict(vocabulary=256, width=32, layers=2, heads=2, hidden=32, experts=4, top_k=2, length=64)),
}
ON_CPU = "masked loop,sorted loop,padded bmm,grouped_mm"
ON_CUDA = {"bf16": "permuted grouped_mm", "fp32": "permuted grouped_mm,permuted loop,padded bmm"}  # memory for few


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=pathlib.Path, required=True, help="file of JSON lines")
    parser.add_argument("--table", action="store_true", help="print the table of the results; time nothing")
    parser.add_argument("--verify", action="store_true", help="compare the formulations' results; time nothing")
    parser.add_argument("--what", default="layer",
                        help=f"a list of {', '.join([*LAYERS, *MODELS])}; with :fp32 or :bf16 behind a name, in that type")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="of the others")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of both")
    parser.add_argument("--peer-device", choices=("cpu", "cuda"), help="PyTorch's, where ours is emulated")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--formulations",
                        help=f"a list; by default {ON_CPU}, on a GPU {ON_CUDA['fp32']}, and in bf16 the first of these; also "
                        "'widened loop'; with ' compiled' behind the name, by torch.compile")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iterations", type=int, help="by default 1, on a GPU 20; of models a quarter")
    parser.add_argument("--warmup", type=int, help="by default 1, on a GPU 3")
    parser.add_argument("--seconds", type=float, help="begin nothing after so many, and end ours a little later; exit code 1 where something had no turn")
    parser.add_argument("--sequences", type=int, help="of a model's batch, instead of its own number")
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "build/release/moesaic")
    parser.add_argument("--venv", type=pathlib.Path, default=ROOT / "build/peers-venv")
    options = parser.parse_args()
    options.peer_device = options.peer_device or options.device
    options.iterations = options.iterations or {"cpu": 1, "cuda": 20}[options.device]
    options.warmup = {"cpu": 1, "cuda": 3}[options.device] if options.warmup is None else options.warmup
    options.cases = []
    for word in options.what.split(","):
        what, _, dtype = word.partition(":")
        if what not in LAYERS and what not in MODELS or dtype not in ("", "fp32", "bf16"):
            parser.error(f"--what: there is no '{word}'; {', '.join([*LAYERS, *MODELS])}, with :fp32 or :bf16 behind")
        options.cases.append((what, dtype or options.dtype))
    return options


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


class Case:
    """A workload in a type."""

    def __init__(self, options, what, dtype):
        self.options, self.what, self.dtype = options, what, dtype
        self.iterations = options.iterations if what in LAYERS else (options.iterations + 3) // 4
        if what in LAYERS:
            self.tokens, self.shape = LAYERS[what]
        else:
            self.config, sequences, self.shape = MODELS[what]
            self.sequences = options.sequences or sequences
            self.tokens = self.sequences * self.shape["length"]
        default = ON_CPU if options.device == "cpu" else ON_CUDA[dtype]
        self.formulations = (options.formulations or default).split(",")
        self.steps = {}  # of PyTorch, by formulation

    def run_ours(self, limit):
        """Seconds of a forward and backward (model: of a training step), its model FLOPs, and the peak beside it; or why there
        are none, also after `limit` seconds."""
        options = self.options
        if self.what in LAYERS:
            command = ["layer", f"--tokens={self.tokens}", "--device", options.device,
                       *(f"--{name.replace('_', '-')}={value}" for name, value in self.shape.items())]
            command += ["--check", "0"] if options.device == "cuda" else []
        else:
            settings = [f"train.batch_sequences={self.sequences}", f"train.micro_sequences={self.sequences}",
                        f"run.device={options.device}", f"model.kv_heads={self.shape['heads']}"]
            command = ["step", self.config, *(word for setting in settings for word in ("--set", setting))]
        command = [options.binary, "bench", *command, "--json", "--threads", str(options.threads), "--dtype", self.dtype,
                   "--warmup", str(options.warmup), "--iterations", str(self.iterations)]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            return dict(refusal=f"no end after {limit:.0f} s")
        if done.returncode != 0:
            print(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stderr}", file=sys.stderr)
            return dict(refusal=(done.stderr.strip().splitlines() or ["no word"])[-1][:160])
        report = json.loads(done.stdout.splitlines()[-1])
        seconds = 1e-6 * report["time_us"]["p50"]
        return dict(seconds=seconds, flops=1e9 * report["gflops"] * seconds, peak=1e9 * report["peak_gflops"])

    def prepare(self, name):
        """A step of PyTorch that has run once: compiled, its memory allocated."""
        import torch

        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[self.dtype]
        torch.manual_seed(1)
        make = layer_step if self.what in LAYERS else model_step
        with torch.device(self.options.peer_device):
            step = make(self, name.removesuffix(" compiled"), dtype, name.endswith(" compiled"))
        step()
        self.steps[name] = step

    def time_peer(self, name):
        """Seconds of a step."""
        import torch

        step = self.steps[name]
        on_cuda = self.options.peer_device == "cuda"
        for _ in range(self.options.warmup if on_cuda else 0):  # prepare() and earlier rounds warm a CPU
            step()
        if on_cuda:
            events = [torch.cuda.Event(enable_timing=True) for _ in range(self.iterations + 1)]
            for event in events[:-1]:
                event.record()
                step()
            events[-1].record()
            torch.cuda.synchronize()
            torch.cuda.empty_cache()  # ours needs memory as well
            return statistics.median(1e-3 * a.elapsed_time(b) for a, b in zip(events, events[1:]))
        seconds = []
        for _ in range(self.iterations):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds)


def layer_step(case, formulation, dtype, compiled):
    import torch
    from pytorch_models import FORMULATIONS, Layer

    layer = Layer(**case.shape, formulation=FORMULATIONS[formulation]).to(dtype)
    call = torch.compile(layer) if compiled else layer
    x = torch.randn(case.tokens, case.shape["width"]).to(dtype).requires_grad_()
    dy = torch.randn(case.tokens, case.shape["width"]).to(dtype)

    def step():
        layer.zero_grad(set_to_none=True)
        x.grad = None
        call(x).backward(dy)

    return step


def model_step(case, formulation, dtype, compiled):
    import torch
    from pytorch_models import FORMULATIONS, LanguageModel

    model = LanguageModel(**case.shape, formulation=FORMULATIONS[formulation]).to(dtype)
    call = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    tokens = torch.randint(0, case.shape["vocabulary"], (case.sequences, case.shape["length"] + 1))

    def step():
        optimizer.zero_grad(set_to_none=True)
        call(tokens[:, :-1], tokens[:, 1:]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def time_all(options):
    """Whether every run of ours came to its end."""
    import torch

    begin = time.monotonic()
    torch.set_num_threads(options.threads)
    device = "CPU" if options.peer_device == "cpu" else torch.cuda.get_device_name()
    cases = [Case(options, what, dtype) for what, dtype in options.cases]
    good = True
    with open(options.results, "a", buffering=1) as results:

        def write(case, contender, **what):
            call = dict(what=case.what, dtype=case.dtype, threads=options.threads, tokens=case.tokens,
                        torch=torch.__version__, device=device)
            results.write(json.dumps({**call, "contender": contender, **what}) + "\n")

        def left():
            return None if options.seconds is None else options.seconds - (time.monotonic() - begin)

        for case in cases:
            for name in case.formulations:
                try:
                    case.prepare(name)
                except Exception as refusal:  # what this PyTorch cannot do on this device
                    write(case, name, refusal=(str(refusal).strip().splitlines() or [type(refusal).__name__])[0][:160])
                if options.peer_device == "cuda":
                    torch.cuda.empty_cache()
        for turn in range(options.rounds):
            for case in cases:
                if options.seconds is not None and left() <= 0:
                    if turn == 0:
                        print(f"{case.what}, {case.dtype}: {options.seconds:g} s were over", file=sys.stderr)
                        good = False
                    continue
                ours = case.run_ours(None if options.seconds is None else left() + 10)
                write(case, OURS, **ours)
                good = good and "seconds" in ours
                for name in case.steps:
                    seconds = case.time_peer(name)
                    beside = dict(flops=ours["flops"], peak=ours["peak"], times_ours=seconds / ours["seconds"]) if "seconds" in ours else {}
                    write(case, name, seconds=seconds, **beside)
    return good


def verify(options):
    """Results and gradients of every formulation against the masked loop's; whether all agree."""
    import torch
    from pytorch_models import FORMULATIONS, Layer

    good = True
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 5e-2)):
        torch.manual_seed(1)
        x, dy = (torch.randn(64, 32, device=options.peer_device).to(dtype) for _ in range(2))
        layer = Layer(width=32, hidden=48, experts=4, top_k=2, formulation=FORMULATIONS["masked loop"]).to(options.peer_device, dtype)
        want = None
        for name, formulation in FORMULATIONS.items():
            layer.formulation = formulation
            layer.zero_grad(set_to_none=True)
            own = x.clone().requires_grad_()
            try:
                y = layer(own)
                y.backward(dy)
            except Exception as refusal:
                print(f"{name}, {dtype}: refused: {str(refusal).strip().splitlines()[0][:120]}")
                continue
            have = [y.detach(), own.grad, *(parameter.grad for parameter in layer.parameters())]
            want = want or have
            worst = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(have, want))
            print(f"{name}, {dtype}: {worst:.1e} of the largest number apart ({tolerance:g} allowed)")
            good = good and worst <= tolerance
    return good


def print_table(path):
    groups = collections.defaultdict(lambda: collections.defaultdict(list))
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        groups[entry["what"], entry["dtype"], entry["tokens"], entry["torch"], entry.get("device", "CPU")][entry["contender"], entry["threads"]].append(entry)
    for (what, dtype, tokens, torch, device), contenders in groups.items():
        print(f"\n{what}, {dtype}, {tokens} tokens, PyTorch {torch}{'' if device == 'CPU' else ', ' + device}\n")
        print("| contender | threads | rounds | ms, median | least to most | tokens/s | of the peak of its threads | times ours, same threads |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        timed = {key: [entry for entry in entries if "seconds" in entry] for key, entries in contenders.items()}
        for (name, threads), entries in sorted(timed.items(), key=lambda item: statistics.median(e["seconds"] for e in item[1] or [{"seconds": 1e9}])):
            if not entries:
                print(f"| {name} | {threads} | refused: {contenders[name, threads][0]['refusal']} | | | | | |")
                continue
            seconds = [entry["seconds"] for entry in entries]
            shares = [entry["flops"] / entry["seconds"] / entry["peak"] for entry in entries if "peak" in entry]
            share = f"{100 * statistics.median(shares):.1f} %" if shares else ""
            ratios = [entry["times_ours"] for entry in entries if "times_ours" in entry]
            ratio = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]" if ratios else ""
            median = statistics.median(seconds)
            print(f"| {name} | {threads} | {len(entries)} | {1e3 * median:.4g} | {1e3 * min(seconds):.4g} to {1e3 * max(seconds):.4g} "
                  f"| {tokens / median:.0f} | {share} | {ratio} |")


def main():
    options = arguments()
    if options.table:
        return print_table(options.results)
    enter_environment(options.venv)
    sys.exit(0 if (verify(options) if options.verify else time_all(options)) else 1)


if __name__ == "__main__":
    main()
