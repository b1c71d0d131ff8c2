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
WEIGHTS = {"colour": 0.4, "filling": 0.4, "shape": 0.7, "size": 0.7, "left": 2.5, "above": 2.5, "same_colour": 1.5,
           "count": 6, "touch": 1.5, "cover": 1.5, "direction": 2.5, "speed": 1.5}

CHANGE_FRAME = 2  # from here on later colours show, as in world.lua
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))

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
        things = [scenes[r.scene].objects[r.number - 1] for r in regions]
        targets[name] = torch.tensor([words.index(colour_in(thing, r.frame) if name == "colour" else thing[name])
                                      for thing, r in zip(things, regions)])
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


def colour_in(thing, frame):
    """The colour that an object shows in a frame."""
    return thing.get("later_colour", thing["colour"]) if frame >= CHANGE_FRAME else thing["colour"]


def cell_targets(scene, region=None):
    """What each cell of a region's picture (of the whole picture without one) shows: colour and shape of the object at
    its middle (0: background), int64 [gh,gw]; which of its 3 x 3 parts show the same object as its middle, float32
    [gh,gw,9]; and the way from it to the centre of the object at its middle, in pairs of cells, at most 2, float32
    [gh,gw,2]."""
    frame, ids = (region.frame if region else 0), scene.ids[region.frame if region else 0]
    top, bottom, left, right = region.item.crop if region else (0, ids.shape[0], 0, ids.shape[1])
    grid_h, grid_w = region.item.mask_grid.shape if region else (side // preprocess.PATCH for side in ids.shape)
    fine = cv2.resize(ids[top:bottom, left:right], (grid_w * 3, grid_h * 3), interpolation=cv2.INTER_NEAREST)
    parts = fine.reshape(grid_h, 3, grid_w, 3).transpose(0, 2, 1, 3).reshape(grid_h, grid_w, 9)
    middle = parts[:, :, 4]
    colours = np.array([0] + [1 + COLOURS.index(colour_in(thing, frame)) for thing in scene.objects])
    shapes = np.array([0] + [1 + SHAPES.index(thing["shape"]) for thing in scene.objects])
    across, down = np.meshgrid(np.arange(grid_w) + 0.5, np.arange(grid_h) + 0.5)
    ways = np.zeros((grid_h, grid_w, 2), dtype=np.float32)
    for number in np.unique(middle[middle > 0]):
        rows, columns = np.nonzero(ids == number)
        to_right = (columns.mean() + 0.5 - left) * grid_w / (right - left) - across
        to_bottom = (rows.mean() + 0.5 - top) * grid_h / (bottom - top) - down
        ways[middle == number] = np.stack([to_right, to_bottom], axis=-1)[middle == number]
    same = (parts == middle[:, :, None]).astype(np.float32)
    return tuple(torch.from_numpy(x) for x in (colours[middle], shapes[middle], same, np.clip(ways / 2, -2, 2)))


def share_targets(scene):
    """For each cell of a whole picture and each colour, the share of the objects of that colour that lies in the cell, of
    each object's pixels: summed over the cells they are the objects' number. float32 [cells,10]."""
    ids, patch = scene.ids[0], preprocess.PATCH
    grid_h, grid_w = ids.shape[0] // patch, ids.shape[1] // patch
    cells = ids.reshape(grid_h, patch, grid_w, patch).transpose(0, 2, 1, 3).reshape(grid_h * grid_w, patch * patch)
    shares = np.zeros((len(cells), len(COLOURS)), dtype=np.float32)
    for number, thing in enumerate(scene.objects, 1):
        pixels = (cells == number).sum(axis=1)
        shares[:, COLOURS.index(thing["colour"])] += pixels / pixels.sum()
    return torch.from_numpy(shares)


def neighbour_targets(scenes, regions):
    """Colours and shapes of what touches each region's object, float32 [regions, 10 + 10] of 0 and 1."""
    targets = torch.zeros(len(regions), len(COLOURS) + len(SHAPES))
    for target, region in zip(targets, regions):
        scene = scenes[region.scene]
        ids = scene.ids[region.frame]
        inside = (ids == region.number).astype(np.uint8)
        for number in np.unique(ids[cv2.dilate(inside, CROSS) > inside]):
            if number:
                thing = scene.objects[number - 1]
                target[COLOURS.index(colour_in(thing, region.frame))] = 1
                target[len(COLOURS) + SHAPES.index(thing["shape"])] = 1
    return targets


def sharing_targets(scenes, regions):
    """How many other objects have the colour of each region's object, int64 [regions], at most 5."""
    counts = []
    for region in regions:
        shown = [colour_in(thing, region.frame) for thing in scenes[region.scene].objects]
        counts.append(min(5, shown.count(shown[region.number - 1]) - 1))
    return torch.tensor(counts)


def motion_target(scene, number):
    """How far an object's centre moves from the first to the last frame of a clip, in 20 pixels."""
    (x0, y0), (x1, y1) = ((columns.mean(), rows.mean()) for rows, columns in
                          (np.nonzero(scene.ids[frame] == number) for frame in (0, -1)))
    return (x1 - x0) / 20, (y1 - y0) / 20


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


def asked_regions(scenes, source, framework, objects, count):
    """Questions of each scene and the regions that they need, a clip's in each frame that carries masks. Returns
    questions as (scene, question, [indices of regions of each of its objects]) and regions as (scene, object, frame)."""
    questions, regions = [], []
    for s, scene in enumerate(scenes):
        chosen, about = choose_questions(scene, source, objects, count)
        frames = [0]
        if len(scene.pictures) > 1 and framework == "object_only":
            frames = CLIP_FRAMES[source.integers(len(CLIP_FRAMES))]
        places = {}
        for number in about:
            places[number] = list(range(len(regions), len(regions) + len(frames)))
            regions += [(s, number, frame) for frame in frames]
        for q in chosen:
            questions.append((s, q, [places[number] for number in q["regions"]]))
    return questions, regions
