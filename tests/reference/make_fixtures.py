#!/usr/bin/env python3
"""Writes fixtures/*.safetensors from moe_reference.py, after checking its gradients by finite differences."""

import argparse
import copy
import itertools
import json
import pathlib
import struct

import numpy
import torch

import moe_reference as reference

STEPS, SEQUENCES, SEQ_LEN, VOCAB = 10, 5, 12, 32
LEAST_ROUTER_MARGIN = 1e-4  # between neighbours among the k + 1 largest router logits, on every recorded step
LEAST_CLIP_MARGIN = 1e-6  # between any q, k, v entry and the clipping point
MOST_SENSITIVITY = 3e-6  # of any gradient to noise of half an fp32 rounding step in the weights, relative L2
GRADIENT_TOLERANCE = 1e-6

BASE = {
    "vocab_size": VOCAB,
    "task": {"kind": "lm", "data": {"seq_len": SEQ_LEN}},
    "model": {
        "kind": "transformer", "width": 16, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 4, "qk_norm": "none",
        "norm_eps": 1e-5, "rope_theta": 10000.0, "init_std": 0.3, "clip_qkv": "none", "dense_hidden": 20,
        "tie_embeddings": False,
        "moe": {
            "experts": 4, "top_k": 2, "hidden": 12, "activation": "swiglu", "every": 1, "shared_experts": 0,
            "router": {"kind": "top_k", "score": "softmax", "normalize": True},
            "balance": {"aux": 0.01, "convention": "megatron", "scope": "micro", "z": 0.001},
            "capacity": "dropless",
        },
    },
    "optimizer": {
        "kind": "adamw", "lr": 3e-3, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1, "clip": 1.0,
        "schedule": {"kind": "cosine", "warmup": 3, "floor": 0.1},
    },
    "train": {"steps": STEPS, "batch_sequences": SEQUENCES, "micro_sequences": 2, "precision": "fp64"},
}  # fmt: skip

SMALL = {"model.width": 8, "model.head_dim": 2, "model.moe.hidden": 6}

VARIANTS = {
    "mixtral": {},
    "olmoe": {
        "model.kv_heads": 4, "model.qk_norm": "full", "model.clip_qkv": 2.0,
        "model.moe.router.normalize": False, "model.moe.balance.scope": "sequence",
    },
    "qwen3_moe": {"model.head_dim": 6, "model.qk_norm": "head", "model.moe.balance.scope": "global"},
    "tied_every2": {
        "model.tie_embeddings": True, "model.moe.every": 2, "model.moe.top_k": 1, "model.moe.router.normalize": False,
        "optimizer.clip": 3.0,  # some steps are clipped, some are not; the other variants clip every step
    },
    "gshard_drop": {
        **SMALL,
        "model.moe.balance": {"aux": 0.05, "convention": "gshard", "scope": "sequence", "z": 0.001, "importance": 0.02},
        "model.moe.capacity": {
            "factor": 1.0, "policy": "probability", "rounding": "ceil", "per": "sequence", "renormalize": True,
            "pad": False,
        },
    },
    "hf_position": {
        **SMALL, "model.moe.router.normalize": False,
        "model.moe.balance": {"aux": 0.05, "convention": "hf", "scope": "micro", "z": 0.001, "importance": 0.02},
        "model.moe.capacity": {
            "factor": 0.9, "policy": "position", "rounding": "colossalai", "per": "micro", "renormalize": False,
            "pad": False,
        },
    },
    "switch_global": {
        **SMALL, "model.moe.top_k": 1, "model.moe.router.normalize": False,
        "model.moe.balance": {"aux": 0.05, "convention": "switch", "scope": "global", "z": 0.001, "importance": 0.02},
        "model.moe.capacity": {
            "factor": 1.25, "policy": "probability", "rounding": "floor", "per": "sequence", "renormalize": False,
            "pad": False,
        },
    },
}  # fmt: skip


def options_of(variant):
    options = copy.deepcopy(BASE)
    for path, value in VARIANTS[variant].items():
        *parents, key = path.split(".")
        section = options
        for parent in parents:
            section = section[parent]
        assert key in section, path
        section[key] = value
    return options


def write_safetensors(path, tensors, metadata):
    """u64 little-endian header length, JSON header padded with spaces to 8 bytes, raw little-endian data."""
    kinds = {numpy.dtype("<f8"): "F64", numpy.dtype("<i4"): "I32"}
    header, offset = {"__metadata__": metadata}, 0
    for name, array in tensors.items():
        end = offset + array.nbytes
        header[name] = {"dtype": kinds[array.dtype], "shape": list(array.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    body = b"".join(numpy.ascontiguousarray(array).tobytes() for array in tensors.values())
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def same_branches(a, b):
    """Whether two forward passes chose the same experts and clipped the same entries: between them all is smooth."""
    same_choices = all(
        torch.equal(x.index, y.index)
        and torch.equal(x.kept, y.kept)
        and torch.equal(x.probabilities.argmax(dim=-1), y.probabilities.argmax(dim=-1))
        for x, y in zip(a.routings, b.routings)
    )
    return same_choices and all(torch.equal(x, y) for x, y in zip(a.clipped, b.clipped))


def check_gradients(initial, options, tokens, gradients, seed):
    """Fourth-order central differences of the total at the largest and three random entries of every tensor.

    The error is relative to the entry, or to 1 % of the tensor's largest entry (and at least 1e-4) where that is more.
    """
    random = numpy.random.RandomState(seed)
    base, worst, checked, skipped = reference.forward(initial, options, tokens), 0.0, 0, 0
    for name, value in initial.items():
        gradient, flat = gradients[name].reshape(-1), value.view(-1)
        entries = {int(gradient.abs().argmax()), *random.randint(0, flat.numel(), size=3).tolist()}
        for entry in sorted(entries):
            original = flat[entry].item()
            for h in (3e-4, 3e-5, 3e-6):
                totals, smooth = [], True
                for multiple in (-2, -1, 1, 2):
                    flat[entry] = original + multiple * h
                    step = reference.forward(initial, options, tokens)
                    smooth = smooth and same_branches(base, step)
                    totals.append(step.total.item())
                flat[entry] = original
                if smooth:
                    break
            else:
                skipped += 1  # a kink is closer than the smallest step
                continue
            slope = (8 * (totals[2] - totals[1]) - (totals[3] - totals[0])) / (12 * h)
            exact = gradient[entry].item()
            error = abs(slope - exact) / max(abs(exact), 0.01 * gradient.abs().max().item(), 1e-4)
            worst, checked = max(worst, error), checked + 1
            assert error < GRADIENT_TOLERANCE, f"{name}[{entry}]: autograd {exact}, differences {slope}"
    return worst, checked, skipped


def sensitivity(initial, options, tokens, gradients, seed, draws=4):
    """How far noise of 2^-24 in the weights moves the worst gradient tensor, relative L2: what fp32 cannot avoid."""
    random = numpy.random.RandomState(seed)
    worst = 0.0
    for _ in range(draws):
        noisy = {
            name: (value * (1 + 2.0**-24 * torch.from_numpy(random.standard_normal(value.shape)))).requires_grad_()
            for name, value in initial.items()
        }
        moved = torch.autograd.grad(reference.forward(noisy, options, tokens).total, noisy.values(), allow_unused=True)
        for name, gradient in zip(noisy, moved):
            if gradient is not None and gradients[name].norm() > 0:
                worst = max(worst, ((gradient - gradients[name]).norm() / gradients[name].norm()).item())
    return worst


def stack_routing(steps, part):
    return torch.stack([part(routing) for routing in steps.routings])


def build(variant, first_seed):
    """Trains ten steps from the first seed that is clear of ties and well-conditioned; returns tensors, metadata, a summary."""
    options = options_of(variant)
    experts = options["model"]["moe"]["experts"]
    for seed in itertools.count(first_seed):
        initial = reference.initial_weights(options, seed)
        random = numpy.random.RandomState(seed + 1000)
        tokens = random.randint(0, VOCAB, size=(STEPS, SEQUENCES, SEQ_LEN + 1)).astype("<i4")
        history = []
        for number, step, gradients, norm, lr, weights in reference.train(initial, options, torch.from_numpy(tokens)):
            if number == 1:
                first, first_gradients = step, gradients
            counts = stack_routing(step, lambda r: torch.bincount(r.index.reshape(-1), minlength=experts))
            dropped = stack_routing(step, lambda r: (~r.kept).sum())
            history.append((step, norm, lr, counts, dropped))
        router_margin = min(step.router_margin for step, *_ in history)
        clip_margin = min(step.clip_margin for step, *_ in history)
        moved = sensitivity(initial, options, torch.from_numpy(tokens[0]), first_gradients, seed + 2000)
        clear = router_margin > LEAST_ROUTER_MARGIN and clip_margin > LEAST_CLIP_MARGIN
        if clear and moved < MOST_SENSITIVITY:
            break
    clipped = sum(mask.sum().item() for mask in first.clipped)
    assert clipped > 0 or options["model"]["clip_qkv"] == "none"
    worst, checked, skipped = check_gradients(initial, options, torch.from_numpy(tokens[0]), first_gradients, seed)

    doubles = {f"weight.{name}": value for name, value in initial.items()}
    doubles.update({f"grad.{name}": value for name, value in first_gradients.items()})
    doubles.update({f"after.{name}": value for name, value in weights.items()})
    names = ["loss", "loss_aux", "loss_z"]
    if options["model"]["moe"]["balance"].get("importance", 0) > 0:
        names.append("loss_importance")
    for name in names:
        doubles[name] = torch.stack([getattr(step, name) for step, *_ in history])
    doubles["grad_norm"] = torch.tensor([norm for _, norm, *_ in history], dtype=torch.float64)
    doubles["lr"] = torch.tensor([lr for _, _, lr, *_ in history], dtype=torch.float64)
    doubles["token_losses"] = first.token_losses
    doubles["logits"] = first.logits
    doubles["expert_weight"] = stack_routing(first, lambda r: r.weight)
    integers = {
        "tokens": torch.from_numpy(tokens),
        "expert_index": stack_routing(first, lambda r: r.index),
        "expert_count": torch.stack([counts for *_, counts, _ in history]),
    }
    if options["model"]["moe"]["capacity"] != "dropless":
        integers["dropped"] = torch.stack([dropped for *_, dropped in history])
        assert integers["dropped"].min() > 0  # on every step and layer
    tensors = {name: value.detach().numpy().astype("<f8") for name, value in doubles.items()}
    tensors.update({name: value.numpy().astype("<i4") for name, value in integers.items()})
    assert all(numpy.isfinite(array).all() for array in tensors.values())
    metadata = {"format": "moesaic-reference-1", "name": variant, "seed": str(seed), "options": json.dumps(options)}
    summary = (
        f"seed {seed}, loss {tensors['loss'][0]:.4f} to {tensors['loss'][-1]:.4f}, "
        f"aux {tensors['loss_aux'][0]:.4f}, z {tensors['loss_z'][0]:.4f}, "
        f"norm {tensors['grad_norm'].min():.3f} to {tensors['grad_norm'].max():.3f}, "
        f"router margin {router_margin:.1e}, clipped {clipped} (margin {clip_margin:.1e}), sensitivity {moved:.1e}, "
        f"differences: {checked} entries, {skipped} skipped, worst {worst:.1e}"
    )
    return tensors, metadata, summary


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    here = pathlib.Path(__file__).resolve().parent
    parser.add_argument("--out", type=pathlib.Path, default=here / "fixtures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for number, variant in enumerate(VARIANTS):
        tensors, metadata, summary = build(variant, first_seed=100 * (number + 1))
        path = arguments.out / f"{variant}.safetensors"
        write_safetensors(path, tensors, metadata)
        print(f"{variant}: {summary}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
