"""One step of each stage: from scenes to a loss and to what is right."""
import torch
from torch.nn import functional as F

import batches
from heads import READ_AFTER, share_loss
from views import look

PICTURES = 4  # scenes of a step
OBJECTS, WHOLE = 3, 20  # without text: objects of a picture, and further pictures that are seen whole only
ASKED, QUESTIONS = 2, 8  # objects of a scene that are asked about, and questions


def encoder_step(model, heads, scenes, source, generator):
    """Stage without text: loss and what is right."""
    regions = batches.random_regions(scenes[:PICTURES], OBJECTS, source, model.framework, model.config["mask_num"])
    features, _ = model.encode([region.item.picture for region in regions] + [scene.pictures[0] for scene in scenes])
    pooled = model.pooled_tokens([region.item for region in regions], generator, features[:len(regions)])
    tokens = model.model.region_encoder.feat_linear(torch.cat(pooled)).split([len(p) for p in pooled])
    loss, right = heads.region_loss(pooled, tokens, scenes, regions, False)
    cells = [batches.cell_targets(scenes[region.scene], region) for region in regions]
    cells += [batches.cell_targets(scene) for scene in scenes]
    right["describe"] = torch.stack(list(right.values())).all(dim=0)
    report = {name: (int(hits.sum()), len(hits)) for name, hits in right.items()}
    wholes = torch.cat([f.flatten(0, 1) for f in features[len(regions):]])
    shares, report["number"] = share_loss(heads.cell_share(wholes), [batches.share_targets(scene) for scene in scenes])
    return loss + heads.cell_loss(features, cells) + shares, report, len(regions)


def region_tokens(model, seen, wholes, generator):
    """Pooled tokens and object tokens of regions (`views.look`), [k,E] and [k,D] each."""
    region_encoder = model.model.region_encoder
    pooled = model.pooled_tokens([one.item for one in seen], generator, [one.features for one in seen])
    tokens = pooled
    if model.is_lite:
        local = torch.stack([one.local for one in seen])
        tokens = list(region_encoder.infuse(torch.stack(pooled), local, torch.stack(wholes)))
    projected = region_encoder.feat_linear(torch.cat(tokens))
    return pooled, list(projected.split([len(t) for t in tokens]))


def shared_beginnings(model, text, views):
    """Vision-Object: what the questions of each scene share, [scenes,m,D], its lengths, and the visual tokens [n,D]."""
    tokens = model.model.mm_projector.readout(torch.cat([view.visible for view in views]))
    modal, rows = "video" if views[0].is_clip else "image", []
    for view in views:
        ids, prefix = text.prompt("", modal, view.shown, list(range(len(view.scene.pictures))), [], [])
        rows.append(ids[:prefix])
    width = max(len(row) for row in rows)
    padded = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        padded[i, :len(row)] = torch.tensor(row)
    embeds = model.model.embed_tokens(padded)
    marks = padded == text.image_id
    embeds = embeds.masked_scatter(marks[..., None], tokens.to(embeds.dtype))
    return embeds, torch.tensor([len(row) for row in rows]), tokens


def question_rows(model, text, scenes, questions, regions, tokens, shown):
    """Ids of each question with its answer (what stands behind the shared beginning), where the answer begins, all
    object tokens' places in `tokens` in order, and what is read where: (row, column behind a region's last token, its
    place)."""
    rows, starts, order, read = [], [], [], []
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
        marks = [i for i, token in enumerate(rows[-1]) if token == text.region_id]
        ends = torch.tensor(counts).cumsum(0)[torch.tensor([len(p) for p in places]).cumsum(0) - 1]
        read += [(len(rows) - 1, marks[end - 1] + 1, p[-1]) for end, p in zip(ends.tolist(), places)]
    return rows, starts, order, read


def text_step(model, heads, text, views, source, generator):
    """Loss of the answers (and a little of the heads'), and per kind how many answers are right word for word."""
    scenes = [view.scene for view in views]
    questions, wanted = batches.asked_regions(scenes, source, model.framework, ASKED, QUESTIONS)
    seen, wholes = look(model, views, wanted)
    pooled, tokens = region_tokens(model, seen, wholes, generator)
    regions = [batches.Region(*key, one.item) for key, one in zip(wanted, seen)]
    prefix = lengths = shown = None
    if not model.is_lite:
        prefix, lengths, visual = shared_beginnings(model, text, views)
        shown = [view.shown for view in views]
    rows, starts, order, read = question_rows(model, text, scenes, questions, regions, tokens, shown)
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
    hidden, halfway = model.decode(embeds, prefix, lengths, owner, READ_AFTER)
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
    region_loss, _ = heads.region_loss(pooled, tokens, scenes, regions, model.is_lite)
    loss = loss + 0.1 * region_loss
    if not model.is_lite and not views[0].is_clip:
        token_loss, report["number"] = heads.token_loss(visual, [v.cells for v in views], [v.shares for v in views])
        behind = halfway[:, 0]  # rows begin behind the visual tokens
        loss = loss + token_loss + heads.numbers_loss(behind, [views[s].shares for s, _, _ in questions])
    at_rows, at_columns, at_places = zip(*read)
    loss = loss + heads.reading_loss(halfway[list(at_rows), list(at_columns)], scenes,
                                     [regions[place] for place in at_places])
    return loss, report, len(regions)
