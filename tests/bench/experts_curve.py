#!/usr/bin/env python3
"""Speed of one MoE layer from 8 to 256 experts, each with the same rows and every token with the same compute.

    tests/bench/experts_curve.py [--experts 8,16,32,64,128,256] [--rows 64] [--iterations 5] [--binary build/release/moesaic]

With --rows rows per expert and top 2, tokens grow with the experts: work per token stays, weights per token stay, and what
caches hold no longer fits. Beside the time of forward and backward stand two floors of this machine: arithmetic (FLOPs over
the peak measured in the same run) and memory (bytes that have to move over the fastest reading that `doctor` measures):
every expert's weights once forward and once backward (4 bytes each), its gradients once out (4 bytes).
"of the floor" is the larger floor over the time. Run it on a quiet machine.
"""

import argparse
import json
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
WIDTH, HIDDEN, TOP_K = 512, 1024, 2
BYTES_PER_WEIGHT = 4 + 4 + 4


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", default="8,16,32,64,128,256", help="a list")
    parser.add_argument("--rows", type=int, default=64, help="per expert, on average")
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--traffic", default="uniform", help="as bench layer has it")
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "build/release/moesaic")
    return parser.parse_args()


def json_of(*command):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def bytes_per_second(binary):
    """Of reading memory with all cores."""
    done = subprocess.run([binary, "doctor", "--json"], capture_output=True, text=True)
    found = re.search(r'"memory read, node"[^}]*?"found":"\s*([\d.]+) GB/s', done.stdout)
    return 1e9 * float(found.group(1))


def main():
    options = arguments()
    bandwidth = bytes_per_second(options.binary)
    print(f"width {WIDTH}, hidden {HIDDEN}, top {TOP_K}, {options.rows} rows per expert, {options.traffic} traffic, "
          f"{options.threads} threads; memory {1e-9 * bandwidth:.1f} GB/s\n")
    print("| experts | tokens | ms, median | least | tokens/s | of the peak | arithmetic floor, ms | memory floor, ms | of the floor |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for experts in map(int, options.experts.split(",")):
        tokens = options.rows * experts // TOP_K
        report = json_of(options.binary, "bench", "layer", "--json", "--threads", options.threads, "--experts", experts, "--top-k", TOP_K,
                         "--tokens", tokens, "--width", WIDTH, "--hidden", HIDDEN, "--traffic", options.traffic,
                         "--iterations", options.iterations, "--warmup", 1)
        time = 1e-6 * report["time_us"]["p50"]
        arithmetic = report["peak_fraction"] * time
        memory = experts * 3 * WIDTH * HIDDEN * BYTES_PER_WEIGHT / bandwidth
        print(f"| {experts} | {tokens} | {1e3 * time:.0f} | {1e-3 * report['time_us']['min']:.0f} | {tokens / time:.0f} "
              f"| {100 * report['peak_fraction']:.1f} % | {1e3 * arithmetic:.0f} | {1e3 * memory:.0f} "
              f"| {100 * max(arithmetic, memory) / time:.0f} % |", flush=True)


if __name__ == "__main__":
    main()
