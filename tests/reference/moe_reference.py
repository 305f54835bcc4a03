"""A sparse mixture-of-experts language model in plain PyTorch: the oracle the C++ tests compare to.

One process, one thread of thought: no parallelism, no fused kernels, gradients from autograd. Every formula is
written out once, in the order in which README.md states it. `options` is a dictionary with the keys of a Moesaic
configuration (`model`, `optimizer`, `train`, `task`) plus `vocab_size`; weights are a dictionary from Hugging Face
names to tensors. Works with torch 1.13 and later, on the CPU.
"""

import math
from dataclasses import dataclass, field

import numpy
import torch

NO_MARGIN = float("inf")


# ------------------------------------------------------------------------------------------------ parameters
def is_moe_layer(model, layer):
    return (layer + 1) % model["moe"]["every"] == 0


def parameter_shapes(options):
    """Name to shape of every weight, in the order of the forward pass. Matrices are [out, in]."""
    model, vocab = options["model"], options["vocab_size"]
    width, head_dim = model["width"], model["head_dim"]
    q_width, kv_width = model["heads"] * head_dim, model["kv_heads"] * head_dim
    norm_widths = {"none": None, "full": (q_width, kv_width), "head": (head_dim, head_dim)}[model["qk_norm"]]

    def feed_forward(prefix, hidden):
        return {
            f"{prefix}.gate_proj.weight": (hidden, width),
            f"{prefix}.up_proj.weight": (hidden, width),
            f"{prefix}.down_proj.weight": (width, hidden),
        }

    shapes = {"model.embed_tokens.weight": (vocab, width)}
    for layer in range(model["layers"]):
        prefix = f"model.layers.{layer}"
        shapes[f"{prefix}.input_layernorm.weight"] = (width,)
        shapes[f"{prefix}.self_attn.q_proj.weight"] = (q_width, width)
        shapes[f"{prefix}.self_attn.k_proj.weight"] = (kv_width, width)
        shapes[f"{prefix}.self_attn.v_proj.weight"] = (kv_width, width)
        shapes[f"{prefix}.self_attn.o_proj.weight"] = (width, q_width)
        if norm_widths:
            shapes[f"{prefix}.self_attn.q_norm.weight"] = (norm_widths[0],)
            shapes[f"{prefix}.self_attn.k_norm.weight"] = (norm_widths[1],)
        shapes[f"{prefix}.post_attention_layernorm.weight"] = (width,)
        if is_moe_layer(model, layer):
            shapes[f"{prefix}.mlp.gate.weight"] = (model["moe"]["experts"], width)
            for expert in range(model["moe"]["experts"]):
                shapes.update(feed_forward(f"{prefix}.mlp.experts.{expert}", model["moe"]["hidden"]))
        else:
            shapes.update(feed_forward(f"{prefix}.mlp", model["dense_hidden"]))
    shapes["model.norm.weight"] = (width,)
    if not model["tie_embeddings"]:
        shapes["lm_head.weight"] = (vocab, width)
    return shapes


def initial_weights(options, seed):
    """Matrices normal with `init_std`; norms 1 + 0.1 * normal, so that no norm weight is trivially 1."""
    random = numpy.random.RandomState(seed)  # a stream that NumPy has frozen for good
    weights = {}
    for name, shape in parameter_shapes(options).items():
        draw = torch.from_numpy(random.standard_normal(shape))
        weights[name] = 1 + 0.1 * draw if len(shape) == 1 else options["model"]["init_std"] * draw
    return weights


# ------------------------------------------------------------------------------------------------ forward
@dataclass
class Routing:
    """What the router of one MoE layer did with the T tokens of a batch."""

    logits: torch.Tensor  # [T, E]
    probabilities: torch.Tensor  # [T, E], softmax over all experts
    index: torch.Tensor  # [T, k], chosen experts, best first
    weight: torch.Tensor  # [T, k], before any choice is dropped
    kept: torch.Tensor  # [T, k], false where an expert's capacity drops the choice


@dataclass
class Step:
    """Everything one forward pass computes. `total` is what is differentiated."""

    logits: torch.Tensor = None  # [T, V]
    token_losses: torch.Tensor = None  # [B, seq_len]
    loss: torch.Tensor = None
    loss_aux: torch.Tensor = None  # without its coefficient
    loss_z: torch.Tensor = None  # without its coefficient
    loss_importance: torch.Tensor = None  # without its coefficient
    total: torch.Tensor = None
    routings: list = field(default_factory=list)  # one per MoE layer
    clipped: list = field(default_factory=list)  # masks of the q, k, v entries that clip_qkv changed
    router_margin: float = NO_MARGIN  # smallest gap between neighbours among the k + 1 largest logits
    clip_margin: float = NO_MARGIN  # smallest distance of a q, k, v entry from the clipping point


def rms_norm(x, weight, eps):
    return weight * x / torch.sqrt(x.pow(2).mean(dim=-1, keepdim=True) + eps)


def swiglu(x, weights, prefix):
    gate = x @ weights[f"{prefix}.gate_proj.weight"].T
    up = x @ weights[f"{prefix}.up_proj.weight"].T
    return (gate * torch.sigmoid(gate) * up) @ weights[f"{prefix}.down_proj.weight"].T


def rotary(x, theta):
    """Rotate the pairs (i, i + head_dim/2) of x [B, heads, seq, head_dim] by position * theta^(-2i/head_dim)."""
    seq_len, head_dim = x.shape[-2:]
    half = head_dim // 2
    frequency = theta ** (-2 * torch.arange(half, dtype=x.dtype) / head_dim)
    angle = torch.arange(seq_len, dtype=x.dtype)[:, None] * frequency[None, :]
    first, second = x[..., :half], x[..., half:]
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def attention(x, weights, prefix, model, step):
    """Causal grouped-query attention of x [B, seq, width]: project, qk-norm, clip, rotate, attend."""
    batch, seq_len, _ = x.shape
    heads, kv_heads, head_dim, eps = model["heads"], model["kv_heads"], model["head_dim"], model["norm_eps"]
    projected = {}
    for part, count in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
        y = x @ weights[f"{prefix}.{part}_proj.weight"].T
        if part != "v" and model["qk_norm"] == "full":
            y = rms_norm(y, weights[f"{prefix}.{part}_norm.weight"], eps)
        y = y.view(batch, seq_len, count, head_dim)
        if part != "v" and model["qk_norm"] == "head":
            y = rms_norm(y, weights[f"{prefix}.{part}_norm.weight"], eps)
        if model["clip_qkv"] != "none":
            limit = model["clip_qkv"]
            step.clipped.append(y.detach().abs() > limit)
            step.clip_margin = min(step.clip_margin, (y.detach().abs() - limit).abs().min().item())
            y = torch.clamp(y, -limit, limit)
        projected[part] = y.transpose(1, 2)  # [B, heads, seq, head_dim]
    q = rotary(projected["q"], model["rope_theta"])
    k = rotary(projected["k"], model["rope_theta"])
    kv_head_of = torch.arange(heads) // (heads // kv_heads)
    k, v = k[:, kv_head_of], projected["v"][:, kv_head_of]
    scores = q @ k.transpose(-1, -2) / math.sqrt(head_dim)
    future = torch.ones(seq_len, seq_len, dtype=torch.bool).triu(diagonal=1)
    mixed = torch.softmax(scores.masked_fill(future, -math.inf), dim=-1) @ v
    return mixed.transpose(1, 2).reshape(batch, seq_len, heads * head_dim) @ weights[f"{prefix}.o_proj.weight"].T


def rows_of_capacity(capacity, tokens, top_k, experts):
    """How many of `tokens` tokens' choices one expert takes, by the rule of the program that `rounding` names."""
    factor, share = capacity["factor"], capacity["factor"] * top_k * tokens / experts
    rows = {
        "ceil": lambda: math.ceil(share),
        "floor": lambda: math.floor(share),
        "tutel": lambda: top_k * int(factor * math.ceil(tokens / experts)),
        "fastmoe": lambda: math.ceil(factor * tokens) * top_k // experts,
        "colossalai": lambda: math.floor(share) + math.floor(share) % 2,
        "olmo": lambda: -(-math.floor(share) // 8) * 8,
    }[capacity["rounding"]]()
    return min(max(rows, 1), tokens)


def kept_choices(index, probabilities, capacity, objects, step):
    """Expert by expert and object by object: which of the choices find room."""
    top_k, experts = index.shape[1], probabilities.shape[1]
    kept = torch.ones_like(index, dtype=torch.bool)
    for first, last in objects:
        room = rows_of_capacity(capacity, last - first, top_k, experts)
        for expert in range(experts):
            token, choice = torch.where(index[first:last] == expert)  # in the order of tokens
            token = token + first
            if len(token) <= room:
                continue
            if capacity["policy"] == "position":
                dropped = torch.arange(room, len(token))
            else:
                ranked, order = torch.sort(probabilities[token, expert].detach(), descending=True, stable=True)
                step.router_margin = min(step.router_margin, (ranked[room - 1] - ranked[room]).item())
                dropped = order[room:]
            kept[token[dropped], choice[dropped]] = False
    return kept


def mixture_of_experts(x, weights, prefix, options, step):
    """Each of the T rows of x [T, width] goes to its top_k experts; their outputs are summed by router weight."""
    moe = options["model"]["moe"]
    top_k, capacity = moe["top_k"], moe["capacity"]
    logits = x @ weights[f"{prefix}.gate.weight"].T
    probabilities = torch.softmax(logits, dim=-1)
    ranked, order = torch.sort(logits.detach(), dim=-1, descending=True, stable=True)  # ties: lower expert first
    index = order[:, :top_k]
    gaps = ranked[:, :top_k] - ranked[:, 1 : top_k + 1]
    step.router_margin = min(step.router_margin, gaps.min().item())
    weight = probabilities.gather(1, index)
    if moe["router"]["normalize"]:
        weight = weight / weight.sum(dim=-1, keepdim=True)
    kept = torch.ones_like(index, dtype=torch.bool)
    used = weight
    if capacity != "dropless":
        objects = token_ranges(options, capacity["per"], len(x) // options["task"]["data"]["seq_len"])
        kept = kept_choices(index, probabilities, capacity, objects, step)
        used = weight * kept
        if capacity["renormalize"]:
            rest = used.sum(dim=-1, keepdim=True)
            used = torch.where(rest > 0, used * weight.sum(dim=-1, keepdim=True) / rest.clamp(min=1e-300), used)
    y = torch.zeros_like(x)
    for expert in range(moe["experts"]):
        token, choice = torch.where((index == expert) & kept)
        output = swiglu(x[token], weights, f"{prefix}.experts.{expert}")
        y = y.index_add(0, token, used[token, choice][:, None] * output)
    step.routings.append(Routing(logits, probabilities, index, weight, kept))
    return y


def token_ranges(options, scope, sequences):
    """The token ranges that `scope` means: [(first, last + 1), ...] in tokens of the batch."""
    size = {"sequence": 1, "micro": options["train"]["micro_sequences"], "global": sequences}[scope]
    seq_len = options["task"]["data"]["seq_len"]
    return [(s * seq_len, min(s + size, sequences) * seq_len) for s in range(0, sequences, size)]


def counted(routing, convention):
    """The choices whose number a convention counts [T, any]."""
    if convention == "gshard":
        return routing.index[:, :1]
    if convention == "switch":
        return routing.probabilities.argmax(dim=-1, keepdim=True)
    return routing.index


def object_balance(routings, convention):
    """The balance loss of one object, whose tokens are all that `routings`, one for each layer, hold."""
    if convention == "hf":  # one product over all layers, as if they were more tokens of one layer
        probabilities = torch.cat([routing.probabilities for routing in routings])
        index = torch.cat([routing.index for routing in routings])
        tokens, experts = probabilities.shape
        count = torch.bincount(index.reshape(-1), minlength=experts)
        return experts / tokens * (count * probabilities.mean(dim=0)).sum()
    value = 0.0
    for routing in routings:
        tokens, experts = routing.probabilities.shape
        index = counted(routing, convention)
        count = torch.bincount(index.reshape(-1), minlength=experts)
        value = value + experts / (tokens * index.shape[1]) * (count * routing.probabilities.mean(dim=0)).sum()
    return value


def object_importance(routings):
    """Squared coefficient of variation of the summed weights of each expert, over layers."""
    value = 0.0
    for routing in routings:
        experts = routing.probabilities.shape[1]
        importance = torch.zeros(experts, dtype=routing.weight.dtype)
        importance = importance.index_add(0, routing.index.reshape(-1), routing.weight.reshape(-1))
        value = value + importance.var(unbiased=False) / importance.mean() ** 2
    return value


def over_objects(loss, routings, objects):
    """Sum over objects of T_o/N * loss of the object."""
    tokens, value = len(routings[0].index), 0.0
    for first, last in objects:
        parts = [
            Routing(*(getattr(routing, name)[first:last] for name in Routing.__dataclass_fields__))
            for routing in routings
        ]
        value = value + (last - first) / tokens * loss(parts)
    return value


def forward(weights, options, tokens):
    """One batch of tokens [B, seq_len + 1]: inputs are all but the last column, targets all but the first."""
    model = options["model"]
    moe, eps, step = model["moe"], model["norm_eps"], Step()
    tokens = tokens.long()
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    batch, seq_len = inputs.shape

    x = weights["model.embed_tokens.weight"][inputs]
    for layer in range(model["layers"]):
        prefix = f"model.layers.{layer}"
        normed = rms_norm(x, weights[f"{prefix}.input_layernorm.weight"], eps)
        x = x + attention(normed, weights, f"{prefix}.self_attn", model, step)
        normed = rms_norm(x, weights[f"{prefix}.post_attention_layernorm.weight"], eps).view(batch * seq_len, -1)
        if is_moe_layer(model, layer):
            update = mixture_of_experts(normed, weights, f"{prefix}.mlp", options, step)
        else:
            update = swiglu(normed, weights, f"{prefix}.mlp")
        x = x + update.view_as(x)
    x = rms_norm(x, weights["model.norm.weight"], eps)
    head = weights["model.embed_tokens.weight" if model["tie_embeddings"] else "lm_head.weight"]
    step.logits = x.view(batch * seq_len, -1) @ head.T

    log_p = step.logits - torch.logsumexp(step.logits, dim=-1, keepdim=True)
    step.token_losses = -log_p.gather(1, targets.reshape(-1, 1)).view(batch, seq_len)
    step.loss = step.token_losses.sum() / (batch * seq_len)
    balance = moe["balance"]
    objects = token_ranges(options, balance["scope"], batch)
    step.loss_aux = over_objects(
        lambda parts: object_balance(parts, balance["convention"]), step.routings, objects
    )
    step.loss_importance = over_objects(object_importance, step.routings, objects)
    step.loss_z = sum(torch.logsumexp(routing.logits, dim=-1).pow(2).mean() for routing in step.routings)
    step.total = step.loss + balance["aux"] * step.loss_aux + balance["z"] * step.loss_z
    if balance.get("importance", 0) > 0:
        step.total = step.total + balance["importance"] * step.loss_importance
    return step


# ------------------------------------------------------------------------------------------------ training
def learning_rate(options, step):
    """Linear warm-up, then cosine down to floor * lr at the last step. Steps are counted from 1."""
    schedule, steps = options["optimizer"]["schedule"], options["train"]["steps"]
    base, warmup, floor = options["optimizer"]["lr"], schedule["warmup"], schedule["floor"]
    if step <= warmup:
        return base * step / warmup
    progress = (step - warmup) / (steps - warmup)
    return base * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def train(initial, options, batches):
    """AdamW over batches [steps, B, seq_len + 1]. Yields (step number, Step, gradients, norm, lr, weights after)."""
    settings = options["optimizer"]
    weights = {name: value.clone().requires_grad_() for name, value in initial.items()}
    matrices = [w for w in weights.values() if w.dim() >= 2]
    vectors = [w for w in weights.values() if w.dim() < 2]
    adamw = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": settings["weight_decay"]}, {"params": vectors, "weight_decay": 0.0}],
        lr=settings["lr"],
        betas=tuple(settings["betas"]),
        eps=settings["eps"],
    )
    for number, tokens in enumerate(batches, start=1):
        step = forward(weights, options, tokens)
        adamw.zero_grad(set_to_none=True)
        step.total.backward()
        # An expert that no token chose still has a gradient: zero. AdamW must decay it like any other.
        for w in weights.values():
            w.grad = torch.zeros_like(w) if w.grad is None else w.grad
        gradients = {name: w.grad.clone() for name, w in weights.items()}
        norm = math.sqrt(sum(g.pow(2).sum().item() for g in gradients.values()))
        factor = min(1.0, settings["clip"] / (norm + 1e-6))
        for w in weights.values():
            w.grad.mul_(factor)
        for group in adamw.param_groups:
            group["lr"] = learning_rate(options, number)
        adamw.step()
        yield number, step, gradients, norm, learning_rate(options, number), weights
