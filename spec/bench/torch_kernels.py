"""PyTorch's time on a GPU for what spec/bench/device_kernels.lua measures, by the same names: bfloat16 throughout.

    python spec/bench/torch_kernels.py --device cuda --repeats 5 --out torch.json

On another device than a GPU (--device cpu --divisor 16) it is a dry run.
"""
import argparse
import json
import time

import torch
from torch.nn import functional as F

CALLS = 20  # of one timing on a GPU


def measured(call, device, repeats):
    """Seconds of a call: the fastest of several timings after one that warms up."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    calls, best = CALLS if device == "cuda" else 1, float("inf")
    call()
    wait()
    for _ in range(repeats):
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        wait()
        best = min(best, (time.perf_counter() - begin) / calls)
    return best


def kernels(device, divisor):
    """(name, call) of each kernel."""
    def smaller(count):
        return max(1, count // divisor)

    def random(*sizes):
        return torch.randn(*sizes, dtype=torch.bfloat16, device=device)

    for rows, n, k in ((2500, 4304, 1152), (2500, 1152, 4304), (3000, 8960, 1536), (3000, 1536, 8960),
                       (1, 8960, 1536), (1, 1536, 8960), (8, 8960, 1536)):
        x, weight = random(smaller(rows) if rows > 8 else rows, smaller(k)), random(smaller(n), smaller(k))
        yield f"linear {rows} x {n} x {k}", lambda: F.linear(x, weight)
    x, weight = random(1, smaller(1536)), random(smaller(1536))
    q, k, v, gate, up = (random(smaller(n), smaller(1536)) for n in (1536, 256, 256, 8960, 8960))

    def norm(x, weight):
        return x * torch.rsqrt(x.float().square().mean(-1, True) + 1e-6).bfloat16() * weight

    def qkv():
        normed = norm(x, weight)
        return F.linear(normed, q), F.linear(normed, k), F.linear(normed, v)

    def gated():
        normed = norm(x, weight)
        return F.silu(F.linear(normed, gate)) * F.linear(normed, up)

    yield "norm, q, k, v 1 x 2048 x 1536", qkv
    yield "norm, gate, up, SwiGLU 1 x 8960 x 1536", gated
    for queries, keys, heads, kv_heads, dim, causal in ((2500, 2500, 16, 16, 72, False), (3000, 3000, 12, 2, 128, True),
                                                        (1, 3000, 12, 2, 128, True)):
        q = random(1, heads, smaller(queries) if queries > 1 else 1, dim)
        k, v = (random(1, kv_heads, smaller(keys), dim).repeat_interleave(heads // kv_heads, 1) for _ in range(2))
        mask = causal and queries > 1  # a single query sees all keys
        yield (f"attention {queries} x {keys}, {heads} heads of {dim}{', causal' if causal else ''}",
               lambda: F.scaled_dot_product_attention(q, k, v, is_causal=mask))
    x, weight, bias = random(smaller(2500), smaller(1152)), random(smaller(1152)), random(smaller(1152))
    yield "layer_norm 2500 x 1152", lambda: F.layer_norm(x, weight.shape, weight, bias, 1e-6)
    x, weight = random(smaller(3000), smaller(1536)), random(smaller(1536))
    yield "rms_norm 3000 x 1536", lambda: norm(x, weight)
    gate, up = (random(smaller(3000), smaller(8960)) for _ in range(2))
    yield "silu_mul 3000 x 8960", lambda: F.silu(gate) * up


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--divisor", type=int, default=1, help="makes all sizes smaller")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", required=True)
    given = parser.parse_args()
    with torch.no_grad():
        seconds = {name: measured(call, given.device, given.repeats) for name, call in kernels(given.device, given.divisor)}
    with open(given.out, "w") as file:
        json.dump({"torch": torch.__version__, "device": given.device, "seconds": seconds}, file, indent=1)


if __name__ == "__main__":
    main()
