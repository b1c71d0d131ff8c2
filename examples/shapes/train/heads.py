"""Heads that training alone has: what the object tokens, the cells and the decoder are asked to know before they can be
asked in words. None of it is exported.

Without them an answer's few words are all that teaches the way from a pixel to a place or a number: places stay at chance
for 25,000 regions, counting far longer.
"""
import torch
from torch import nn
from torch.nn import functional as F

import batches

COLOURS, SHAPES = len(batches.COLOURS), len(batches.SHAPES)
READ_AFTER = 2  # decoder layers before what it has read of a region is looked at


class Heads(nn.Module):
    """`width` is the vision encoder's, `projected_width` the decoder's."""

    def __init__(self, width, projected_width):
        super().__init__()
        self.attributes, self.projected = (
            nn.ModuleDict({name: nn.Linear(size, len(words)) for name, words in batches.ATTRIBUTES.items()})
            for size in (width, projected_width))
        self.place, self.neighbours = nn.Linear(projected_width, 2), nn.Linear(projected_width, COLOURS + SHAPES)
        self.sharing = nn.Linear(projected_width, 6)
        self.cell_colour, self.cell_shape = nn.Linear(width, 1 + COLOURS), nn.Linear(width, 1 + SHAPES)
        self.cell_parts, self.cell_way, self.cell_share = (nn.Linear(width, n) for n in (9, 2, COLOURS))
        self.token_colour, self.token_share = nn.Linear(projected_width, 1 + COLOURS), nn.Linear(projected_width, COLOURS)
        self.read_place, self.read_motion = nn.Linear(projected_width, 2), nn.Linear(projected_width, 2)
        self.read_sharing, self.read_numbers = nn.Linear(projected_width, 6), nn.Linear(projected_width, COLOURS)
        for head in (self.cell_share, self.token_share):  # sums over a hundred cells would drown all else at first
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def region_loss(self, pooled, projected, scenes, regions, knows_all):
        """From the mean of a region's tokens: its attributes, before and after the projection to the decoder's width;
        after it its place and what it touches as well and, where OCI has looked at the whole picture (`knows_all`), how
        many share its colour. Also, for each attribute, whether it is right after the projection, bool [regions]."""
        targets, right, loss = batches.attribute_targets(scenes, regions), {}, 0
        for heads, list_of_tokens in ((self.attributes, pooled), (self.projected, projected)):
            means = torch.stack([tokens.mean(dim=0) for tokens in list_of_tokens])
            for name, head in heads.items():
                scores = head(means)
                loss = loss + F.cross_entropy(scores, targets[name])
                right[name] = scores.argmax(dim=1) == targets[name]
        loss = loss + F.smooth_l1_loss(self.place(means), batches.place_targets(scenes, regions))
        loss = loss + 5 * F.binary_cross_entropy_with_logits(self.neighbours(means),
                                                             batches.neighbour_targets(scenes, regions))
        if knows_all:
            loss = loss + F.cross_entropy(self.sharing(means), batches.sharing_targets(scenes, regions))
        return loss, right

    def cell_loss(self, features, targets):
        """From the cells of all pictures: what each of them shows (`batches.cell_targets`)."""
        cells = torch.cat([f.flatten(0, 1) for f in features])
        colour, shape, parts, way = (torch.cat([t[k].flatten(0, 1) for t in targets]) for k in range(4))
        shown = colour > 0
        return (F.cross_entropy(self.cell_colour(cells), colour) + F.cross_entropy(self.cell_shape(cells), shape)
                + F.binary_cross_entropy_with_logits(self.cell_parts(cells), parts)
                + F.smooth_l1_loss(self.cell_way(cells)[shown], way[shown]))

    def token_loss(self, tokens, targets, shares):
        """From the visual tokens [n,D] of whole pictures: their colours, and objects' shares in them."""
        colour = torch.cat([t[0].flatten(0, 1) for t in targets])
        loss, right = share_loss(self.token_share(tokens), shares)
        return F.cross_entropy(self.token_colour(tokens), colour) + loss, right

    def reading_loss(self, read, scenes, about):
        """From what the decoder knows, READ_AFTER layers up, at the token behind each region's last one, [n,D]: the
        region's place and, in a picture, how many share its colour, in a clip, how it moves. `about` has each row's
        Region (in a clip the last one of its object)."""
        loss = F.smooth_l1_loss(self.read_place(read), batches.place_targets(scenes, about))
        if len(scenes[0].pictures) > 1:
            motion = torch.tensor([batches.motion_target(scenes[region.scene], region.number) for region in about],
                                  dtype=torch.float32)
            return loss + F.smooth_l1_loss(self.read_motion(read), motion)
        return loss + F.cross_entropy(self.read_sharing(read), batches.sharing_targets(scenes, about))

    def numbers_loss(self, read, shares):
        """From what the decoder knows, READ_AFTER layers up, at the token behind a picture's visual tokens, [n,D]: how many
        objects there are of each colour."""
        numbers = torch.stack([share.sum(dim=0).round() for share in shares])
        return COLOURS * F.smooth_l1_loss(self.read_numbers(read).float(), numbers)


def share_loss(found, shares):
    """Of `batches.share_targets`, pictures of equal size, found as [pictures * cells,10]: each cell's error, and that of
    their sums. Also how many of the colours that are there are counted right, and their number."""
    shares = torch.stack(shares)
    found = found.float().view_as(shares)
    numbers, expected = found.sum(dim=1), shares.sum(dim=1).round()
    there = expected > 0
    right = int((numbers.round() == expected)[there].sum()), int(there.sum())
    return 2 * (found - shares).square().sum(dim=(1, 2)).mean() + F.smooth_l1_loss(numbers, expected), right
