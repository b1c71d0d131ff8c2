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

import chat
from curves import draw_curves
from data import Stream
from export import copy_tokenizer, export, model_config
from heads import Heads
from model import PixelRefer
from muon import Muon
from steps import PICTURES, WHOLE, encoder_step, text_step
from views import Pool, View

CLIPS = 3  # scenes of a step of clips
CLIP_STEPS = 4  # every fourth step is one of clips
ROUNDS = 4  # times that each kind of question is made up about a scene
POOLS = {"picture": 1000, "clip": 400}  # scenes that are asked about again
WARM_UP, FLAT = 100, 0.6  # steps of warm-up; the share of the run before the decay
FLOOR = 0.05  # of the rate, at the end
PRECISE = 0.95  # the share of the run before the products are in float32, the precision of use
PLACE_GAIN = 5  # how much larger an object token's place is made for the decoder
VOCABULARY = 768


# ---- a run ------------------------------------------------------------------------------------------------------------

class Run:
    """A stage: its model, optimisers and place in the stream of scenes, as one file."""

    def __init__(self, stage, given):
        self.stage, self.given, self.folder = stage, given, Path(given.out) / stage
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(given.seed)
        self.text = self.open_tokenizer()
        self.model = PixelRefer(model_config(stage, self.text, given.tokenizer)).train()
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
        for name, p in self.model.named_parameters():
            if self.stage != "encoder" and ".vision_encoder." in name:
                p.requires_grad_(False)
                continue
            is_matrix = p.dim() >= 2 and not any(part in name for part in (
                "embed_tokens", "pos_linear", "mask_embedding"))
            (matrices if is_matrix else others).append(p)
            if "in_proj_weight" in name:
                stacked[p] = 3
        others += self.heads.parameters()
        self.optimizers = [Muon(matrices, self.given.rate, stacked=stacked, dtype=getattr(torch, self.given.precision)),
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
        if state["config"] != self.model.config:
            raise SystemExit(f"{self.state_path}: begun with another model; --tokenizer, or another --out")
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


class Scenes:
    """What the steps of a stage take, and what its evaluations ask: scenes for the stage without text, views for the
    others, every fourth step of clips."""

    def __init__(self, run, given):
        self.run, self.has_text, seed = run, run.stage != "encoder", given.seed
        kinds = ("picture", "clip") if self.has_text else ("picture",)
        if self.has_text:
            self.sources = {kind: Pool(run.model, seed, kind, POOLS[kind], ROUNDS, run.next_scene[kind]) for kind in kinds}
        else:
            self.sources = {"picture": Stream(seed, "picture", run.next_scene["picture"], 0)}
        self.held_out = {}
        for kind in kinds:
            stream = Stream(seed + 10 ** 6, kind, 1, ROUNDS if self.has_text else 0)
            scenes = [next(stream) for _ in range(given.held_out if kind == "picture" else given.held_out // 4)]
            stream.close()
            with torch.no_grad():
                self.held_out[kind] = [View(scene, run.model) for scene in scenes] if self.has_text else scenes

    def next(self):
        kind = "clip" if self.has_text and self.run.step % CLIP_STEPS == CLIP_STEPS - 1 else "picture"
        source, count = self.sources[kind], PICTURES if kind == "picture" else CLIPS
        if not self.has_text:
            count += WHOLE
        taken = source.take(count, self.run.source) if self.has_text else [next(source) for _ in range(count)]
        self.run.next_scene[kind] = source.next_index
        return taken

    def close(self):
        for source in self.sources.values():
            source.close()


def train(stage, given):
    run = Run(stage, given)
    scenes = Scenes(run, given)
    parameters = sum(p.numel() for p in run.model.parameters())
    print(f"{stage}: {parameters:,} parameters, from step {run.step}, region {run.regions}", flush=True)

    losses, report, started, saved, logged = [], {}, time.time(), time.time(), time.time()
    begun = run.seconds
    while run.regions < given.regions and (not given.minutes or time.time() - started < 60 * given.minutes):
        loss, one = run.train_step(scenes.next())
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
                entry["held_out"] = run.evaluate(scenes.held_out)
                run.save()
                saved = time.time()
            with open(run.folder / "log.jsonl", "a") as log:
                log.write(json.dumps(entry) + "\n")
            print(json.dumps(entry), flush=True)
            losses, report, logged = [], {}, time.time()
            if "held_out" in entry:
                draw_curves(run.folder / "log.jsonl", run.folder / "curves.png", stage)
    run.save()
    scenes.close()


def fast_precision():
    """Without AVX-512 PyTorch's products in bfloat16 are a hundred times slower."""
    return "bfloat16" if torch.backends.cpu.get_cpu_capability() == "AVX512" else "float32"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["encoder", "vision_object", "object_only", "export"])
    parser.add_argument("--out", required=True, help="the folder of all runs")
    parser.add_argument("--start", help="what to begin with: an encoder's state.pt (RUNS/encoder/state.pt) or a "
                                        "checkpoint directory")
    parser.add_argument("--regions", type=int, default=200000, help="regions to see; the rate's decay follows it")
    parser.add_argument("--minutes", type=float, help="stop after so long (and go on another time)")
    parser.add_argument("--tokenizer", choices=["saot", "mask_average"], default="saot",
                        help="how a region's cells are pooled: what model.py's RegionEncoder knows")
    parser.add_argument("--seed", type=int, default=271828182, help="of the scenes; test with others")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--precision", choices=["bfloat16", "float32"], default=fast_precision(),
                        help="of the products up to the last steps (float32 where bfloat16 is not faster)")
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
