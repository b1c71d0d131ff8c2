"""From scenes to what a training step needs: regions, questions, targets."""
from dataclasses import dataclass

import cv2
import numpy as np
import torch

import preprocess

SHAPES = ["circle", "square", "triangle", "star", "cross", "heart", "moon", "diamond", "arrow", "bar"]
COLOURS = ["red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "brown", "white"]
SIZES = ["small", "medium", "large"]
FILLINGS = ["plain", "striped", "dotted", "outlined"]
ATTRIBUTES = {"colour": COLOURS, "shape": SHAPES, "size": SIZES, "filling": FILLINGS}

KINDS = ["describe", "colour", "shape", "size", "filling", "larger", "left", "above", "same_colour", "count", "touch",
         "cover", "direction", "speed", "change"]
# How often a question of a kind is taken, against the others.
WEIGHTS = {"describe": 1.5, "larger": 1.5, "left": 2.0, "above": 2.0, "same_colour": 3.0, "count": 2.5,
           "direction": 2.0}

# Frames in which an object of a clip carries masks in Object-Only: mostly the first and the last.
CLIP_FRAMES = [[0, 3], [0, 3], [0, 1, 3], [0, 2, 3]]


@dataclass
class Region:
    scene: int  # which scene of the batch
    number: int  # the object, from 1
    frame: int
    item: preprocess.Item


def attribute_targets(scenes, regions):
    """For each attribute the class of each region's object (its first colour), int64 [regions]."""
    targets = {}
    for name, words in ATTRIBUTES.items():
        targets[name] = torch.tensor([words.index(colour_at(scenes[r.scene], r) if name == "colour" else
                                                  scenes[r.scene].objects[r.number - 1][name]) for r in regions])
    return targets


def place_targets(scenes, regions):
    """Where each region's object is seen: the centre of its mask, -2 to 2 across and down the picture, float32
    [regions,2]."""
    places = []
    for region in regions:
        ids = scenes[region.scene].ids[region.frame]
        rows, columns = np.nonzero(ids == region.number)
        places.append((columns.mean() / ids.shape[1] * 4 - 2, rows.mean() / ids.shape[0] * 4 - 2))
    return torch.tensor(places, dtype=torch.float32)


def colour_at(scene, region):
    """The colour that an object shows in the region's frame."""
    thing = scene.objects[region.number - 1]
    return thing.get("later_colour", thing["colour"]) if region.frame >= 2 else thing["colour"]


def cell_targets(scene, region=None):
    """What each cell of a region's picture (of the whole picture without one) shows: colour and shape of the object at
    its centre (0: background), int64 [gh,gw], and which of its 3 x 3 parts show the same object as the centre, float32
    [gh,gw,9]."""
    if region:
        top, bottom, left, right = region.item.crop
        frame, ids = region.frame, scene.ids[region.frame][top:bottom, left:right]
        grid_h, grid_w = region.item.mask_grid.shape
    else:
        frame, ids = 0, scene.ids[0]
        grid_h, grid_w = ids.shape[0] // preprocess.PATCH, ids.shape[1] // preprocess.PATCH
    fine = cv2.resize(ids, (grid_w * 3, grid_h * 3), interpolation=cv2.INTER_NEAREST)
    parts = fine.reshape(grid_h, 3, grid_w, 3).transpose(0, 2, 1, 3).reshape(grid_h, grid_w, 9)
    centre = parts[:, :, 4]
    late = frame >= 2
    colours = [0] + [1 + COLOURS.index(o.get("later_colour", o["colour"]) if late else o["colour"])
                     for o in scene.objects]
    shapes = [0] + [1 + SHAPES.index(o["shape"]) for o in scene.objects]
    same = torch.from_numpy((parts == centre[:, :, None]).astype(np.float32))
    return torch.from_numpy(np.array(colours)[centre]), torch.from_numpy(np.array(shapes)[centre]), same


def random_regions(scenes, count, source, framework, mask_num):
    """Up to `count` objects of each scene."""
    regions = []
    for s, scene in enumerate(scenes):
        for number in source.permutation(len(scene.objects))[:count] + 1:
            item = preprocess.prepare(framework, scene.pictures[0], scene.mask(number), mask_num)
            regions.append(Region(s, int(number), 0, item))
    return regions


def choose_questions(scene, source, objects, count):
    """Some of a scene's questions that are about at most `objects` objects."""
    asked = scene.questions
    weights = np.array([WEIGHTS.get(q["kind"], 1.0) for q in asked])
    order = np.argsort(-np.log(1 - source.random(len(asked))) / weights)  # drawn without replacement, by weight
    chosen, about, seen = [], set(), set()
    for q in (asked[i] for i in order):
        key = (q["kind"], q["question"], tuple(q["regions"]))
        if key in seen or len(about | set(q["regions"])) > objects:
            continue
        seen.add(key)
        about |= set(q["regions"])
        chosen.append(q)
        if len(chosen) == count:
            break
    return chosen, sorted(about)


def asked_regions(scenes, source, framework, mask_num, objects, count):
    """Questions of each scene and the regions that they need, a clip's in each frame that carries masks. Returns
    questions as (scene, question, [indices of regions of each of its objects])."""
    questions, regions = [], []
    for s, scene in enumerate(scenes):
        chosen, about = choose_questions(scene, source, objects, count)
        is_clip = len(scene.pictures) > 1
        frames = [0]
        if is_clip and framework == "object_only":
            frames = CLIP_FRAMES[source.integers(len(CLIP_FRAMES))]
        places = {}
        for number in about:
            places[number] = []
            for frame in frames:
                places[number].append(len(regions))
                item = preprocess.prepare(framework, scene.pictures[frame], scene.mask(number, frame), mask_num)
                regions.append(Region(s, number, frame, item))
        for q in chosen:
            questions.append((s, q, [places[number] for number in q["regions"]]))
    return questions, regions
