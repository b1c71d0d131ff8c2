"""Whether PyTorch and the library give the same greedy text.

    pixelrefer run examples/shapes/accuracy.lua MODEL --seed N --pictures 15 --clips 5 --answers answers.jsonl
    python examples/shapes/train/agree.py MODEL answers.jsonl --seed N

Asks the same questions of the same scenes here and compares. Where a text differs, the gap between the two best logits at
the first different token is told: rounding can decide between two tokens that are level.
"""
import argparse
import json
from pathlib import Path

import torch

import chat
import preprocess
from check import load_model
from data import Stream

MASKED_FRAMES = [0, 3]  # as world.masked_frames


@torch.no_grad()
def greedy(model, text, scene, question, limit=32):
    """Greedy ids, the gaps between the best and the second logit, and all logits' best two."""
    is_clip = len(scene.pictures) > 1
    frames = (MASKED_FRAMES if model.is_lite else [0]) if is_clip else [0]
    items = [preprocess.prepare(model.framework, scene.pictures[frame], scene.mask(number, frame),
                                model.config["mask_num"])
             for number in question["regions"] for frame in frames]
    tokens = model.object_tokens(items, torch.Generator().manual_seed(0))
    visual = shown = None
    if not model.is_lite:
        visual, shown = model.visual_tokens(list(scene.pictures), is_clip)
    times = list(range(len(scene.pictures)))
    spread = [[{"frame": frame} for frame in frames] for _ in question["regions"]]
    ids, _ = text.prompt(question["question"], "video" if is_clip else "image", shown,
                         [float(t) for t in times], [len(t) for t in tokens], [len(frames)] * len(question["regions"]),
                         [float(t) for t in times] if is_clip and model.is_lite else None, spread)
    embeds, out, gaps = text.embed(model, ids, visual, torch.cat(tokens)), [], []
    while len(out) < limit and not (out and out[-1] in text.ends):
        best = model.logits(model.decode(embeds[None])[0][0, -1]).topk(2)
        out.append(int(best.indices[0]))
        gaps.append(float(best.values[0] - best.values[1]))
        embeds = torch.cat([embeds, model.model.embed_tokens(best.indices[:1])])
    return out, gaps


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("answers")
    parser.add_argument("--seed", type=int, required=True)
    given = parser.parse_args()
    model, text = load_model(Path(given.model)), chat.Text(given.model)
    streams, scenes, same, total = {}, {}, 0, 0
    for line in open(given.answers):
        answer = json.loads(line)
        media = answer["media"]
        if media not in streams:
            streams[media] = Stream(given.seed, media, answer["scene"], 1)
        if (media, answer["scene"]) not in scenes:
            scenes[media, answer["scene"]] = next(streams[media])
        scene = scenes[media, answer["scene"]]
        question = scene.questions[answer["number"] - 1]
        assert (scene.index, question["question"]) == (answer["scene"], answer["question"])
        ids, gaps = greedy(model, text, scene, question)
        total += 1
        if text.decode(ids) == answer["text"]:
            same += 1
        else:
            print(f"{media} {scene.index}: {question['question']}\n  library: {answer['text']}\n  PyTorch: "
                  f"{text.decode(ids)} (smallest gap {min(gaps):.2e})")
    for stream in streams.values():
        stream.close()
    print(f"{same} of {total} texts are the same")


if __name__ == "__main__":
    main()
