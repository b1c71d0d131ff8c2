"""Scenes as the encoder sees them. Once there is text the encoder no longer learns, so what it sees of a scene is worked
out once and asked about in several steps, with other questions each time: encoding would be three quarters of the time.
"""
from collections import deque
from dataclasses import dataclass

import torch

import batches
import preprocess
from data import Stream


@dataclass
class Seen:
    """A region in one frame."""
    item: preprocess.Item
    features: torch.Tensor  # [gh,gw,E]
    local: torch.Tensor = None  # [n,E], the crop that OCI attends to (Object-Only)


class View:
    """A scene with what has been encoded of it."""

    def __init__(self, scene, model):
        self.scene, self.is_clip, self.regions, self.wholes = scene, len(scene.pictures) > 1, {}, {}
        if not model.is_lite:
            self.visible, self.shown = model.visible_cells(list(scene.pictures), self.is_clip)  # [n,E], of each frame
            if not self.is_clip:
                self.cells, self.shares = batches.cell_targets(scene), batches.share_targets(scene)


@torch.no_grad()
def look(model, views, wanted):
    """Encodes what is missing of `wanted`, triples of a view's index, an object and a frame, in one go. Returns a Seen for
    each and, in Object-Only, its whole frame [n,E]."""
    missing = [key for key in dict.fromkeys(wanted) if key[1:] not in views[key[0]].regions]
    if missing:
        items = [preprocess.prepare(model.framework, views[v].scene.pictures[frame], views[v].scene.mask(number, frame),
                                    model.config["mask_num"]) for v, number, frame in missing]
        for (v, number, frame), item, features in zip(missing, items, model.encode([i.picture for i in items])[0]):
            views[v].regions[number, frame] = Seen(item, features)
        if model.is_lite:
            for (v, *key), local in zip(missing, model.encode([item.local_picture for item in items])[0]):
                views[v].regions[tuple(key)].local = local.flatten(0, 1)
            whole = {(v, frame): item.global_picture for (v, _, frame), item in zip(missing, items)
                     if frame not in views[v].wholes}
            if whole:
                for (v, frame), features in zip(whole, model.encode(list(whole.values()))[0]):
                    views[v].wholes[frame] = features.flatten(0, 1)
    return [views[v].regions[number, frame] for v, number, frame in wanted], \
        [views[v].wholes[frame] for v, _, frame in wanted] if model.is_lite else None


class Pool:
    """The last `size` views of an endless row of scenes. A step takes one new one and some of those that are there; the
    next scene's index is all that a run must keep to go on as if it had never stopped."""

    def __init__(self, model, seed, kind, size, rounds, next_index):
        first = max(1, next_index - size)
        self.model, self.stream, self.views = model, Stream(seed, kind, first, rounds), deque(maxlen=size)
        for _ in range(next_index - first):
            self.add()

    @torch.no_grad()
    def add(self):
        self.views.append(View(next(self.stream), self.model))

    def take(self, count, source):
        """`count` views, one of them new: more while there are few."""
        fresh = max(1, count - len(self.views) // count)
        for _ in range(fresh):
            self.add()
        old = source.choice(len(self.views) - fresh, count - fresh, replace=False) if fresh < count else []
        return [self.views[i] for i in old] + [self.views[-1 - i] for i in range(fresh)]

    @property
    def next_index(self):
        return self.stream.next_index

    def close(self):
        self.stream.close()
