"""Trains the two small models of the shapes world.

    python examples/shapes/train/train.py encoder       --out RUNS --regions 200000
    python examples/shapes/train/train.py vision_object --out RUNS --regions 200000
    python examples/shapes/train/train.py object_only   --out RUNS --regions 100000
    python examples/shapes/train/train.py export        --out RUNS --stage vision_object --to examples/models/NAME

The first stage trains the vision encoder without text, through the object tokens, with heads for the attributes that are
thrown away afterwards; the other two begin with its encoder. Each writes RUNS/STAGE/state.pt every few minutes and goes
on from it when it is started again with the same arguments; log.jsonl and curves.png beside it show how it goes. On one
kind of machine a run repeats bit for bit from its seed and thread count, interrupted or not.
"""
import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

import batches
import chat
from curves import draw_curves
from data import Stream
from export import copy_tokenizer, export, model_config
from model import PixelRefer
from muon import Muon

PICTURES, CLIPS = 4, 3  # scenes of a step
CLIP_STEPS = 4  # every fourth step is one of clips
OBJECTS, QUESTIONS = 3, 8  # objects and questions of a picture
WARM_UP, FLAT = 100, 0.6  # steps of warm-up; the share of the run before the decay
FLOOR = 0.05  # of the rate, at the end
PRECISE = 0.95  # the share of the run before the products are in float32, the precision of use
PLACE_GAIN = 5  # how much larger an object token's place is made for the decoder
VOCABULARY = 768


# ---- heads that training alone has ------------------------------------------------------------------------------------

class Heads(nn.Module):
    """Attributes from the mean of a region's tokens (before and after the projection to the decoder's width; after it
    the place as well), and what each cell shows; none of it is exported."""

    def __init__(self, width, projected_width):
        super().__init__()
        self.attributes, self.projected = (
            nn.ModuleDict({name: nn.Linear(size, len(words)) for name, words in batches.ATTRIBUTES.items()})
            for size in (width, projected_width))
        self.place = nn.Linear(projected_width, 2)
        self.cell_colour = nn.Linear(width, 1 + len(batches.COLOURS))
        self.cell_shape = nn.Linear(width, 1 + len(batches.SHAPES))
        self.cell_parts = nn.Linear(width, 9)

    def region_loss(self, pooled, projected, scenes, regions):
        """Of attributes and places, and for each attribute how many are right after the projection, bool [regions]."""
        targets, right, loss = batches.attribute_targets(scenes, regions), {}, 0
        for heads, list_of_tokens in ((self.attributes, pooled), (self.projected, projected)):
            means = torch.stack([tokens.mean(dim=0) for tokens in list_of_tokens])
            for name, head in heads.items():
                scores = head(means)
                loss = loss + F.cross_entropy(scores, targets[name])
                right[name] = scores.argmax(dim=1) == targets[name]
        return loss + F.smooth_l1_loss(self.place(means), batches.place_targets(scenes, regions)), right

    def cell_loss(self, features, targets):
        """Of the cells of all regions' pictures."""
        cells = torch.cat([f.flatten(0, 1) for f in features])
        colour, shape, parts = (torch.cat([t[k].flatten(0, 1) for t in targets]) for k in range(3))
        return (F.cross_entropy(self.cell_colour(cells), colour) + F.cross_entropy(self.cell_shape(cells), shape)
                + F.binary_cross_entropy_with_logits(self.cell_parts(cells), parts))


# ---- one step ---------------------------------------------------------------------------------------------------------

def encoder_step(model, heads, scenes, source, generator):
    """Stage without text: loss and what is right."""
    regions = batches.random_regions(scenes, OBJECTS, source, model.framework, model.config["mask_num"])
    features, _ = model.encode([region.item.picture for region in regions] + [scene.pictures[0] for scene in scenes])
    pooled = model.pooled_tokens([region.item for region in regions], generator, features[:len(regions)])
    tokens = model.model.region_encoder.feat_linear(torch.cat(pooled)).split([len(p) for p in pooled])
    loss, right = heads.region_loss(pooled, tokens, scenes, regions)
    cells = [batches.cell_targets(scenes[region.scene], region) for region in regions]
    cells += [batches.cell_targets(scene) for scene in scenes]
    right["describe"] = torch.stack(list(right.values())).all(dim=0)
    report = {name: (int(hits.sum()), len(hits)) for name, hits in right.items()}
    return loss + heads.cell_loss(features, cells), report, len(regions)


def region_tokens(model, scenes, regions, generator):
    """Features of the regions' pictures, pooled tokens, object tokens."""
    items = [region.item for region in regions]
    features, _ = model.encode([item.picture for item in items])
    region_encoder = model.model.region_encoder
    pooled = model.pooled_tokens(items, generator, features)
    tokens = pooled
    if model.is_lite:
        with torch.no_grad():  # the two pictures that OCI attends to teach the encoder nothing: a third of the time
            wholes = {}
            for region in regions:
                wholes.setdefault((region.scene, region.frame), region.item.global_picture)
            encoded = dict(zip(wholes, model.encode(list(wholes.values()))[0]))
            local = torch.stack([f.flatten(0, 1) for f in model.encode([item.local_picture for item in items])[0]])
        whole = torch.stack([encoded[(region.scene, region.frame)].flatten(0, 1) for region in regions])
        tokens = list(region_encoder.infuse(torch.stack(pooled), local, whole))
    projected = region_encoder.feat_linear(torch.cat(tokens))
    return features, pooled, list(projected.split([len(t) for t in tokens]))


def shared_beginnings(model, text, scenes, is_clip):
    """Vision-Object: what the questions of each scene share, [scenes,m,D], its lengths, each picture's tokens, and the
    features of the pictures (none of clips)."""
    visual, shown, features = [], [], []
    if is_clip:
        for scene in scenes:
            tokens, counts = model.visual_tokens(list(scene.pictures), True)
            visual.append(tokens)
            shown.append(counts)
    else:
        features, patches = model.encode([scene.pictures[0] for scene in scenes])
        tokens, counts = model.project(features, patches, False)
        visual, shown = list(tokens.split(counts)), [[count] for count in counts]
    modal, rows = "video" if is_clip else "image", []
    for scene, counts in zip(scenes, shown):
        ids, prefix = text.prompt("", modal, counts, list(range(len(scene.pictures))), [], [])
        rows.append(ids[:prefix])
    width = max(len(row) for row in rows)
    padded = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        padded[i, :len(row)] = torch.tensor(row)
    embeds = model.model.embed_tokens(padded)
    marks = padded == text.image_id
    embeds = embeds.masked_scatter(marks[..., None], torch.cat(visual).to(embeds.dtype))
    return embeds, torch.tensor([len(row) for row in rows]), shown, features


def question_rows(model, text, scenes, questions, regions, tokens, shown):
    """Ids of each question with its answer (what stands behind the shared beginning), and where the answer begins."""
    rows, starts, order = [], [], []
    is_clip = len(scenes[0].pictures) > 1
    modal = "video" if is_clip else "image"
    for s, q, places in questions:
        flat = [place for object_places in places for place in object_places]
        counts = [len(tokens[place]) for place in flat]
        times = frames = None
        if is_clip and model.is_lite:
            times = list(range(len(scenes[s].pictures)))
            frames = [[{"frame": regions[place].frame} for place in object_places] for object_places in places]
        ids, prefix = text.prompt(q["question"], modal, shown[s] if shown else None,
                                  list(range(len(scenes[s].pictures))), counts, [len(p) for p in places], times, frames)
        answer = text.encode(q["answer"]) + [text.end_id]
        rows.append(ids[prefix:] + answer)
        starts.append(len(ids) - prefix)
        order += flat
    return rows, starts, order


def text_step(model, heads, text, scenes, source, generator):
    """Loss of the answers (and a little of the attributes), and per kind how many answers are right word for word."""
    is_clip = len(scenes[0].pictures) > 1
    questions, regions = batches.asked_regions(scenes, source, model.framework, model.config["mask_num"],
                                               OBJECTS - is_clip, QUESTIONS)
    features, pooled, tokens = region_tokens(model, scenes, regions, generator)
    prefix = lengths = shown = None
    cells = [batches.cell_targets(scenes[region.scene], region) for region in regions]
    if not model.is_lite:
        prefix, lengths, shown, whole = shared_beginnings(model, text, scenes, is_clip)
        features += whole
        cells += [batches.cell_targets(scene) for scene in scenes] if whole else []
    rows, starts, order = question_rows(model, text, scenes, questions, regions, tokens, shown)
    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    is_answer = torch.zeros(len(rows), width, dtype=torch.bool)  # a position whose next token is one of the answer
    for i, (row, start) in enumerate(zip(rows, starts)):
        ids[i, :len(row)] = torch.tensor(row)
        is_answer[i, start - 1:len(row) - 1] = True
    embeds = model.model.embed_tokens(ids)
    objects = torch.cat([tokens[place] for place in order]).to(embeds.dtype)
    embeds = embeds.masked_scatter((ids == text.region_id)[..., None], objects)
    owner = torch.tensor([s for s, _, _ in questions])
    hidden = model.decode(embeds, prefix, lengths, owner)
    scores = model.logits(hidden[is_answer])
    wanted = ids.roll(-1, dims=1)[is_answer]
    loss = F.cross_entropy(scores.float(), wanted)
    hits = torch.zeros(len(rows), width, dtype=torch.bool)
    hits[is_answer] = scores.argmax(dim=1) == wanted
    right = (hits | ~is_answer).all(dim=1)
    report = {}
    for (_, q, _), hit in zip(questions, right.tolist()):
        count = report.get(q["kind"], (0, 0))
        report[q["kind"]] = (count[0] + hit, count[1] + 1)
    region_loss, _ = heads.region_loss(pooled, tokens, scenes, regions)
    return loss + 0.1 * region_loss + 0.1 * heads.cell_loss(features, cells), report, len(regions)


# ---- a run ------------------------------------------------------------------------------------------------------------

class Run:
    """A stage: its model, optimisers and place in the stream of scenes, as one file."""

    def __init__(self, stage, given):
        self.stage, self.given, self.folder = stage, given, Path(given.out) / stage
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(given.seed)
        self.text = self.open_tokenizer()
        self.model = PixelRefer(model_config(stage, self.text)).train()
        self.heads = Heads(self.model.config["mm_hidden_size"], self.model.config["hidden_size"])
        initialize(self.model)
        if stage != "encoder" or given.start:
            self.start_from(Path(given.start or Path(given.out) / "encoder" / "state.pt"))
        self.make_optimizers()
        self.source, self.generator = np.random.default_rng(given.seed), torch.Generator().manual_seed(given.seed)
        self.step = self.regions = self.questions = 0
        self.seconds, self.next_scene = 0.0, {"picture": 1, "clip": 1}
        self.state_path = self.folder / "state.pt"
        if self.state_path.exists():
            self.restore()

    def open_tokenizer(self):
        folder = Path(self.given.out) / "tokenizer"
        if not (folder / "vocab.json").exists() and self.given.start and Path(self.given.start).is_dir():
            copy_tokenizer(Path(self.given.start), folder)
        if not (folder / "vocab.json").exists():
            texts = []
            for kind, count in (("picture", 600), ("clip", 200)):
                stream = Stream(self.given.seed, kind, 1, 2)
                for _ in range(count):
                    texts += [part.replace("<region>", "") for q in next(stream).questions
                              for part in (q["question"], q["answer"])]
                stream.close()
            texts += ["user\nTime 0.0s:,Time 1.0s:,\n", "assistant\n"] * 100
            chat.train_tokenizer(texts, folder, VOCABULARY)
        return chat.Text(folder)

    def start_from(self, path):
        """All weights of a checkpoint directory; or the encoder, the regions' projection and the heads of the stage
        without text."""
        if path.is_dir():
            self.model.load_state_dict(load_file(path / "model.safetensors"))
            return
        state = torch.load(path, map_location="cpu", weights_only=False)
        wanted = {name: value for name, value in state["model"].items()
                  if name.startswith("model.vision_encoder.") or "_linear." in name}
        self.model.load_state_dict(wanted, strict=False)
        self.heads.load_state_dict(state["heads"], strict=False)
        if self.stage != "encoder":
            enlarge_place(self.model.model.region_encoder.feat_linear[2], self.heads.place, PLACE_GAIN)

    def make_optimizers(self):
        matrices, others, stacked = [], [], {}
        for name, p in list(self.model.named_parameters()) + list(self.heads.named_parameters()):
            is_matrix = p.dim() >= 2 and not any(part in name for part in (
                "embed_tokens", "pos_linear", "mask_embedding", "attributes", "projected", "place", "cell_"))
            (matrices if is_matrix else others).append(p)
            if "in_proj_weight" in name:
                stacked[p] = 3
        self.optimizers = [Muon(matrices, self.given.rate, stacked=stacked),
                           torch.optim.AdamW(others, self.given.rate, betas=(0.9, 0.95), weight_decay=0.0)]

    def save(self):
        state = {
            "model": self.model.state_dict(), "heads": self.heads.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step, "regions": self.regions, "questions": self.questions, "seconds": self.seconds,
            "next_scene": self.next_scene, "source": self.source.bit_generator.state,
            "generator": self.generator.get_state(), "config": self.model.config,
        }
        fresh = self.state_path.with_suffix(".new")
        torch.save(state, fresh)
        fresh.replace(self.state_path)

    def restore(self):
        state = torch.load(self.state_path, map_location="cpu", weights_only=False)
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        for name in ("step", "regions", "questions", "seconds", "next_scene"):
            setattr(self, name, state[name])
        self.source.bit_generator.state = state["source"]
        self.generator.set_state(state["generator"])

    def rate(self):
        """Warm-up, flat, then linear to the floor."""
        done = self.regions / self.given.regions
        decay = 1 if done < FLAT else max(FLOOR, 1 - (1 - FLOOR) * (done - FLAT) / (1 - FLAT))
        return self.given.rate * min(1, (self.step + 1) / WARM_UP) * decay

    def forward(self, scenes, source, generator):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision() == "bfloat16"):
            if self.stage == "encoder":
                return encoder_step(self.model, self.heads, scenes, source, generator)
            return text_step(self.model, self.heads, self.text, scenes, source, generator)

    def precision(self):
        """Products in bfloat16 are a third faster; the end is done in the precision of use."""
        return self.given.precision if self.regions < PRECISE * self.given.regions else "float32"

    def train_step(self, scenes):
        for optimizer in self.optimizers:
            optimizer.param_groups[0]["lr"] = self.rate()
        loss, report, regions = self.forward(scenes, self.source, self.generator)
        loss.backward()
        parameters = list(self.model.parameters()) + list(self.heads.parameters())
        norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        if torch.isfinite(norm):
            for optimizer in self.optimizers:
                optimizer.step()
        for p in parameters:
            p.grad = None
        self.step += 1
        self.regions += regions
        self.questions += sum(count for _, count in report.values()) if self.stage != "encoder" else 0
        return loss.item(), report

    @torch.no_grad()
    def evaluate(self, scenes):
        """Right answers per kind on scenes that are never trained on."""
        source, generator = np.random.default_rng(1), torch.Generator().manual_seed(1)
        precision, self.given.precision, total = self.given.precision, "float32", {}
        for kind, list_of_scenes in scenes.items():
            size = PICTURES if kind == "picture" else CLIPS
            for at in range(0, len(list_of_scenes), size):
                _, report, _ = self.forward(list_of_scenes[at:at + size], source, generator)
                add_report(total, report)
        self.given.precision = precision
        return {name: round(hits / count, 4) for name, (hits, count) in total.items() if count}


def add_report(total, report):
    for name, (hits, count) in report.items():
        before = total.get(name, (0, 0))
        total[name] = (before[0] + hits, before[1] + count)


def initialize(model):
    """Small normal weights; `pos_linear` four times larger, so that places are told apart at once."""
    for name, p in model.named_parameters():
        if p.dim() >= 2 and "mask_embedding" not in name:
            nn.init.normal_(p, std=0.02 if "embed_tokens" in name else p.flatten(1).shape[1] ** -0.5)
        elif name.endswith("bias"):
            nn.init.zeros_(p)
    with torch.no_grad():
        for p in model.model.region_encoder.pos_linear.parameters():
            p.mul_(4)
        if model.is_lite:  # OCI adds little at first: the projection knows the tokens as they come
            model.model.region_encoder.fusion_attention_local.out_proj.weight.mul_(0.1)
            model.model.region_encoder.fusion_attention_global.out_proj.weight.mul_(0.1)
        for layer in list(model.encoder.encoder.layers):
            layer.self_attn.out_proj.weight.mul_(0.3)
            layer.mlp.fc2.weight.mul_(0.3)
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.mul_(0.3)
            layer.mlp.down_proj.weight.mul_(0.3)


@torch.no_grad()
def enlarge_place(projection, place, gain):
    """Makes what the head `place` reads in the tokens that `projection` gives `gain` times larger, and the head smaller by
    as much. After the stage without text a place is a twentieth of a token, and relations of places stay at chance."""
    inverse = torch.linalg.pinv(place.weight)
    projection.bias += (gain - 1) * inverse @ (place.weight @ projection.bias + place.bias)
    projection.weight += (gain - 1) * inverse @ (place.weight @ projection.weight)
    place.weight /= gain
    place.bias /= gain


def train(stage, given):
    run = Run(stage, given)
    rounds = 0 if stage == "encoder" else 2
    streams = {kind: Stream(given.seed, kind, first, rounds) for kind, first in run.next_scene.items()
               if rounds or kind == "picture"}
    held_out = {}
    for kind, count in (("picture", given.held_out), ("clip", given.held_out // 4 if rounds else 0)):
        stream = Stream(given.seed + 10 ** 6, kind, 1, rounds)
        held_out[kind] = [next(stream) for _ in range(count)]
        stream.close()
    parameters = sum(p.numel() for p in run.model.parameters())
    print(f"{stage}: {parameters:,} parameters, from step {run.step}, region {run.regions}", flush=True)

    losses, report, started, saved, logged = [], {}, time.time(), time.time(), time.time()
    begun = run.seconds
    while run.regions < given.regions and (not given.minutes or time.time() - started < 60 * given.minutes):
        kind = "clip" if rounds and run.step % CLIP_STEPS == CLIP_STEPS - 1 else "picture"
        scenes = [next(streams[kind]) for _ in range(PICTURES if kind == "picture" else CLIPS)]
        run.next_scene[kind] = streams[kind].next_index
        loss, one = run.train_step(scenes)
        losses.append(loss)
        add_report(report, one)
        now = time.time()
        run.seconds = begun + now - started
        finished = run.regions >= given.regions
        if now - logged > given.log_seconds or finished:
            entry = {"step": run.step, "regions": run.regions, "questions": run.questions,
                     "seconds": round(run.seconds), "rate": run.rate(), "loss": round(sum(losses) / len(losses), 4),
                     "train": {name: round(hits / count, 4) for name, (hits, count) in report.items()}}
            if now - saved > given.save_seconds or finished:
                entry["held_out"] = run.evaluate(held_out)
                run.save()
                saved = time.time()
            with open(run.folder / "log.jsonl", "a") as log:
                log.write(json.dumps(entry) + "\n")
            print(json.dumps(entry), flush=True)
            losses, report, logged = [], {}, time.time()
            if "held_out" in entry:
                draw_curves(run.folder / "log.jsonl", run.folder / "curves.png", stage)
    run.save()
    for stream in streams.values():
        stream.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["encoder", "vision_object", "object_only", "export"])
    parser.add_argument("--out", required=True, help="the folder of all runs")
    parser.add_argument("--start", help="what to begin with: an encoder's state.pt (RUNS/encoder/state.pt) or a "
                                        "checkpoint directory")
    parser.add_argument("--regions", type=int, default=200000, help="regions to see; the rate's decay follows it")
    parser.add_argument("--minutes", type=float, help="stop after so long (and go on another time)")
    parser.add_argument("--seed", type=int, default=271828182, help="of the scenes; test with others")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16",
                        help="of the products before the decay")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--held-out", type=int, default=48, help="pictures of an evaluation")
    parser.add_argument("--log-seconds", type=float, default=60)
    parser.add_argument("--save-seconds", type=float, default=300)
    parser.add_argument("--stage", dest="exported", help="export: which stage's model")
    parser.add_argument("--to", help="export: the checkpoint directory")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.stage == "export":
        export(Path(given.out), given.exported, Path(given.to))
    else:
        train(given.stage, given)


if __name__ == "__main__":
    main()
