"""The layer and the language model of Moesaic's CPU benchmarks in plain PyTorch, in several formulations."""

import torch
import torch.nn.functional as F


def by_expert(x, expert, count):
    """Rows of x in expert order, which choice each is of, and rows per expert."""
    order = torch.argsort(expert.flatten(), stable=True)
    return x[order // expert.shape[1]], order, torch.bincount(expert.flatten(), minlength=count)


def combine(rows, order, weight, tokens):
    weighted = rows * weight.flatten()[order].unsqueeze(1).to(rows.dtype)
    return torch.zeros(tokens, rows.shape[1], dtype=rows.dtype).index_add(0, order // weight.shape[1], weighted)


def swiglu(gate_up):
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def widened(x, weight):
    """x W' of bf16 operands in fp32, rounded once: the fast way where a CPU has no bf16 arithmetic."""
    return (x.float() @ weight.float().t()).to(x.dtype)


def masked_loop(x, expert, weight, gate_up, down):
    """As Hugging Face's model classes do it: every expert looks for its tokens."""
    y = torch.zeros_like(x)
    for e in range(gate_up.shape[0]):
        token, choice = torch.where(expert == e)
        rows = swiglu(x[token] @ gate_up[e].t()) @ down[e].t()
        y = y.index_add(0, token, rows * weight[token, choice].unsqueeze(1).to(rows.dtype))
    return y


def sorted_loop(x, expert, weight, gate_up, down, product=F.linear):
    """Rows in expert order once, then one product per expert on consecutive rows."""
    rows, order, counts = by_expert(x, expert, gate_up.shape[0])
    parts = [product(swiglu(product(part, gate_up[e])), down[e]) for e, part in enumerate(rows.split(counts.tolist()))]
    return combine(torch.cat(parts), order, weight, x.shape[0])


def widened_loop(*arguments):
    return sorted_loop(*arguments, product=widened)


def padded_bmm(x, expert, weight, gate_up, down):
    """Every expert padded to the fullest one's rows, two batched products."""
    rows, order, counts = by_expert(x, expert, gate_up.shape[0])
    first = counts.cumsum(0) - counts
    place = torch.arange(rows.shape[0]) - first.repeat_interleave(counts)
    most = int(counts.max())
    slot = expert.flatten()[order] * most + place
    padded = torch.zeros(gate_up.shape[0] * most, x.shape[1], dtype=x.dtype).index_copy(0, slot, rows)
    hidden = swiglu(torch.bmm(padded.view(gate_up.shape[0], most, -1), gate_up.transpose(1, 2)))
    out = torch.bmm(hidden, down.transpose(1, 2)).flatten(0, 1)[slot]
    return combine(out, order, weight, x.shape[0])


def grouped_mm(x, expert, weight, gate_up, down):
    """PyTorch's own grouped product."""
    rows, order, counts = by_expert(x, expert, gate_up.shape[0])
    ends = counts.cumsum(0).to(torch.int32)
    hidden = swiglu(torch._grouped_mm(rows, gate_up.transpose(1, 2), offs=ends))
    return combine(torch._grouped_mm(hidden, down.transpose(1, 2), offs=ends), order, weight, x.shape[0])


# "widened loop" is for bf16: a model takes all its products in fp32 then.
FORMULATIONS = {"masked loop": masked_loop, "sorted loop": sorted_loop, "padded bmm": padded_bmm, "grouped_mm": grouped_mm,
                "widened loop": widened_loop}


class Layer(torch.nn.Module):
    """Router (softmax, top k, weights that sum to 1) and experts with SwiGLU, as `bench layer` has them."""

    def __init__(self, width, hidden, experts, top_k, formulation):
        super().__init__()
        self.top_k, self.formulation = top_k, formulation
        self.router = torch.nn.Parameter(torch.randn(experts, width) * width**-0.5)
        self.gate_up = torch.nn.Parameter(torch.randn(experts, 2 * hidden, width) * width**-0.5)
        self.down = torch.nn.Parameter(torch.randn(experts, width, hidden) * hidden**-0.5)

    def forward(self, x):
        probability = (x.float() @ self.router.float().t()).softmax(-1)
        weight, expert = probability.topk(self.top_k)
        weight = weight / weight.sum(-1, keepdim=True)
        return self.formulation(x, expert, weight, self.gate_up, self.down)


def rotate(x, cosine, sine):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cosine - b * sine, b * cosine + a * sine), dim=-1)


class Block(torch.nn.Module):
    def __init__(self, width, heads, hidden, experts, top_k, formulation):
        super().__init__()
        self.heads, self.product = heads, widened if formulation is widened_loop else F.linear
        self.norm1, self.norm2 = torch.nn.RMSNorm(width), torch.nn.RMSNorm(width)
        self.qkv = torch.nn.Parameter(torch.randn(3 * width, width) * width**-0.5)
        self.out = torch.nn.Parameter(torch.randn(width, width) * width**-0.5)
        self.moe = Layer(width, hidden, experts, top_k, formulation)

    def forward(self, x, cosine, sine):
        sequences, length, width = x.shape
        q, k, v = (part.view(sequences, length, self.heads, -1).transpose(1, 2)
                   for part in self.product(self.norm1(x), self.qkv).chunk(3, dim=-1))
        mixed = F.scaled_dot_product_attention(rotate(q, cosine, sine), rotate(k, cosine, sine), v, is_causal=True)
        x = x + self.product(mixed.transpose(1, 2).reshape(sequences, length, width), self.out)
        return x + self.moe(self.norm2(x).flatten(0, 1)).view_as(x)


class LanguageModel(torch.nn.Module):
    def __init__(self, vocabulary, width, layers, heads, hidden, experts, top_k, length, formulation):
        super().__init__()
        self.embedding = torch.nn.Embedding(vocabulary, width)
        self.blocks = torch.nn.ModuleList(
            Block(width, heads, hidden, experts, top_k, formulation) for _ in range(layers))
        self.norm = torch.nn.RMSNorm(width)
        self.head = torch.nn.Parameter(torch.randn(vocabulary, width) * width**-0.5)
        self.product = self.blocks[0].product
        half = width // heads // 2
        angle = torch.arange(length).unsqueeze(1) * 10000.0 ** (-torch.arange(half) / half)
        self.register_buffer("cosine", angle.cos())
        self.register_buffer("sine", angle.sin())

    def forward(self, tokens, targets):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cosine.to(x.dtype), self.sine.to(x.dtype))
        return F.cross_entropy(self.product(self.norm(x), self.head).float().flatten(0, 1), targets.flatten())
