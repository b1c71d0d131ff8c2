"""Text: training the small tokenizer, the chat as the decoder reads it, and its embeddings."""
import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

ADDED = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<|stream_start|>", "<|stream_end|>", "<REGION>"]
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
           r"|\s+(?!\S)|\s+")


def _prepared(tokenizer):
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def train_tokenizer(texts, folder, entries):
    """Trains a byte-level BPE with `entries` entries, the added tokens among them, and writes the files of a checkpoint
    directory."""
    tokenizer = _prepared(Tokenizer(models.BPE()))
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=entries - len(ADDED), initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False))
    folder.mkdir(parents=True, exist_ok=True)
    model = json.loads(tokenizer.to_str())["model"]
    vocab = dict(sorted(model["vocab"].items(), key=lambda entry: entry[1]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    added = {token: len(vocab) + i for i, token in enumerate(ADDED)}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (folder / "added_tokens.json").write_text(json.dumps(added, indent=1))
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "add_prefix_space": False, "bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
        "unk_token": None, "model_max_length": 32768, "tokenizer_class": "Qwen2Tokenizer",
        "split_special_tokens": False, "errors": "replace", "clean_up_tokenization_spaces": False,
        "additional_special_tokens": ADDED[1:],
        "added_tokens_decoder": {str(added[token]): {"content": token, **flags} for token in ADDED}}, indent=1))
    return len(vocab) + len(ADDED)


class Text:
    """A checkpoint directory's tokenizer and the prompts made with it."""

    def __init__(self, folder):
        folder = Path(folder)
        self.tokenizer = _prepared(Tokenizer(models.BPE.from_file(str(folder / "vocab.json"),
                                                                  str(folder / "merges.txt"))))
        added = json.loads((folder / "added_tokens.json").read_text())
        self.tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)
                                           for token, _ in sorted(added.items(), key=lambda entry: entry[1])])
        if any(self.tokenizer.token_to_id(token) != number for token, number in added.items()):
            raise ValueError(f"{folder}: the added tokens do not follow the vocabulary")
        self.image_id, self.region_id, self.end_id = added["<image>"], added["<REGION>"], added["<|im_end|>"]
        self.ends = {added["<|im_end|>"], added["<|endoftext|>"]}

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids):
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def prompt(self, question, modal, shown, times, tokens, frames, frame_times=None, regions=None):
        """Ids of a one-turn chat up to the answer, and how many of them come up to the last visual token. `shown` are the
        visual tokens of each picture (None in Object-Only), `tokens` the object tokens of each region's frames in order,
        `frames` how many frames each region has, `frame_times` the frames' seconds where regions are spread over time."""
        at = 0
        for i, count in enumerate(frames):
            if frame_times is not None:
                parts = [f"Time {round(frame_times[part['frame']], 1)}:{'<REGION>' * tokens[at + f]}"
                         for f, part in enumerate(regions[i])]
                spread = ",".join(parts)
            else:
                spread = "<REGION>" * tokens[at]
            at += count
            question = question.replace("<region>", f"[{spread}]", 1)
        tag = {"image": "<image>", "video": "<video>"}.get(modal)
        if shown is None:
            pieces = [piece.strip() for piece in question.replace("<video>", "<image>").split("<image>")]
            content = "".join(pieces)
        else:
            if tag and tag not in question:
                question = tag + question
            media = "<image>" * shown[0] + "\n" if modal == "image" else "" if modal == "text" else ",".join(
                f"Time {round(t, 1)}s:{'<image>' * n}" for t, n in zip(times, shown)) + "\n"
            content = media.join(piece.strip() for piece in question.split(tag)) if tag else question.strip()
        ids = self.encode(f"<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n")
        prefix = max((i + 1 for i, token in enumerate(ids) if token == self.image_id), default=0)
        return ids, prefix

    def embed(self, model, ids, visual, objects):
        """The decoder's input [n,D]: visual and object tokens in the places of their marks."""
        ids = torch.tensor(ids)
        embeds = model.model.embed_tokens(ids)
        for mark, rows in ((self.image_id, visual), (self.region_id, objects)):
            places = ids == mark
            if int(places.sum()) != (0 if rows is None else len(rows)):
                raise ValueError(f"{int(places.sum())} places for {0 if rows is None else len(rows)} tokens")
            if rows is not None:
                embeds = embeds.masked_scatter(places[:, None], rows.to(embeds.dtype))
        return embeds
