#!/usr/bin/env python3
"""Optional: trains Hugging Face's own model classes on the fixtures' batches and compares every recorded number.

Needs torch, transformers and safetensors from PyPI (see README.md); nothing else in the repository needs them.
The fixtures are read with the safetensors package, the models, their router logits and the balance loss are
Hugging Face's, clipping and AdamW are torch's; moe_reference.py is not used.
"""

import argparse
import contextlib
import json
import pathlib
import sys
import warnings

import torch
from safetensors import safe_open
from transformers import MixtralConfig, MixtralForCausalLM
from transformers import OlmoeConfig, OlmoeForCausalLM
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

TOLERANCE = 1e-10
WEIGHT_TOLERANCE = 1e-9  # of weights after ten steps: AdamW divides tiny gradients by their own size


@contextlib.contextmanager
def fp64_throughout():
    """These classes compute norms, RoPE and router softmax in fp32 whatever the model's type; widen that to fp64."""
    saved = torch.float32, torch.float, torch.Tensor.float, torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        torch.float32, torch.float, torch.Tensor.float = saved[:3]
        torch.set_default_dtype(saved[3])


def build(name, options):
    """The Hugging Face model of a fixture, and the function from our weight names to its own."""
    model, moe = options["model"], options["model"]["moe"]
    common = dict(
        vocab_size=options["vocab_size"],
        hidden_size=model["width"],
        num_hidden_layers=model["layers"],
        num_attention_heads=model["heads"],
        num_key_value_heads=model["kv_heads"],
        head_dim=model["head_dim"],
        rms_norm_eps=model["norm_eps"],
        rope_theta=model["rope_theta"],
        tie_word_embeddings=model["tie_embeddings"],
        num_experts_per_tok=moe["top_k"],
        max_position_embeddings=64,
        pad_token_id=None,  # else that token's embedding gets no gradient
        attention_dropout=0.0,
        attn_implementation="eager",
    )
    if name == "mixtral":
        assert moe["router"]["normalize"] and moe["every"] == 1
        config = MixtralConfig(num_local_experts=moe["experts"], intermediate_size=moe["hidden"], **common)
        parts = {".mlp.": ".block_sparse_moe.", "gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}

        def rename(ours):
            for old, new in parts.items():
                ours = ours.replace(old, new)
            return ours

        return MixtralForCausalLM(config), rename
    if name == "olmoe":
        config = OlmoeConfig(
            num_experts=moe["experts"],
            intermediate_size=moe["hidden"],
            norm_topk_prob=moe["router"]["normalize"],
            clip_qkv=model["clip_qkv"],
            **common,
        )
        return OlmoeForCausalLM(config), lambda ours: ours
    config = Qwen3MoeConfig(
        num_experts=moe["experts"],
        moe_intermediate_size=moe["hidden"],
        intermediate_size=model["dense_hidden"],
        norm_topk_prob=moe["router"]["normalize"],
        decoder_sparse_step=moe["every"],
        **common,
    )
    hf = Qwen3MoeForCausalLM(config)
    if model["qk_norm"] == "none":  # the one family with dense layers in between always has head norms: take them out
        for layer in hf.model.layers:
            layer.self_attn.q_norm = layer.self_attn.k_norm = torch.nn.Identity()
    return hf, lambda ours: ours


def load(hf, rename, fixture, dtype):
    state = {rename(key[7:]): fixture.get_tensor(key).to(dtype) for key in fixture.keys() if key.startswith("weight.")}
    missing, unexpected = hf.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert set(missing) <= ({"lm_head.weight"} if hf.config.tie_word_embeddings else set()), missing
    return hf.to(dtype).eval()


def forward(hf, options, tokens):
    """Logits, token losses and the three losses, running one balance object (a few sequences) after another."""
    balance, k = options["model"]["moe"]["balance"], options["model"]["moe"]["top_k"]
    experts = options["model"]["moe"]["experts"]
    size = {"sequence": 1, "micro": options["train"]["micro_sequences"], "global": len(tokens)}[balance["scope"]]
    logits, token_losses, routers, aux, z = [], [], [], 0.0, 0.0
    layers = []  # router logits of each MoE layer, caught at the gates: outputs trip over dense layers
    gates = [module for name, module in hf.named_modules() if name.endswith(".gate")]
    hooks = [gate.register_forward_hook(lambda gate, args, output: layers.append(output)) for gate in gates]
    for rows in tokens.long().split(size):
        layers.clear()
        out = hf(input_ids=rows[:, :-1], use_cache=False)
        assert len(layers) == len(gates)
        share = len(rows) / len(tokens)
        target = rows[:, 1:]
        logits.append(out.logits.flatten(0, 1))
        token_losses.append(torch.nn.functional.cross_entropy(out.logits.transpose(1, 2), target, reduction="none"))
        routers.append(torch.stack(layers))
        # One layer at a time, and divided by k, Hugging Face's balance loss is Megatron's.
        aux = aux + share * sum(load_balancing_loss_func((r,), experts, k) for r in layers) / k
        z = z + share * sum(r.logsumexp(-1).square().mean() for r in layers)
    for hook in hooks:
        hook.remove()
    losses = torch.cat(token_losses)
    loss = losses.mean()
    total = loss + balance["aux"] * aux + balance["z"] * z
    return dict(
        logits=torch.cat(logits), token_losses=losses, loss=loss, loss_aux=aux, loss_z=z, total=total,
        expert_index=torch.cat(routers, dim=1).topk(k, dim=-1).indices,
    )  # fmt: skip


def check(name, path):
    """Returns worst differences by quantity: absolute, or relative to the tensor's largest entry where above 1."""
    worst = {}

    def compare(quantity, actual, expected):
        assert actual.shape == expected.shape, (name, quantity, actual.shape, expected.shape)
        difference = (actual.detach() - expected).abs().max().item() / max(1.0, expected.abs().max().item())
        worst[quantity] = max(worst.get(quantity, 0.0), difference)

    with safe_open(path, framework="pt") as fixture:
        options = json.loads(fixture.metadata()["options"])
        recorded = {key: fixture.get_tensor(key) for key in fixture.keys()}
        tokens, settings = recorded["tokens"], options["optimizer"]
        single, rename = build(name, options)
        out = forward(load(single, rename, fixture, torch.float32), options, tokens[0])
        compare("logits, fp32 model", out["logits"].double(), recorded["logits"])
        with fp64_throughout():
            hf, rename = build(name, options)
            load(hf, rename, fixture, torch.float64)
            hf.tie_weights()
            parameters = dict(hf.named_parameters())
            names = {key[7:]: parameters[rename(key[7:])] for key in recorded if key.startswith("weight.")}
            assert len(names) == len(parameters), set(parameters) - {rename(n) for n in names}
            groups = [
                {"params": [p for p in parameters.values() if p.dim() >= 2], "weight_decay": settings["weight_decay"]},
                {"params": [p for p in parameters.values() if p.dim() < 2], "weight_decay": 0.0},
            ]
            adamw = torch.optim.AdamW(groups, settings["lr"], tuple(settings["betas"]), settings["eps"])
            warmup, steps, floor = settings["schedule"]["warmup"], len(tokens), settings["schedule"]["floor"]
            up = torch.optim.lr_scheduler.LinearLR(adamw, 1 / warmup, 1.0, warmup - 1)
            down = torch.optim.lr_scheduler.CosineAnnealingLR(adamw, steps - warmup, floor * settings["lr"])
            schedule = torch.optim.lr_scheduler.SequentialLR(adamw, [up, down], [warmup - 1])
            for i in range(steps):
                out = forward(hf, options, tokens[i])
                adamw.zero_grad(set_to_none=False)
                out["total"].backward()
                for quantity in ("loss", "loss_aux", "loss_z"):
                    compare(quantity, out[quantity], recorded[quantity][i])
                if i == 0:
                    compare("logits", out["logits"], recorded["logits"])
                    compare("token_losses", out["token_losses"], recorded["token_losses"])
                    compare("expert_index", out["expert_index"].int(), recorded["expert_index"])
                    for ours, parameter in names.items():
                        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                        compare("grad", gradient, recorded["grad." + ours])
                compare("lr", torch.tensor(adamw.param_groups[0]["lr"]), recorded["lr"][i])
                norm = torch.nn.utils.clip_grad_norm_(parameters.values(), settings["clip"])
                compare("grad_norm", norm, recorded["grad_norm"][i])
                adamw.step()
                schedule.step()
            for ours, parameter in names.items():
                compare("after", parameter, recorded["after." + ours])
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    here = pathlib.Path(__file__).resolve().parent
    parser.add_argument("fixtures", nargs="?", type=pathlib.Path, default=here / "fixtures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.filterwarnings("ignore", message="The epoch parameter")  # SequentialLR warns of its own doing
    held = True
    for path in sorted(arguments.fixtures.glob("*.safetensors")):
        for quantity, difference in check(path.stem, path).items():
            limit = {"logits, fp32 model": 1e-5, "after": WEIGHT_TOLERANCE}.get(quantity, TOLERANCE)
            held = held and difference <= limit
            print(f"{path.stem:12} {quantity:18} {difference:8.1e} {'ok' if difference <= limit else 'WRONG'}")
    return 0 if held else 3


if __name__ == "__main__":
    sys.exit(main())
