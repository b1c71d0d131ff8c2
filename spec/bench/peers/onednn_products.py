"""oneDNN's speed at single products with packed weights, through PyTorch: float32, bfloat16 (activations and results
too) and 8 bits (unsigned activations that are quantised already, a scale for each row of weights, float32 results).

    python spec/bench/peers/onednn_products.py --threads 2 --out build/bench/peers/onednn.json

The result is GFLOP/s of each kind and "rows x N x K", x [rows,K] times weights [N,K]: the best of --repeats calls after
two that warm up. A call allocates its result, as ours does.
"""

import argparse
import json
import os
import re
import time

import torch

KINDS = ("f32", "bf16", "int8")
SHAPES = ("2048x1536x8960", "2048x8960x1536", "2304x1152x4304", "2304x4304x1152")


def packed(rows, weight):
    return torch.ops.mkldnn._reorder_linear_weight(weight, rows)


def float_product(rows, N, K, dtype):
    x = (torch.rand(rows, K) - 0.5).to(dtype)
    weight = packed(rows, (torch.rand(N, K) - 0.5).to(dtype))
    return lambda: torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


def int8_product(rows, N, K):
    x = torch.randint(0, 256, (rows, K), dtype=torch.uint8)
    weight = torch.ops.onednn.qlinear_prepack(torch.randint(-127, 128, (N, K), dtype=torch.int8), [rows, K])
    scales, zeros = torch.rand(N), torch.zeros(N, dtype=torch.int64)
    return lambda: torch.ops.onednn.qlinear_pointwise(
        x, 0.01, 128, weight, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )


def product(kind, *shape):
    if kind == "int8":
        return int8_product(*shape)
    return float_product(*shape, torch.float32 if kind == "f32" else torch.bfloat16)


def least(run, repeats):
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times[2:])


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kinds", nargs="*", default=KINDS, choices=KINDS)
    parser.add_argument("--shapes", nargs="*", default=SHAPES, help="rows x N x K")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", help="JSON file, in place of the terminal")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    rates = {}
    for kind in options.kinds:
        for shape in options.shapes:
            rows, N, K = map(int, shape.split("x"))
            rates[f"{kind}_{shape}"] = 2e-9 * rows * N * K / least(product(kind, rows, N, K), options.repeats)
    version = re.search(r"MKL-DNN (v\S+)", torch.__config__.show())
    result = dict(version=f"oneDNN {version[1]} of PyTorch {torch.__version__}", threads=options.threads, rates=rates)
    text = json.dumps(result, indent=1)
    if options.out:
        with open(options.out, "w") as file:
            file.write(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
