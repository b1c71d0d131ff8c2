"""Holds model.py against golden tensors (or cases of another directory of that form).

    python examples/shapes/train/check.py GOLDEN [CASE ...]

GOLDEN has `models/` and `cases/`, as spec/fixtures/golden does. Compared are the object tokens, the decoder's input and
the first logits; the command fails when one is off by more than 1e-4.
"""
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

import chat
import preprocess
from model import PixelRefer


def rle_mask(rle):
    """A compressed COCO RLE as uint8 [h,w]."""
    counts, at, text = [], 0, rle["counts"].encode()
    while at < len(text):
        value, shift, more = 0, 0, True
        while more:
            byte = text[at] - 48
            value |= (byte & 31) << (5 * shift)
            more, at, shift = bool(byte & 32), at + 1, shift + 1
            if not more and byte & 16:
                value |= -1 << (5 * shift)
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    height, width = rle["size"]
    bits = np.concatenate([np.full(count, k % 2, dtype=np.uint8) for k, count in enumerate(counts)])
    return bits.reshape(width, height).T.copy()


def load_model(folder):
    """A checkpoint's model with its weights."""
    config = json.loads((folder / "config.json").read_text())
    weights = {}
    for path in sorted(folder.glob("*.safetensors")):
        weights.update(load_file(path))
    for path in sorted(folder.glob("*.bin")):
        weights.update(torch.load(path, map_location="cpu", weights_only=True))
    model = PixelRefer(config)
    missing, unknown = model.load_state_dict({k: v.float() for k, v in weights.items()}, strict=False)
    left = [name for name in missing if "mask_embedding" not in name]
    if left or [name for name in unknown if "mask_embedding" not in name]:
        raise ValueError(f"{folder}: missing {left}, unknown {unknown}")
    return model.eval()


def run_case(model, text, case, folder):
    """Object tokens, ids, embeddings and first logits of a case."""
    def read(name):
        return np.asarray(Image.open(folder / name).convert("RGB"))

    is_video = case["modal"] == "video"
    pictures = [read(name) for name in case["pictures"]]
    frames = [read(name) for name in case.get("frames", case["pictures"])]
    items, counts = [], []
    for region in case["regions"]:
        for part in region:
            items.append(preprocess.prepare(model.framework, frames[part["frame"]], rle_mask(part["mask"]),
                                            model.config["mask_num"]))
        counts.append(len(region))
    if case.get("local_crop") == "first":
        for item in items:
            item.local_picture = items[0].local_picture
    generator = torch.Generator().manual_seed(case.get("seed", 0))
    tokens = model.object_tokens(items, generator) if items else []
    visual, shown = (None, [])
    if not model.is_lite and pictures:
        visual, shown = model.visual_tokens(pictures, is_video)
    times = case.get("frame_times") if model.is_lite and is_video else None
    ids, _ = text.prompt(case["prompt"], case["modal"], shown if not model.is_lite else None, case.get("times"),
                         [len(t) for t in tokens], counts, times, case["regions"])
    embeds = text.embed(model, ids, visual, torch.cat(tokens) if tokens else None)
    hidden = model.decode(embeds[None])[0][0]
    return tokens, ids, embeds, model.logits(hidden[-1])


def main():
    golden, wanted = Path(sys.argv[1]), sys.argv[2:]
    torch.set_grad_enabled(False)
    failed = 0
    for folder in sorted((golden / "cases").iterdir()):
        if wanted and folder.name not in wanted:
            continue
        case = json.loads((folder / "case.json").read_text())
        where = golden / "models" / case["model"]
        expected = load_file(folder / "expected.safetensors")
        tokens, ids, embeds, logits = run_case(load_model(where), chat.Text(where), case, folder)
        worst = {"embeds": (embeds - expected["embeds"]).abs().max().item(),
                 "first_logits": (logits - expected["first_logits"]).abs().max().item()}
        if tokens:
            worst["object_tokens"] = (torch.cat(tokens) - expected["object_tokens"]).abs().max().item()
        same = ids == expected["prompt_ids"].tolist()
        fine = same and all(value < 1e-4 for value in worst.values())
        failed += not fine
        print(f"{'ok' if fine else 'OFF':3} {folder.name}: ids {'equal' if same else 'DIFFER'}, "
              + ", ".join(f"{name} {value:.1e}" for name, value in worst.items()))
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
