"""The yardstick of `make bench`: PyTorch's time for the same two networks on the same cores.

A 27-layer SigLIP-like encoder (hidden 1152, 2-D rotary positions) and a Qwen2.5-1.5B decoder in plain torch modules,
random weights, scaled dot product attention, no autograd. What is timed is what pixelrefer times: the encoder on one
picture of --cells cells, the prefill of a prompt with the logits of its last position and the KV cache kept, and single
decode steps behind that prompt. Each figure is the least of --repeats runs after one warm-up; the median says how
noisy the machine was.

    python spec/bench/torch_baseline.py --dtype float32 --threads 2 --out build/bench/torch.json
"""

import argparse
import json
import os
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F

ENCODER = dict(hidden=1152, layers=27, heads=16, mlp=4304, patch=3 * 14 * 14)
DECODER = dict(hidden=1536, layers=28, heads=12, kv_heads=2, head_dim=128, mlp=8960, vocabulary=151936, theta=1e6)


def rotate_half(x):
    left, right = x.chunk(2, dim=-1)
    return torch.cat((-right, left), dim=-1)


def rotate(x, cosine, sine):
    """x [heads, n, head_dim]; the angles [n, head_dim]."""
    return x * cosine + rotate_half(x) * sine


class EncoderLayer(nn.Module):
    def __init__(self, hidden, heads, mlp):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(hidden, eps=1e-6), nn.LayerNorm(hidden, eps=1e-6)
        self.q, self.k, self.v, self.out = (nn.Linear(hidden, hidden) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(hidden, mlp), nn.Linear(mlp, hidden)

    def split(self, x):
        return x.view(x.shape[0], self.heads, -1).transpose(0, 1)

    def forward(self, x, cosine, sine):
        h = self.norm1(x)
        q, k, v = rotate(self.split(self.q(h)), cosine, sine), rotate(self.split(self.k(h)), cosine, sine), self.split(self.v(h))
        attended = F.scaled_dot_product_attention(q[None], k[None], v[None])[0]
        x = x + self.out(attended.transpose(0, 1).reshape(x.shape))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x)), approximate="tanh"))


class Encoder(nn.Module):
    def __init__(self, hidden, layers, heads, mlp, patch):
        super().__init__()
        self.head_dim = hidden // heads
        self.embed = nn.Linear(patch, hidden)
        self.layers = nn.ModuleList(EncoderLayer(hidden, heads, mlp) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden, eps=1e-6)

    def forward(self, patches, grid_h, grid_w):
        quarter = self.head_dim // 4
        frequency = 10000.0 ** (-torch.arange(quarter) * 2.0 / (self.head_dim // 2))
        row, column = torch.arange(grid_h).repeat_interleave(grid_w), torch.arange(grid_w).repeat(grid_h)
        angle = torch.cat((row[:, None] * frequency, column[:, None] * frequency), dim=1).repeat(1, 2)
        cosine, sine = angle.cos().to(patches.dtype), angle.sin().to(patches.dtype)
        x = self.embed(patches)
        for layer in self.layers:
            x = layer(x, cosine, sine)
        return self.norm(x)


class RmsNorm(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))

    def forward(self, x):
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)


class DecoderLayer(nn.Module):
    def __init__(self, hidden, heads, kv_heads, head_dim, mlp):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        self.norm1, self.norm2 = RmsNorm(hidden), RmsNorm(hidden)
        self.q = nn.Linear(hidden, heads * head_dim)
        self.k, self.v = nn.Linear(hidden, kv_heads * head_dim), nn.Linear(hidden, kv_heads * head_dim)
        self.out = nn.Linear(heads * head_dim, hidden, bias=False)
        self.gate, self.up = nn.Linear(hidden, mlp, bias=False), nn.Linear(hidden, mlp, bias=False)
        self.down = nn.Linear(mlp, hidden, bias=False)

    def forward(self, x, cosine, sine, keys, values, past):
        n = x.shape[0]
        h = self.norm1(x)
        q = rotate(self.q(h).view(n, self.heads, self.head_dim).transpose(0, 1), cosine, sine)
        k = rotate(self.k(h).view(n, self.kv_heads, self.head_dim).transpose(0, 1), cosine, sine)
        keys[:, past : past + n] = k
        values[:, past : past + n] = self.v(h).view(n, self.kv_heads, self.head_dim).transpose(0, 1)
        group = self.heads // self.kv_heads
        k = keys[:, : past + n].repeat_interleave(group, dim=0)
        v = values[:, : past + n].repeat_interleave(group, dim=0)
        attended = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=past == 0)[0]
        x = x + self.out(attended.transpose(0, 1).reshape(n, -1))
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Decoder(nn.Module):
    def __init__(self, hidden, layers, heads, kv_heads, head_dim, mlp, vocabulary, theta):
        super().__init__()
        self.theta, self.head_dim, self.kv_heads = theta, head_dim, kv_heads
        self.embed = nn.Embedding(vocabulary, hidden)
        self.layers = nn.ModuleList(DecoderLayer(hidden, heads, kv_heads, head_dim, mlp) for _ in range(layers))
        self.norm = RmsNorm(hidden)

    def cache(self, capacity):
        dtype = self.embed.weight.dtype
        return [[torch.zeros(self.kv_heads, capacity, self.head_dim, dtype=dtype) for _ in "kv"] for _ in self.layers]

    def forward(self, ids, cache, past):
        """Logits [vocabulary] of the last position; the head is tied to the embeddings."""
        frequency = self.theta ** (-torch.arange(self.head_dim // 2) * 2.0 / self.head_dim)
        angle = (torch.arange(past, past + len(ids))[:, None] * frequency).repeat(1, 2)
        x = self.embed(ids)
        cosine, sine = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        for layer, (keys, values) in zip(self.layers, cache):
            x = layer(x, cosine, sine, keys, values, past)
        return F.linear(self.norm(x[-1:]), self.embed.weight)[0]


def seconds(run, repeats):
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times), statistics.median(times)


def build(make, dtype):
    """Parameters are filled in place, small enough that activations stay finite."""
    with torch.device("meta"):
        module = make()
    module = module.to(dtype).to_empty(device="cpu")
    for name, parameter in module.named_parameters():
        if parameter.dim() == 1:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
        else:
            parameter.uniform_(-0.02, 0.02)
    return module.eval()


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--grid", type=int, nargs=2, default=(32, 32), help="cells down and across")
    parser.add_argument("--prompts", type=int, nargs="*", default=(1100, 2048))
    parser.add_argument("--steps", type=int, default=16, help="decode steps of one timing")
    parser.add_argument("--parts", nargs="*", default=("encoder", "decoder"))
    parser.add_argument("--out", help="JSON file; its other dtypes are kept")
    options = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    result = dict(torch=torch.__version__, threads=options.threads, repeats=options.repeats)

    def report(name, count, unit, least, median):
        result[name] = dict(rate=count / least, unit=unit, seconds=least, median_seconds=median)
        print(f"{options.dtype} {name}: {count / least:.1f} {unit} (least {least:.3f} s, median {median:.3f} s)", flush=True)

    if "encoder" in options.parts:
        encoder = build(lambda: Encoder(**ENCODER), dtype)
        cells = options.grid[0] * options.grid[1]
        patches = torch.randn(cells, ENCODER["patch"]).to(dtype)
        report("encoder", cells, "cells/s", *seconds(lambda: encoder(patches, *options.grid), options.repeats))
        del encoder

    if "decoder" in options.parts:
        decoder = build(lambda: Decoder(**DECODER), dtype)
        cache = decoder.cache(max(options.prompts) + options.steps)
        for length in options.prompts:
            ids = torch.randint(0, DECODER["vocabulary"], (length,))
            report(f"prefill_{length}", length, "tokens/s", *seconds(lambda: decoder(ids, cache, 0), options.repeats))

        def decode():
            token = torch.tensor([1])
            for step in range(options.steps):
                token = decoder(token, cache, options.prompts[0] + step).argmax()[None]

        report("decode", options.steps, "tokens/s", *seconds(decode, options.repeats))

    if options.out:
        known = {}
        if os.path.exists(options.out):
            with open(options.out) as file:
                known = json.load(file)
        known.setdefault(options.dtype, {}).update(result)
        with open(options.out, "w") as file:
            json.dump(known, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
