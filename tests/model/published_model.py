"""The published RuLeanALBERT's arithmetic, written out plainly: no kernels, no sharing tricks, fp32.

Independent of `model/`: only the state-dict keys and the formulas are the published ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class PublishedConfig:
    """The keys of a published config.json that shape the computation, small by default."""

    vocab_size: int = 97
    embedding_size: int = 24
    hidden_size: int = 48
    intermediate_size: int = 80
    num_attention_heads: int = 4
    num_hidden_layers: int = 4
    num_hidden_groups: int = 1
    num_inner_groups: int = 1
    share_large_matrices: bool | int = False
    num_inner_matrices: int = 1
    adapter_dim: int = 0
    lowrank_dim: int = 0
    hidden_act: str = "gelu_fused"
    hidden_act_gated: bool = True
    sandwich_norm: bool = False
    position_embedding_type: str = "rotary"
    rotary_embedding_base: int = 10000
    max_position_embeddings: int = 32
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12

    @property
    def pairs(self) -> int:
        return self.num_hidden_groups * self.num_inner_groups


def gelu_tanh(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


class Matrix(nn.Module):
    """W, perhaps with a low-rank term of its own that every projection over it shares."""

    def __init__(self, rows, columns, rank=0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, columns) * 0.15)
        if rank:
            self.lowrank_first = nn.Parameter(torch.randn(rank, columns) * 0.1)
            self.lowrank_second = nn.Parameter(torch.randn(rows, rank) * 0.1)

    def forward(self, x):
        y = x @ self.weight.T
        if hasattr(self, "lowrank_first"):
            y = y + x @ self.lowrank_first.T @ self.lowrank_second.T
        return y


class Projection(nn.Module):
    """x -> x W^T (+ x first^T second^T) (+ bias), W perhaps shared with other projections."""

    def __init__(self, matrix, bias, rank):
        super().__init__()
        rows, columns = matrix.weight.shape
        self.shared_matrix = matrix
        self.bias = nn.Parameter(torch.randn(rows) * 0.1) if bias else None
        if rank:
            self.adapter_first = nn.Parameter(torch.randn(rank, columns) * 0.1)
            self.adapter_second = nn.Parameter(torch.randn(rows, rank) * 0.1)

    def forward(self, x):
        y = self.shared_matrix(x)
        if hasattr(self, "adapter_first"):
            y = y + x @ self.adapter_first.T @ self.adapter_second.T
        return y if self.bias is None else y + self.bias


def norm(size, eps):
    layer = nn.LayerNorm(size, eps=eps)
    nn.init.normal_(layer.weight, mean=1, std=0.1)
    nn.init.normal_(layer.bias, std=0.1)
    return layer


class Attention(nn.Module):
    def __init__(self, c, qkv, out):
        super().__init__()
        self.c = c
        self.layer_norm = norm(c.hidden_size, c.layer_norm_eps)
        self.dense_qkv = Projection(qkv, True, c.adapter_dim)
        self.dense_out = Projection(out, not c.sandwich_norm, c.adapter_dim)
        if c.sandwich_norm:
            self.sandwich_norm = norm(c.hidden_size, c.layer_norm_eps)

    def forward(self, x, bias):
        c, size = self.c, self.c.hidden_size // self.c.num_attention_heads
        thirds = self.dense_qkv(self.layer_norm(x)).split(c.hidden_size, dim=-1)
        mixed = []
        for head in range(c.num_attention_heads):
            q, k, v = (third[..., head * size : (head + 1) * size] for third in thirds)
            if c.position_embedding_type == "rotary":
                q, k = self.turn(q), self.turn(k)
            mixed.append((q @ k.transpose(1, 2) / math.sqrt(size) + bias).softmax(-1) @ v)
        y = self.dense_out(torch.cat(mixed, dim=-1))
        return x + (self.sandwich_norm(y) if c.sandwich_norm else y)

    def turn(self, x):
        size = x.shape[-1]
        frequencies = [self.c.rotary_embedding_base ** (-2 * j / size) for j in range(size // 2)]
        angles = torch.arange(x.shape[1]).float()[:, None] * torch.tensor(frequencies + frequencies)
        turned = torch.cat((-x[..., size // 2 :], x[..., : size // 2]), dim=-1)
        return x * angles.cos() + turned * angles.sin()


class FeedForward(nn.Module):
    def __init__(self, c, i2h, h2o):
        super().__init__()
        self.c = c
        self.layer_norm = norm(c.hidden_size, c.layer_norm_eps)
        self.dense_i2h = Projection(i2h, True, c.adapter_dim)
        self.dense_h2o = Projection(h2o, not c.sandwich_norm, c.adapter_dim)
        if c.sandwich_norm:
            self.sandwich_norm = norm(c.hidden_size, c.layer_norm_eps)

    def forward(self, x):
        y = self.dense_i2h(self.layer_norm(x))
        if self.c.hidden_act_gated:
            first, second = y.chunk(2, dim=-1)
            y = gelu_tanh(first) * second
        else:
            y = gelu_tanh(y)
        y = self.dense_h2o(y)
        return x + (self.sandwich_norm(y) if self.c.sandwich_norm else y)


class Holder(nn.Module):
    """A named place in the state dict."""

    def __init__(self, **children):
        super().__init__()
        for name, child in children.items():
            setattr(self, name, child)


def linear(inputs, outputs):
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=0.15)
    nn.init.normal_(layer.bias, std=0.1)
    return layer


def big_matrices(c):
    """One dictionary of four matrices per pair; shared ones are the same objects."""
    shapes = {
        "qkv": (3 * c.hidden_size, c.hidden_size),
        "out": (c.hidden_size, c.hidden_size),
        "i2h": ((1 + c.hidden_act_gated) * c.intermediate_size, c.hidden_size),
        "h2o": (c.hidden_size, c.intermediate_size),
    }
    sets = int(c.share_large_matrices) or c.pairs
    pool = [
        {n: Matrix(*s, c.lowrank_dim) for n, s in shapes.items()} for _ in range(sets * c.num_inner_matrices)
    ]
    return [
        pool[(n * sets // c.pairs) * c.num_inner_matrices + n % c.num_inner_matrices] for n in range(c.pairs)
    ]


class PublishedModel(nn.Module):
    """`forward` gives (last hidden state, pooled output, MLM scores, sentence-order scores)."""

    def __init__(self, c: PublishedConfig):
        super().__init__()
        self.c = c
        matrices = iter(big_matrices(c))
        groups = []
        for _ in range(c.num_hidden_groups):
            layers = []
            for _ in range(c.num_inner_groups):
                m = next(matrices)
                attention, ffn = Attention(c, m["qkv"], m["out"]), FeedForward(c, m["i2h"], m["h2o"])
                layers.append(Holder(attention=attention, ffn=ffn))
            groups.append(Holder(layers=nn.ModuleList(layers)))
        embeddings = {
            "word_embeddings": nn.Embedding(c.vocab_size, c.embedding_size, padding_idx=0),
            "token_type_embeddings": nn.Embedding(c.type_vocab_size, c.embedding_size),
            "layer_norm": norm(c.embedding_size, c.layer_norm_eps),
        }
        if c.position_embedding_type == "absolute":
            embeddings["position_embeddings"] = nn.Embedding(c.max_position_embeddings, c.embedding_size)
        if c.embedding_size != c.hidden_size:
            embeddings["embedding_hidden_mapping"] = linear(c.embedding_size, c.hidden_size)
        last = norm(c.hidden_size, c.layer_norm_eps)
        self.albert = Holder(
            embeddings=Holder(**embeddings),
            transformer=Holder(layer_groups=nn.ModuleList(groups), post_layer_norm=last),
            pooler=linear(c.hidden_size, c.hidden_size),
        )
        decoder = linear(c.embedding_size, c.vocab_size)
        decoder.weight = self.albert.embeddings.word_embeddings.weight
        dense = linear(c.hidden_size, c.embedding_size)
        self.predictions = Holder(dense=dense, layer_norm=norm(c.embedding_size, 1e-5), decoder=decoder)
        self.predictions.bias = decoder.bias
        self.sop_classifier = Holder(classifier=linear(c.hidden_size, 2))

    def forward(self, input_ids, attention_mask, token_type_ids):
        e = self.albert.embeddings
        x = e.word_embeddings(input_ids) + e.token_type_embeddings(token_type_ids)
        if hasattr(e, "position_embeddings"):
            x = x + e.position_embeddings.weight[: input_ids.shape[1]]
        x = e.layer_norm(x)
        if hasattr(e, "embedding_hidden_mapping"):
            x = e.embedding_hidden_mapping(x)
        bias = (1 - attention_mask[:, None, :].float()) * -10000.0
        for i in range(self.c.num_hidden_layers):
            group = int(i / (self.c.num_hidden_layers / self.c.num_hidden_groups))
            for pair in self.albert.transformer.layer_groups[group].layers:
                x = pair.ffn(pair.attention(x, bias))
        x = self.albert.transformer.post_layer_norm(x)
        pooled = self.albert.pooler(x[:, 0]).tanh()
        p = self.predictions
        scores = p.decoder(p.layer_norm(gelu_tanh(p.dense(x))))
        return x, pooled, scores, self.sop_classifier.classifier(pooled)
