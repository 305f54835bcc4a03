"""The layer and the language model of Moesaic's benchmarks in plain PyTorch, in several formulations."""

import torch
import torch.nn.functional as F


def by_expert(x, expert, count):
    """Rows of x in expert order, which choice each is of, and rows per expert."""
    order = torch.argsort(expert.flatten(), stable=True)
    return x[order // expert.shape[1]], order, torch.bincount(expert.flatten(), minlength=count)


def combine(rows, order, weight, tokens):
    weighted = rows * weight.flatten()[order].unsqueeze(1).to(rows.dtype)
    return torch.zeros(tokens, rows.shape[1], dtype=rows.dtype, device=rows.device).index_add(0, order // weight.shape[1], weighted)


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
    place = torch.arange(rows.shape[0], device=x.device) - first.repeat_interleave(counts)
    most = int(counts.max())
    slot = expert.flatten()[order] * most + place
    padded = torch.zeros(gate_up.shape[0] * most, x.shape[1], dtype=x.dtype, device=x.device).index_copy(0, slot, rows)
    hidden = swiglu(torch.bmm(padded.view(gate_up.shape[0], most, -1), gate_up.transpose(1, 2)))
    out = torch.bmm(hidden, down.transpose(1, 2)).flatten(0, 1)[slot]
    return combine(out, order, weight, x.shape[0])


def grouped_mm(x, expert, weight, gate_up, down):
    """PyTorch's own grouped product."""
    rows, order, counts = by_expert(x, expert, gate_up.shape[0])
    ends = counts.cumsum(0).to(torch.int32)
    hidden = swiglu(torch._grouped_mm(rows, gate_up.transpose(1, 2), offs=ends))
    return combine(torch._grouped_mm(hidden, down.transpose(1, 2), offs=ends), order, weight, x.shape[0])


class ToExperts(torch.autograd.Function):
    """Rows in expert order; back, a gather and a sum over a token's choices instead of atomic additions."""

    @staticmethod
    def forward(ctx, x, order, inverse, choices):
        ctx.save_for_backward(inverse)
        ctx.choices = choices
        return x.index_select(0, order // choices)

    @staticmethod
    def backward(ctx, dy):
        (inverse,) = ctx.saved_tensors
        return dy.index_select(0, inverse).view(-1, ctx.choices, dy.shape[1]).sum(1), None, None, None


class ToTokens(torch.autograd.Function):
    """Rows in the order of tokens and their choices; back, a gather."""

    @staticmethod
    def forward(ctx, rows, order, inverse):
        ctx.save_for_backward(order)
        return rows.index_select(0, inverse)

    @staticmethod
    def backward(ctx, dy):
        (order,) = ctx.saved_tensors
        return dy.index_select(0, order), None, None


def permuted(experts):
    """Tokens sorted by expert, gathers both ways, and a product of weights with rows; nothing waits for the host."""

    def layer(x, expert, weight, gate_up, down):
        choices = expert.shape[1]
        key, order = expert.flatten().sort(stable=True)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(order.shape[0], device=x.device)
        ends = torch.searchsorted(key, torch.arange(gate_up.shape[0], device=x.device), right=True, out_int32=True)
        rows = experts(ToExperts.apply(x, order, inverse, choices), ends, gate_up, down)
        rows = ToTokens.apply(rows, order, inverse).view(-1, choices, x.shape[1])
        return torch.bmm(weight.unsqueeze(1).to(rows.dtype), rows).squeeze(1)

    return layer


def grouped_experts(rows, ends, gate_up, down):
    product = getattr(F, "grouped_mm", None) or torch._grouped_mm
    hidden = swiglu(product(rows, gate_up.transpose(1, 2), offs=ends))
    return product(hidden, down.transpose(1, 2), offs=ends)


def looped_experts(rows, ends, gate_up, down):
    counts = torch.diff(ends, prepend=ends.new_zeros(1)).tolist()
    parts = [F.linear(swiglu(F.linear(part, gate_up[e])), down[e]) for e, part in enumerate(rows.split(counts))]
    return torch.cat(parts)


# "widened loop" is for bf16: a model takes all its products in fp32 then. "permuted" ones are for GPUs.
FORMULATIONS = {"masked loop": masked_loop, "sorted loop": sorted_loop, "padded bmm": padded_bmm, "grouped_mm": grouped_mm,
                "widened loop": widened_loop, "permuted grouped_mm": permuted(grouped_experts),
                "permuted loop": permuted(looped_experts)}


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
