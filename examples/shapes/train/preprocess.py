"""From pictures and masks to what the encoder sees, as the library does it: cropping and scaling of regions, the budget's
resize, patches. Pillow, OpenCV and torch are the libraries whose arithmetic the library follows bit for bit.

A cell is a patch of 14 x 14 pixels. Pictures are uint8 [h,w,3], masks uint8 [h,w] of 0 and 1.
"""
import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from PIL import Image

PATCH = 14
MARGIN = 28  # pixels around a region's box that its crop shows
RESCALE = 0.00392156862745098


@dataclass
class Item:
    """A region, ready for the encoder and the pooling."""
    picture: np.ndarray  # uint8 [h,w,3], sides of whole cells
    mask_grid: np.ndarray  # float32 [gh,gw]: a cell is in when > 0
    box: tuple  # top, left, bottom, right
    image_size: tuple  # height, width of the whole picture
    crop: tuple  # top, bottom, left, right of the crop, the ends excluded
    local_picture: np.ndarray = None  # uint8 [224,224,3] (Object-Only)
    global_picture: np.ndarray = None  # uint8 [336,336,3] (Object-Only)


def smart_resize(height, width, factor, min_pixels, max_pixels):
    """Sides of whole blocks within the budget."""
    if min(height, width) < factor:
        scale = factor / min(height, width)
        height, width = round(height * scale), round(width * scale)
    out_h, out_w = round(height / factor) * factor, round(width / factor) * factor
    if out_h * out_w > max_pixels:
        beta = math.sqrt(height * width / max_pixels)
        out_h, out_w = math.floor(height / beta / factor) * factor, math.floor(width / beta / factor) * factor
    elif out_h * out_w < min_pixels:
        beta = math.sqrt(min_pixels / (height * width))
        out_h, out_w = math.ceil(height * beta / factor) * factor, math.ceil(width * beta / factor) * factor
    return out_h, out_w


def fit(pictures, config, block=1):
    """Resizes pictures that are encoded together to the budget that they share."""
    merge = config["spatial_merge_size"]
    base = config["mm_max_length"] * (merge * PATCH) ** 2
    budget = math.floor(math.floor(base / (merge / block) ** 2) / len(pictures))
    fitted = []
    for picture in pictures:
        height, width = smart_resize(*picture.shape[:2], PATCH * block, config.get("min_pixels", 3136), budget)
        if picture.shape[:2] != (height, width):
            picture = np.asarray(Image.fromarray(picture).resize((width, height), Image.BICUBIC))
        fitted.append(picture)
    return fitted


_LEVELS = torch.from_numpy((np.arange(256, dtype=np.float64) * RESCALE).astype(np.float32))
_LEVELS = (_LEVELS - 0.5) / 0.5


def patches(picture, block=1):
    """Normalised patches, float32 [cells, 588], raster order over blocks of `block` x `block` cells."""
    height, width = picture.shape[0] // (PATCH * block), picture.shape[1] // (PATCH * block)
    values = _LEVELS[torch.from_numpy(np.array(picture)).long()]
    values = values.view(height, block, PATCH, width, block, PATCH, 3)
    return values.permute(0, 3, 1, 4, 6, 2, 5).reshape(height * width * block * block, 3 * PATCH * PATCH)


def prepare_vision_object(picture, mask, mask_num):
    """SAOT of PixelRefer: the crop's far edge excluded, torch's 8-bit bilinear for the mask."""
    height, width = mask.shape
    rows, columns = np.where(mask == 1)
    top, left = max(0, rows.min() - MARGIN), max(0, columns.min() - MARGIN)
    bottom, right = min(height - 1, rows.max() + MARGIN), min(width - 1, columns.max() + MARGIN)
    area = int(len(rows))
    scale = math.ceil(math.sqrt(196 * mask_num / area))
    if scale == 1 and area / 196 > 100:
        scale = 1 / math.sqrt(area / 196 / 100)
    crop, inside = picture[top:bottom, left:right], mask[top:bottom, left:right]
    grid_h, grid_w = math.ceil(crop.shape[0] * scale / PATCH), math.ceil(crop.shape[1] * scale / PATCH)
    scaled = cv2.resize(crop, (grid_w * PATCH, grid_h * PATCH), interpolation=cv2.INTER_LINEAR)
    grid = torch.nn.functional.interpolate(torch.from_numpy(np.ascontiguousarray(inside))[None, None],
                                           size=(grid_h, grid_w), mode="bilinear", align_corners=False)[0, 0]
    grid = grid.float().numpy()
    if not (grid > 0).any():  # too thin for any cell: the one with the largest share
        share = cv2.resize(inside.astype(np.float32), (grid_w, grid_h), interpolation=cv2.INTER_AREA)
        grid[np.unravel_index(share.argmax(), share.shape)] = 1
    return Item(scaled, grid, (int(top), int(left), int(bottom), int(right)), (height, width),
                (int(top), int(bottom), int(left), int(right)))


def prepare_object_only(picture, mask, mask_num):
    """SAOT of PixelRefer-Lite: the far edge included, OpenCV's resizes, and the two pictures that OCI attends to."""
    height, width = mask.shape
    rows, columns = np.where(mask == 1)
    if len(rows) == 0:
        raise ValueError("an empty mask")
    top, left = max(0, rows.min() - MARGIN), max(0, columns.min() - MARGIN)
    bottom, right = min(height, rows.max() + 1 + MARGIN), min(width, columns.max() + 1 + MARGIN)
    area = int(len(rows))
    scale = math.ceil(math.sqrt(196 * mask_num / max(area, 1)))
    if scale == 1 and area / 196 > 50:
        scale = 1 / math.sqrt(area / 196 / 50)
    crop, inside = picture[top:bottom, left:right], mask[top:bottom, left:right]
    grid_h, grid_w = math.ceil(crop.shape[0] * scale / PATCH), math.ceil(crop.shape[1] * scale / PATCH)
    grows = grid_h * PATCH >= crop.shape[0] or grid_w * PATCH >= crop.shape[1]
    scaled = cv2.resize(crop, (grid_w * PATCH, grid_h * PATCH),
                        interpolation=cv2.INTER_LINEAR if grows else cv2.INTER_AREA)
    grid = cv2.resize(inside.astype(np.float32), (grid_w, grid_h), interpolation=cv2.INTER_LINEAR)
    box = (int(top), int(left), int(min(height - 1, bottom - 1)), int(min(width - 1, right - 1)))
    return Item(scaled, grid, box, (height, width), (int(top), int(bottom), int(left), int(right)),
                local_picture=cv2.resize(crop, (224, 224), interpolation=cv2.INTER_AREA),
                global_picture=cv2.resize(picture, (336, 336), interpolation=cv2.INTER_AREA))


def prepare(framework, picture, mask, mask_num):
    """A region's Item in either framework."""
    make = prepare_vision_object if framework == "vision_object" else prepare_object_only
    return make(picture, mask, mask_num)


def positions(item, grid_h, grid_w):
    """The two coordinates of each cell that `pos_linear` takes, float32 [gh,gw,2]. The reference stores a box as (top,
    left, bottom, right) and reads it as (x0, y0, x1, y1): the axes' extents are swapped, and trained weights expect it."""
    top, left, bottom, right = item.box
    height, width = item.image_size
    across = (torch.arange(grid_w, dtype=torch.float32) / grid_w * (bottom - top) + top) / (width - 1)
    down = (torch.arange(grid_h, dtype=torch.float32) / grid_h * (right - left) + left) / (height - 1)
    return torch.stack([across[None, :].expand(grid_h, grid_w), down[:, None].expand(grid_h, grid_w)], dim=-1)


def changed_cells(frames, block):
    """Which merged cells of a video's frames stay: all of the first, then those whose pixels changed. `frames` are
    patches of each frame; returns a list of bool [merged cells]."""
    kept = [torch.ones(frames[0].shape[0] // block ** 2, dtype=torch.bool)]
    for before, after in zip(frames, frames[1:]):
        change = (after - before).abs().view(-1, block * block * after.shape[1]).mean(dim=1) * 255
        keep = change > 0.1
        if not keep.any():
            keep[0] = True
        kept.append(keep)
    return kept
