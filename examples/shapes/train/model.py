"""PixelRefer (Vision-Object) and PixelRefer-Lite (Object-Only) in PyTorch, float32, for training at a small size.

The modules are named so that `state_dict()` has the checkpoint's names. Sequences of cells of several pictures are
packed one behind the other; attention is full within a picture and never across.
"""
import math

import torch
from torch import nn
from torch.nn import functional as F

import preprocess


# ---- vision encoder --------------------------------------------------------------------------------------------------

def cell_angles(grids, head_dim):
    """Rotary angles [cells, head_dim] of packed grids (height, width, block): rows in the first half, columns in the
    second, in the cells' block order."""
    frequencies = 1.0 / 10000 ** (torch.arange(0, head_dim // 2, 2, dtype=torch.float32) / (head_dim // 2))
    parts = []
    for height, width, block in grids:
        rows = torch.arange(height)[:, None].expand(height, width)
        columns = torch.arange(width)[None, :].expand(height, width)
        order = [x.reshape(height // block, block, width // block, block).permute(0, 2, 1, 3).reshape(-1)
                 for x in (rows, columns)]
        parts.append(torch.cat([torch.outer(x.float(), frequencies) for x in order], dim=1))
    angles = torch.cat(parts)
    return torch.cat([angles, angles], dim=1)


def rotate(x, cosine, sine):
    """Rotate-half over the last dim."""
    half = x.shape[-1] // 2
    return x * cosine + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * sine


def attend(q, k, v, mask=None):
    """Plain softmax attention over [..., n, d]: on a CPU faster to train through than the fused one."""
    scores = (q * (1 / math.sqrt(q.shape[-1]))) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(mask, float("-inf"))
    return torch.softmax(scores, dim=-1) @ v


class VisionAttention(nn.Module):
    def __init__(self, hidden, heads):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.v_proj, self.out_proj = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)

    def forward(self, x, rotary, lengths):
        cells, hidden = x.shape
        shape = (cells, self.heads, hidden // self.heads)
        q = rotate(self.q_proj(x).view(shape), *rotary)
        k = rotate(self.k_proj(x).view(shape), *rotary)
        v = self.v_proj(x).view(shape)
        out = []
        runs = []  # neighbours of one length are attended to in one go
        for length in lengths:
            if runs and runs[-1][0] == length:
                runs[-1][1] += 1
            else:
                runs.append([length, 1])
        sizes = [length * count for length, count in runs]
        for (length, count), a, b, c in zip(runs, q.split(sizes), k.split(sizes), v.split(sizes)):
            a, b, c = (y.view(count, length, *shape[1:]).transpose(1, 2) for y in (a, b, c))
            out.append(attend(a, b, c).transpose(1, 2).reshape(count * length, hidden))
        return self.out_proj(torch.cat(out))


class VisionLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        hidden, eps = config["hidden_size"], config["layer_norm_eps"]
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(hidden, eps=eps), nn.LayerNorm(hidden, eps=eps)
        self.self_attn = VisionAttention(hidden, config["num_attention_heads"])
        self.mlp = nn.Module()
        self.mlp.fc1 = nn.Linear(hidden, config["intermediate_size"])
        self.mlp.fc2 = nn.Linear(config["intermediate_size"], hidden)

    def forward(self, x, rotary, lengths):
        x = x + self.self_attn(self.layer_norm1(x), rotary, lengths)
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.layer_norm2(x)), approximate="tanh"))


class VisionEncoder(nn.Module):
    """Patches [cells, 588] to features [cells, E]."""

    def __init__(self, config):
        super().__init__()
        hidden = config["hidden_size"]
        self.head_dim = hidden // config["num_attention_heads"]
        self.embeddings, self.encoder = nn.Module(), nn.Module()
        self.embeddings.patch_embedding = nn.Conv2d(3, hidden, preprocess.PATCH, preprocess.PATCH)
        self.encoder.layers = nn.ModuleList(VisionLayer(config) for _ in range(config["num_hidden_layers"]))
        self.post_layernorm = nn.LayerNorm(hidden, eps=config["layer_norm_eps"])

    def forward(self, patches, grids):
        embedding = self.embeddings.patch_embedding
        x = F.linear(patches, embedding.weight.flatten(1), embedding.bias)
        angles = cell_angles(grids, self.head_dim)[:, None]
        rotary = (angles.cos(), angles.sin())
        lengths = [height * width for height, width, _ in grids]
        for layer in self.encoder.layers:
            x = layer(x, rotary, lengths)
        return self.post_layernorm(x)


# ---- object tokens ---------------------------------------------------------------------------------------------------

def two_layers(width, out):
    return nn.Sequential(nn.Linear(width, out), nn.GELU(), nn.Linear(out, out))


def kmeans(points, count, rounds, generator):
    """At most `rounds` rounds from `count` random points; the means carry gradients, the assignment none."""
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        x = points.detach()
        centroids = x[torch.randperm(len(x), generator=generator)[:count]]
        for _ in range(rounds):
            before = centroids
            distance = (x * x).sum(1, keepdim=True) - 2 * x @ before.T + (before * before).sum(1)
            nearest = distance.argmin(dim=1)
            sizes = torch.bincount(nearest, minlength=count)
            sums = torch.zeros_like(before).index_add_(0, nearest, x)
            centroids = torch.where(sizes[:, None] > 0, sums / sizes.clamp(min=1)[:, None], before)
            if torch.allclose(before, centroids, rtol=1e-5, atol=1e-6):
                break
    sums = torch.zeros_like(before).index_add(0, nearest, points)
    return torch.where(sizes[:, None] > 0, sums / sizes.clamp(min=1)[:, None], before)


class CrossAttention(nn.Module):
    """nn.MultiheadAttention with its parameters' names; [regions, n, E] to [regions, n, E]."""

    def __init__(self, hidden, heads=8):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * hidden, hidden))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * hidden))
        self.out_proj = nn.Linear(hidden, hidden)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, query, memory):
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (F.linear(x, w, b).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                   for x, w, b in zip((query, memory, memory), weights, biases))
        return self.out_proj(attend(q, k, v).transpose(1, 2).flatten(2))


class RegionEncoder(nn.Module):
    """`config["object_tokenizer"]` names how a region's cells are pooled: for another way of yours write another
    `pool_NAME`, from cells [n,E] to tokens [k,E]."""

    def __init__(self, config):
        super().__init__()
        hidden, out = config["mm_hidden_size"], config["hidden_size"]
        self.mask_num, self.is_lite = config["mask_num"], config["model_type"] == "pixelreferlite_qwen2"
        self.pool_cells = getattr(self, "pool_" + config.get("object_tokenizer", "saot"))
        self.pos_linear, self.feat_linear = nn.Linear(2, hidden), two_layers(hidden, out)
        if self.is_lite:
            self.mask_embedding = nn.Conv2d(1, hidden, 1)  # in the checkpoints, never used
            self.fusion_attention_local, self.ln_local = CrossAttention(hidden), nn.LayerNorm(hidden)
            self.fusion_attention_global, self.ln_global = CrossAttention(hidden), nn.LayerNorm(hidden)

    def pool(self, features, item, generator):
        """Features [gh,gw,E] of an Item's picture to its tokens [k,E]."""
        grid_h, grid_w, width = features.shape
        with torch.autocast("cpu", enabled=False):  # a place is a matter of its last bits
            features = features.float() + self.pos_linear(preprocess.positions(item, grid_h, grid_w))
        mask = torch.from_numpy(item.mask_grid)
        if tuple(mask.shape) != (grid_h, grid_w):
            features = F.interpolate(features.permute(2, 0, 1)[None], size=mask.shape, mode="bilinear",
                                     align_corners=False)[0].permute(1, 2, 0)
        return self.pool_cells(features[mask > 0].float(), generator)

    def pool_saot(self, cells, generator):
        """The centroids of k-means; where there are no more than mask_num cells, the cells themselves (Lite: and zeros)."""
        if len(cells) > self.mask_num:
            return kmeans(cells, self.mask_num, 3 if self.is_lite else 5, generator)
        if self.is_lite:
            return torch.cat([cells, cells.new_zeros(self.mask_num - len(cells), cells.shape[1])])
        return cells

    def pool_mask_average(self, cells, _):
        """One token, the mean."""
        return cells.mean(dim=0, keepdim=True)

    def infuse(self, tokens, local, whole):
        """OCI: tokens [regions, mask_num, E] look at their crops [regions, n, E], then at the pictures."""
        tokens = tokens + self.fusion_attention_local(self.ln_local(tokens), local)
        return tokens + self.fusion_attention_global(self.ln_global(tokens), whole)


# ---- decoder ---------------------------------------------------------------------------------------------------------

class RMSNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        return x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class DecoderLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, heads, kv_heads = config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, width // heads
        self.input_layernorm = RMSNorm(width, config["rms_norm_eps"])
        self.post_attention_layernorm = RMSNorm(width, config["rms_norm_eps"])
        self.self_attn, self.mlp = nn.Module(), nn.Module()
        self.self_attn.q_proj = nn.Linear(width, width)
        self.self_attn.k_proj = nn.Linear(width, kv_heads * self.head_dim)
        self.self_attn.v_proj = nn.Linear(width, kv_heads * self.head_dim)
        self.self_attn.o_proj = nn.Linear(width, width, bias=False)
        self.mlp.gate_proj = nn.Linear(width, config["intermediate_size"], bias=False)
        self.mlp.up_proj = nn.Linear(width, config["intermediate_size"], bias=False)
        self.mlp.down_proj = nn.Linear(config["intermediate_size"], width, bias=False)

    def forward(self, x, rotary, mask, past=None):
        """x [rows, n, D]; mask [rows or 1, 1, n, keys] is true where a key is hidden; past keys and values come first."""
        rows, length, _ = x.shape
        h = self.input_layernorm(x)
        q = self.self_attn.q_proj(h).view(rows, length, self.heads, self.head_dim).transpose(1, 2)
        k = self.self_attn.k_proj(h).view(rows, length, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.self_attn.v_proj(h).view(rows, length, self.kv_heads, self.head_dim).transpose(1, 2)
        q, k = rotate(q, *rotary), rotate(k, *rotary)
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        group = self.heads // self.kv_heads
        out = attend(q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1), mask)
        x = x + self.self_attn.o_proj(out.transpose(1, 2).reshape(rows, length, -1))
        h = self.post_attention_layernorm(x)
        return x + self.mlp.down_proj(F.silu(self.mlp.gate_proj(h)) * self.mlp.up_proj(h)), (k, v)


# ---- the whole -------------------------------------------------------------------------------------------------------

class PixelRefer(nn.Module):
    """Either framework, by `config["model_type"]`. What a call's steps are: `encode` pictures, `object_tokens` of Items,
    then `decode` embeddings."""

    def __init__(self, config):
        super().__init__()
        self.config, self.is_lite = config, config["model_type"] == "pixelreferlite_qwen2"
        self.framework = "object_only" if self.is_lite else "vision_object"
        vision, width = config["vision_encoder_config"], config["hidden_size"]
        self.model = nn.Module()
        self.model.vision_encoder = nn.Module()
        self.model.vision_encoder.vision_encoder = VisionEncoder(vision)
        self.model.mm_projector = nn.Module()
        self.model.mm_projector.readout = two_layers(vision["hidden_size"], width)
        self.model.region_encoder = RegionEncoder(config)
        self.model.embed_tokens = nn.Embedding(config["vocab_size"], width)
        self.model.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config["num_hidden_layers"]))
        self.model.norm = RMSNorm(width, config["rms_norm_eps"])
        if not config["tie_word_embeddings"]:
            self.lm_head = nn.Linear(width, config["vocab_size"], bias=False)

    @property
    def encoder(self):
        return self.model.vision_encoder.vision_encoder

    def encode(self, pictures, block=1):
        """Fits pictures to their budget and encodes them: a list of features [gh,gw,E] (block order when block > 1:
        [cells,E]), and the patches. In training each picture has the budget of a call of its own."""
        calls = [[picture] for picture in pictures] if self.training else [pictures]
        fitted = [picture for call in calls for picture in preprocess.fit(call, self.config, block)]
        patches = [preprocess.patches(picture, block) for picture in fitted]
        grids = [(p.shape[0] // preprocess.PATCH, p.shape[1] // preprocess.PATCH, block) for p in fitted]
        order = sorted(range(len(grids)), key=lambda i: grids[i][0] * grids[i][1])  # equal lengths side by side
        features = self.encoder(torch.cat([patches[i] for i in order]), [grids[i] for i in order])
        parts = dict(zip(order, features.split([len(patches[i]) for i in order])))
        if block > 1:
            return [parts[i] for i in range(len(grids))], patches
        return [parts[i].view(grids[i][0], grids[i][1], -1) for i in range(len(grids))], patches

    def visible_cells(self, pictures, is_video):
        """Vision-Object: the features [n,E] that become the visual tokens of an image or of a video's frames, and how many
        each picture has."""
        block = self.config["spatial_merge_size"] if is_video else 1
        features, patches = self.encode(pictures, block)
        if not is_video:
            return torch.cat([f.flatten(0, 1) for f in features]), [f.shape[0] * f.shape[1] for f in features]
        kept = preprocess.changed_cells(patches, block)
        merged = torch.cat(features).unflatten(0, (-1, block * block)).mean(dim=1)
        return merged[torch.cat(kept)], [int(k.sum()) for k in kept]

    def visual_tokens(self, pictures, is_video):
        """Vision-Object: the visual tokens [n,D] of an image or of a video's frames, and how many each has."""
        cells, counts = self.visible_cells(pictures, is_video)
        return self.model.mm_projector.readout(cells), counts

    def pooled_tokens(self, items, generator, features=None):
        """Tokens of each Item before OCI, [k,E] each."""
        region_encoder = self.model.region_encoder
        if features is None:
            features, _ = self.encode([item.picture for item in items])
        return [region_encoder.pool(f, item, generator) for f, item in zip(features, items)]

    def object_tokens(self, items, generator, features=None, whole=None):
        """Object tokens of a call's regions, [k,D] each. `whole`: the features of the Items' whole pictures when they
        are there already (Object-Only)."""
        region_encoder = self.model.region_encoder
        pooled = self.pooled_tokens(items, generator, features)
        if self.is_lite:
            local = torch.stack([f.flatten(0, 1) for f in self.encode([item.local_picture for item in items])[0]])
            if whole is None:
                whole = [f.flatten(0, 1) for f in self.encode([item.global_picture for item in items])[0]]
            pooled = list(region_encoder.infuse(torch.stack(pooled), local, torch.stack(whole)))
        projected = region_encoder.feat_linear(torch.cat(pooled))
        return list(projected.split([len(p) for p in pooled]))

    def rotary(self, positions):
        """Cosines and sines for positions [rows, n]."""
        head_dim = self.config["hidden_size"] // self.config["num_attention_heads"]
        frequencies = 1.0 / self.config["rope_theta"] ** (torch.arange(0, head_dim, 2).float() / head_dim)
        angles = positions[..., None].float() * frequencies
        angles = torch.cat([angles, angles], dim=-1)[:, None]
        return angles.cos(), angles.sin()

    def decode(self, embeds, prefix=None, prefix_lengths=None, owner=None, after=0):
        """The final hidden states [rows, n, D] of padded sequences [rows, n, D], and those `after` so many layers (what
        comes in, for 0). Sequences that begin alike can share
        their beginning: `prefix` [prefixes, m, D] is run once, and row r goes on from prefix `owner[r]`, whose length is
        `prefix_lengths[owner[r]]`. What stands behind a sequence's own end is never seen."""
        rows, length, _ = embeds.shape
        causal = torch.ones(length, length, dtype=torch.bool).triu(1)[None, None]
        pasts, offset, mask = [None] * len(self.model.layers), torch.zeros(rows, dtype=torch.long), causal
        if prefix is not None:
            size = prefix.shape[1]
            rotary = self.rotary(torch.arange(size)[None])
            before = torch.ones(size, size, dtype=torch.bool).triu(1)[None, None]
            x = prefix
            for i, layer in enumerate(self.model.layers):
                x, (k, v) = layer(x, rotary, before)
                pasts[i] = (k[owner], v[owner])
            offset = prefix_lengths[owner]
            padded = torch.arange(size)[None] >= offset[:, None]
            mask = torch.cat([padded[:, None, None].expand(rows, 1, length, size),
                              causal.expand(rows, 1, length, length)], dim=-1)
        rotary = self.rotary(offset[:, None] + torch.arange(length)[None])
        x = halfway = embeds
        for i, (layer, past) in enumerate(zip(self.model.layers, pasts)):
            x, _ = layer(x, rotary, mask, past)
            if i + 1 == after:
                halfway = x
        return self.model.norm(x), halfway

    def logits(self, hidden):
        """Scores of the next token."""
        head = self.model.embed_tokens if self.config["tie_word_embeddings"] else self.lm_head
        return F.linear(hidden, head.weight)
