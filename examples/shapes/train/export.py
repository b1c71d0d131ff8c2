"""What the small models look like, and writing them as checkpoint directories in the hub's layout."""
import json
import shutil

import torch
from safetensors.torch import save_file

HIDDEN, VISION_LAYERS, VISION_HEADS, VISION_MLP = 144, 4, 2, 288
WIDTH, LAYERS, HEADS, KV_HEADS, MLP = 128, 4, 4, 2, 384
MASK_NUM = 16


def model_config(stage, text, tokenizer):
    """config.json of a stage's model. The stage without text trains the encoder by PixelRefer's regions. `tokenizer` names
    the object tokenizer, as the library does."""
    is_lite = stage == "object_only"
    return {
        "model_type": "pixelreferlite_qwen2" if is_lite else "pixelrefer_qwen2",
        "architectures": ["PixelreferliteQwen2ForCausalLM" if is_lite else "PixelreferQwen2ForCausalLM"],
        "hidden_size": WIDTH, "intermediate_size": MLP, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
        "max_position_embeddings": 32768, "tie_word_embeddings": True, "use_sliding_window": False,
        "torch_dtype": "bfloat16", "vocab_size": text.tokenizer.get_vocab_size(),
        "mm_vision_encoder": "shapes", "mm_hidden_size": HIDDEN, "mm_projector_type": "mlp2x_gelu",
        "spatial_merge_size": 2, "mm_max_length": 8192, "use_token_compression": True, "mask_num": MASK_NUM,
        "object_tokenizer": tokenizer,
        "max_frames": 180, "image_token_index": text.image_id, "region_token_index": text.region_id,
        "bos_token_id": min(text.ends), "eos_token_id": text.end_id,
        "vision_encoder_config": {
            "model_type": "videollama3_vision_encoder", "hidden_size": HIDDEN, "intermediate_size": VISION_MLP,
            "num_hidden_layers": VISION_LAYERS, "num_attention_heads": VISION_HEADS, "num_channels": 3,
            "patch_size": 14, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
        },
    }


def copy_tokenizer(source, folder):
    """The tokenizer's files, as they lie in a checkpoint directory."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("vocab.json", "merges.txt", "added_tokens.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, folder / name)


def export(runs, stage, folder):
    """Writes a stage's model as bfloat16 safetensors with its configuration and tokenizer."""
    state = torch.load(runs / stage / "state.pt", map_location="cpu", weights_only=False)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.to(torch.bfloat16).contiguous() for name, value in state["model"].items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = state["config"]
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    (folder / "generation_config.json").write_text(json.dumps({
        "eos_token_id": [config["eos_token_id"], config["bos_token_id"]], "bos_token_id": config["bos_token_id"],
        "do_sample": False}, indent=1) + "\n")
    (folder / "preprocessor_config.json").write_text(json.dumps({
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "min_pixels": 3136, "merge_size": 2,
        "patch_size": 14, "resample": 3, "rescale_factor": 0.00392156862745098}, indent=1) + "\n")
    copy_tokenizer(runs / "tokenizer", folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 1e6:.2f} MB, {sum(w.numel() for w in weights.values()):,} parameters, "
          f"{state['regions']:,} regions, {state['questions']:,} questions, {state['seconds'] / 3600:.2f} hours")
