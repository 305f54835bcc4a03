#!/usr/bin/env python3
"""Optional: Hugging Face's classes and the built binary read each other's models and say the same of them.

For tiny random models of every family: import, logits, more and fewer active experts, export, logits of what
from_pretrained makes of it, import of the export byte by byte, bf16 there and back, upcycling; then training
goes on in PyTorch from exported checkpoints, with the batches of `data dump`, and the losses are compared.
Needs torch, transformers and safetensors from PyPI (see README.md). Exits 3 where a figure is too large.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, logging
from transformers import LlamaConfig, LlamaForCausalLM
from transformers import MixtralConfig, MixtralForCausalLM
from transformers import OlmoeConfig, OlmoeForCausalLM
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

import check_against_transformers as training

# Of logits in fp32; of logits in fp64 that are written as fp32; of five steps of training.
LOGITS, EXACT, LOSSES = 1e-5, 2e-7, 1e-4
ROOT = pathlib.Path(__file__).resolve().parents[2]

COMMON = dict(
    vocab_size=300, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=64, initializer_range=0.1, attn_implementation="eager", bos_token_id=None,
    eos_token_id=None, pad_token_id=None,
)  # fmt: skip
SPARSE = dict(num_experts_per_tok=2, **COMMON)
MODELS = {
    "mixtral": (MixtralForCausalLM, MixtralConfig(
        num_local_experts=6, intermediate_size=40, head_dim=16, rope_theta=5e4, rms_norm_eps=1e-6, **SPARSE)),
    "mixtral_tied": (MixtralForCausalLM, MixtralConfig(
        num_local_experts=5, intermediate_size=40, tie_word_embeddings=True, sliding_window=64, **SPARSE)),
    "olmoe": (OlmoeForCausalLM, OlmoeConfig(
        num_experts=6, intermediate_size=40, clip_qkv=1.5, **SPARSE)),
    "olmoe_normalized": (OlmoeForCausalLM, OlmoeConfig(
        num_experts=6, intermediate_size=40, norm_topk_prob=True, **(SPARSE | {"num_key_value_heads": 4}))),
    "qwen3_moe": (Qwen3MoeForCausalLM, Qwen3MoeConfig(
        num_experts=6, moe_intermediate_size=24, intermediate_size=56, head_dim=20, norm_topk_prob=True, **SPARSE)),
    "qwen3_moe_every2": (Qwen3MoeForCausalLM, Qwen3MoeConfig(
        num_experts=4, moe_intermediate_size=24, intermediate_size=56, head_dim=8, mlp_only_layers=[0, 2],
        tie_word_embeddings=True, **SPARSE)),
    "llama": (LlamaForCausalLM, LlamaConfig(intermediate_size=56, head_dim=10, **COMMON)),
    "llama_tied": (LlamaForCausalLM, LlamaConfig(intermediate_size=56, tie_word_embeddings=True, **COMMON)),
}  # fmt: skip


# What the C++ tests import: a few tens of KB each, one of them in two files, one in bf16, one in f16.
SMALL = dict(
    vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=32, initializer_range=0.3, attn_implementation="eager", bos_token_id=None,
    eos_token_id=None, pad_token_id=None,
)  # fmt: skip
FIXTURES = {
    "mixtral": (torch.float32, MixtralForCausalLM, MixtralConfig(
        num_local_experts=4, num_experts_per_tok=2, intermediate_size=12, head_dim=6, **SMALL)),
    "olmoe": (torch.float16, OlmoeForCausalLM, OlmoeConfig(
        num_experts=4, num_experts_per_tok=2, intermediate_size=12, clip_qkv=1.5, **SMALL)),
    "qwen3_moe": (torch.bfloat16, Qwen3MoeForCausalLM, Qwen3MoeConfig(
        num_experts=4, num_experts_per_tok=2, moe_intermediate_size=12, intermediate_size=20, head_dim=6,
        norm_topk_prob=True, mlp_only_layers=[0], tie_word_embeddings=True, **SMALL)),
    "llama": (torch.float32, LlamaForCausalLM, LlamaConfig(intermediate_size=20, head_dim=6, **SMALL)),
}  # fmt: skip


class Report:
    def __init__(self):
        self.held = True

    def line(self, model, what, figure, limit):
        good = figure <= limit
        self.held = self.held and good
        print(f"{model:17} {what:38} {figure:8.1e} {'ok' if good else 'WRONG'}", flush=True)


def relative(actual, expected):
    """The largest difference over the largest number: that of whole logits, not of those that cross zero."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    return (numpy.abs(actual - expected).max() / numpy.abs(expected).max()).item()


class Binary:
    def __init__(self, path, folder):
        self.path, self.folder = path, folder

    def __call__(self, *words):
        words = [str(word) for word in words]
        result = subprocess.run([self.path, *words], cwd=ROOT, capture_output=True, text=True)
        if result.returncode != 0:
            raise SystemExit(f"{' '.join(words)}: exit code {result.returncode}\n{result.stdout}{result.stderr}")
        return result.stdout

    def logits(self, run, tokens, *words):
        numpy.save(self.folder / "tokens.npy", tokens)
        self("eval", run, "--tokens", self.folder / "tokens.npy", "--logits", self.folder / "logits.npy", *words)
        return numpy.load(self.folder / "logits.npy")


def build(name, seed):
    cls, config = MODELS[name]
    return random_model(cls, config, seed)


def random_model(cls, config, seed):
    """Its norms are not all ones, and its routers are not all alike."""
    torch.manual_seed(seed)
    model = cls(config).eval()
    with torch.no_grad():
        for key, value in model.named_parameters():
            if value.dim() == 1:
                value.add_(0.2 * torch.randn_like(value))
            if key.endswith(".gate.weight"):
                value.mul_(4)
    return model


def logits(model, tokens, convert=torch.Tensor.float):
    with torch.no_grad():
        return convert(model(torch.from_numpy(tokens).long()).logits).numpy()


def tensors_of(folder):
    """Name to (dtype, bytes) of all tensors in a folder's safetensors files."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():
                value = file.get_tensor(key)
                found[key] = (value.dtype, value.contiguous().view(torch.uint8).numpy().tobytes())
    return found


def different(left, right):
    return float(sum(left.get(key) != right.get(key) for key in left.keys() | right.keys()))


def set_active_experts(model, k):
    for module in model.modules():
        if hasattr(module, "gate") and hasattr(module, "top_k"):
            module.top_k = k


def write_fixtures(folder):
    """The models of FIXTURES as save_pretrained writes them, each with tokens and the logits of fp64 arithmetic."""
    for number, (name, (dtype, cls, config)) in enumerate(FIXTURES.items()):
        model = random_model(cls, config, 50 + number).to(dtype)
        path = folder / name
        shutil.rmtree(path, ignore_errors=True)
        model.save_pretrained(path, max_shard_size="20KB" if name == "mixtral" else "5GB")
        (path / "generation_config.json").unlink(missing_ok=True)
        tokens = torch.from_numpy(numpy.random.RandomState(9).randint(0, 40, size=(2, 12)).astype("<i4"))
        expected = exact_logits(cls, config, model.float().state_dict(), tokens.numpy())
        save_file({"tokens": tokens, "logits": torch.from_numpy(expected)}, folder / f"{name}.safetensors")


def exact_logits(cls, config, state, tokens):
    """Of the same weights in fp64 arithmetic throughout, rounded to fp32 in the end."""
    with training.fp64_throughout():
        wide = cls(config)
        wide.load_state_dict({key: value.double() for key, value in state.items()})
        return logits(wide.double().eval(), tokens, torch.Tensor.double).astype("<f4")


def check_model(name, folder, binary, report):
    model = build(name, seed=len(name))
    theirs, run, exported = folder / name, folder / f"{name}-run", folder / f"{name}-out"
    model.save_pretrained(theirs, max_shard_size="60KB" if "tied" in name or name == "olmoe" else "5GB")
    tokens = numpy.random.RandomState(7).randint(0, 300, size=(3, 40)).astype("<i4")
    expected = logits(model, tokens)
    binary("convert", "import", theirs, run)
    report.line(name, "logits of the import", relative(binary.logits(run, tokens), expected), LOGITS)
    exact = exact_logits(*MODELS[name], model.state_dict(), tokens)
    wide = binary.logits(run, tokens, "--set", "train.precision=fp64")
    report.line(name, "the same, both in fp64", relative(wide, exact), EXACT)
    again = binary.logits(run, tokens, "--ranks-as-threads", 2)
    report.line(name, "the same on two ranks", relative(again, binary.logits(run, tokens)), 0)
    experts = getattr(model.config, "num_local_experts", None) or getattr(model.config, "num_experts", 0)
    for k in {1, model.config.num_experts_per_tok, experts} if experts else ():
        set_active_experts(model, k)
        ours = binary.logits(run, tokens, "--top-k", k)
        report.line(name, f"logits with {k} active", relative(ours, logits(model, tokens)), LOGITS)

    binary("convert", "export", run, exported, "--to", "hf", "--shard-bytes", 50000)
    loaded = AutoModelForCausalLM.from_pretrained(exported, attn_implementation="eager").eval()
    assert type(loaded) is type(model), type(loaded)
    report.line(name, "logits of the export", relative(logits(loaded, tokens), expected), LOGITS)
    report.line(name, "tensors that differ in the export", different(tensors_of(exported), tensors_of(theirs)), 0)
    binary("convert", "import", exported, folder / "again")
    step = "checkpoints/step-00000000"
    report.line(name, "tensors that differ when re-imported",
                different(tensors_of(folder / "again" / step), tensors_of(run / step)), 0)  # fmt: skip
    for dtype in (torch.bfloat16, torch.float16):
        half, half_run, half_out = folder / "half", folder / "half-run", folder / "half-out"
        model.to(dtype).save_pretrained(half)
        binary("convert", "import", half, half_run)
        wide = {key: (torch.float32, torch.frombuffer(bytearray(data), dtype=kind).float().numpy().tobytes())
                for key, (kind, data) in tensors_of(half).items()}  # fmt: skip
        binary("convert", "export", half_run, half_out)
        report.line(name, "tensors not widened exactly, " + str(dtype)[6:], different(tensors_of(half_out), wide), 0)
        if dtype == torch.bfloat16:
            shutil.rmtree(half_out)
            binary("convert", "export", half_run, half_out, "--dtype", "bf16")
            report.line(name, "tensors that bf16 changed", different(tensors_of(half_out), tensors_of(half)), 0)
        for used in (half, half_run, half_out):
            shutil.rmtree(used)
        model = build(name, seed=len(name))
    shutil.rmtree(folder / "again")


def check_upcycling(folder, binary, report):
    """The upcycled model is the dense one: by its logits, and by what Hugging Face's dense class says."""
    tokens = numpy.random.RandomState(8).randint(0, 300, size=(3, 40)).astype("<i4")
    run = folder / "upcycled"
    for name in ("llama", "llama_tied"):
        dense = build(name, seed=len(name))
        exact = exact_logits(*MODELS[name], dense.state_dict(), tokens)
        ours = binary.logits(folder / f"{name}-run", tokens)
        for words in (
            ("--experts", 4),
            ("--experts", 8, "--top-k", 4, "--every", 2),
            ("--experts", 3, "--init-router", "zero"),
        ):
            binary("convert", "upcycle", folder / name, run, *words)
            what = "upcycled " + " ".join(str(word) for word in words[1::2])
            upcycled = binary.logits(run, tokens)
            report.line(name, what + ", Hugging Face", relative(upcycled, logits(dense, tokens)), LOGITS)
            report.line(name, what + ", our dense", relative(upcycled, ours), 1e-6)
            upcycled = binary.logits(run, tokens, "--set", "train.precision=fp64")
            report.line(name, what + ", in fp64", relative(upcycled, exact), EXACT)
            shutil.rmtree(run)
    binary("convert", "upcycle", folder / "llama-run", run, "--experts", 4, "--noise", 0.01)
    moved = relative(binary.logits(run, tokens), binary.logits(folder / "llama-run", tokens))
    report.line("llama", "from our run with 1 % of noise", moved, 0.1)
    report.line("llama", "noise that did nothing", float(moved < 1e-4), 0)


def moments(checkpoint, rename):
    """Their name to (first, second) moment, from a checkpoint of ours."""
    found = {}
    for path in checkpoint.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():
                for which, suffix in enumerate((".first_moment", ".second_moment")):
                    if key.endswith(suffix):
                        found.setdefault(rename(key[: -len(suffix)]), [None, None])[which] = file.get_tensor(key)
    return found


def continue_training(run, step, batches, folder, binary):
    """Losses of five more steps in PyTorch, from the export of a checkpoint of ours."""
    checkpoint, exported = run / f"checkpoints/step-{step:08}", folder / f"continue-{step}"
    binary("convert", "export", checkpoint, exported)
    options = json.loads((folder / "options.json").read_text())
    _, rename = training.build("mixtral", options)
    model = AutoModelForCausalLM.from_pretrained(exported, attn_implementation="eager").train()
    settings, schedule = options["optimizer"], options["optimizer"]["schedule"]
    parameters = dict(model.named_parameters())
    groups = [
        {"params": [p for p in parameters.values() if p.dim() >= 2], "weight_decay": settings["weight_decay"]},
        {"params": [p for p in parameters.values() if p.dim() < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, 1.0, tuple(settings["betas"]), settings["eps"])
    if step > 0:
        for name, (first, second) in moments(checkpoint, rename).items():
            adamw.state[parameters[name]] = {"step": torch.tensor(float(step)), "exp_avg": first.clone(), "exp_avg_sq": second.clone()}
    losses = []
    for number in range(step + 1, step + 6):
        out = training.forward(model, options, torch.from_numpy(batches[number - 1]))
        adamw.zero_grad(set_to_none=False)
        out["total"].backward()
        for parameter in parameters.values():
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), settings["clip"])
        for group in adamw.param_groups:
            group["lr"] = learning_rate(settings["lr"], schedule, options["train"]["steps"], number)
        adamw.step()
        losses.append((out["loss"].item(), out["loss_aux"].item(), out["loss_z"].item(), norm.item()))
    return losses


def learning_rate(peak, schedule, steps, number):
    if number <= schedule["warmup"]:
        return peak * number / schedule["warmup"]
    progress = (number - schedule["warmup"]) / (steps - schedule["warmup"])
    return peak * (schedule["floor"] + (1 - schedule["floor"]) * (1 + numpy.cos(numpy.pi * progress)) / 2)


def check_continuation(folder, binary, report):
    """Our own run against PyTorch from its checkpoints of steps 0 and 5: fp32, same batches, schedule and clip."""
    options = {
        "vocab_size": 256,
        "model": {"width": 64, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 16, "norm_eps": 1e-5,
                  "rope_theta": 10000, "dense_hidden": 512, "tie_embeddings": False, "clip_qkv": "none", "qk_norm": "none",
                  "moe": {"experts": 8, "top_k": 2, "hidden": 64, "every": 1, "router": {"normalize": True},
                          "balance": {"aux": 0.01, "z": 0.001, "scope": "micro"}}},
        "optimizer": {"lr": 3e-3, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1, "clip": 1.0,
                      "schedule": {"warmup": 3, "floor": 0.1}},
        "train": {"micro_sequences": 4, "steps": 10},
    }  # fmt: skip
    (folder / "options.json").write_text(json.dumps(options))
    model = options["model"]
    words = ["task.data.seq_len=64", "train.batch_sequences=8", "train.steps=10", "train.log_every=1",
             "train.checkpoint_every=5", "optimizer.schedule.warmup=3", "generalization.probe_sequences=4",
             "generalization.heldout_sequences=4"]  # fmt: skip
    words += [f"model.{key}={model[key]}" for key in ("width", "layers", "kv_heads")] + ["model.moe.hidden=64"]
    sets = [word for one in words for word in ("--set", one)]
    binary("train", "configs/quad.yaml", "--out", folder, *sets)
    binary("data", "dump", "configs/quad.yaml", "--steps", 10, "-o", folder / "batches.npy", *sets)
    batches = numpy.load(folder / "batches.npy")
    lines = (folder / "quad/metrics.jsonl").read_text().splitlines()
    ours = {r["step"]: r for r in map(json.loads, lines) if r["event"] == "step"}
    for step in (0, 5):
        theirs = continue_training(folder / "quad", step, batches, folder, binary)
        for index, field in enumerate(("loss", "loss_aux", "loss_z", "grad_norm")):
            expected = numpy.array([losses[index] for losses in theirs])
            actual = numpy.array([ours[number][field] for number in range(step + 1, step + 6)])
            figure = (numpy.abs(actual - expected) / numpy.abs(expected)).max().item()
            report.line("quad", f"{field} of steps {step + 1} to {step + 5}", figure, LOSSES)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "build/release/moesaic")
    parser.add_argument("--only", choices=[*MODELS, "training"], help="one model, or the continued training")
    parser.add_argument("--write-fixtures", type=pathlib.Path, metavar="DIR", help="write what the C++ tests read")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if arguments.write_fixtures:
        write_fixtures(arguments.write_fixtures)
        return 0
    report = Report()
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        binary = Binary(arguments.binary, folder)
        for name in MODELS:
            if arguments.only in (None, name):
                check_model(name, folder, binary, report)
        if arguments.only is None:
            check_upcycling(folder, binary, report)
        if arguments.only in (None, "training"):
            check_continuation(folder, binary, report)
    print("all held" if report.held else "NOT all held")
    return 0 if report.held else 3


if __name__ == "__main__":
    sys.exit(main())
