"""OpenVINO's time for Qwen2.5-1.5B, the decoder of PixelRefer-2B, with random weights of 8 and 4 bits.

--prepare exports the models by optimum-intel: 8 bits with a scale for each row, 4 bits with one for each group of 128
(embeddings, which are the head too, keep 8), what its documentation recommends. Otherwise openvino-genai generates
behind prompts of random tokens, fresh ones for each run since it keeps what it has seen, and its own account of what
each inference took counts, without sampling. Everything but the number of threads is OpenVINO's default: 8-bit keys and
values, activations quantised as it sees fit.

    python spec/bench/peers/openvino_baseline.py FOLDER --prepare
    python spec/bench/peers/openvino_baseline.py FOLDER --bits 8 --threads 2 --out build/bench/peers/openvino.json

The result is tokens a second, the best of --repeats runs after one that warms up: prefill_N of a prompt of N tokens,
decode_N of --steps tokens behind one.
"""

import argparse
import json
import os
import shutil

CONFIG = dict(
    hidden_size=1536, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2, intermediate_size=8960,
    vocab_size=151936, tie_word_embeddings=True, rms_norm_eps=1e-6, rope_theta=1e6, max_position_embeddings=32768,
)
KINDS = {8: dict(bits=8, sym=True), 4: dict(bits=4, sym=True, group_size=128)}


def random_model(folder):
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    with torch.device("meta"):
        model = Qwen2ForCausalLM(Qwen2Config(**CONFIG)).to(torch.bfloat16)
    model = model.to_empty(device="cpu")
    model.tie_weights()
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.data.fill_(0.0 if name.endswith("bias") else 1.0)
        else:
            parameter.data.uniform_(-0.02, 0.02)
    model.save_pretrained(folder)


def prepare(folder):
    """What is interrupted leaves nothing under the names that are looked for."""
    wanted = [bits for bits in KINDS if not os.path.exists(model_folder(folder, bits))]
    if not wanted:
        return
    from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig

    plain = os.path.join(folder, "openvino-plain.part")
    random_model(plain)
    for bits in wanted:
        part = model_folder(folder, bits) + ".part"
        model = OVModelForCausalLM.from_pretrained(
            plain, export=True, compile=False, quantization_config=OVWeightQuantizationConfig(**KINDS[bits])
        )
        model.save_pretrained(part)
        del model
        os.rename(part, model_folder(folder, bits))
    shutil.rmtree(plain)


def model_folder(folder, bits):
    return os.path.join(folder, f"qwen2.5-1.5b-openvino-{bits}")


def generation(genai, count):
    config = genai.GenerationConfig()
    config.max_new_tokens, config.ignore_eos, config.do_sample = count, True, False
    config.eos_token_id, config.stop_token_ids = 0, {0}  # has to be one of the vocabulary
    return config


def infer_seconds(pipeline, length, count):
    """Seconds of the inferences that make `count` tokens behind a prompt of random ones: the first is the prefill."""
    import numpy
    import openvino
    import openvino_genai as genai

    ids = numpy.random.randint(0, CONFIG["vocab_size"], (1, length))
    inputs = genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(numpy.ones_like(ids)))
    metrics = pipeline.generate(inputs, generation(genai, count)).perf_metrics.raw_metrics
    seconds = [duration / 1e6 for duration in metrics.token_infer_durations]
    assert len(seconds) == count, f"{len(seconds)} inferences for {count} tokens"
    return seconds


def measure(options):
    import openvino_genai as genai

    pipeline = genai.LLMPipeline(
        model_folder(options.folder, options.bits), "CPU", INFERENCE_NUM_THREADS=options.threads
    )
    infer_seconds(pipeline, 32, 4)
    rates = {}
    for length in sorted({*options.prompts, *options.pasts}):
        count = options.steps + 1 if length in options.pasts else 1
        runs = [infer_seconds(pipeline, length, count) for _ in range(options.repeats + 1)][1:]
        if length in options.prompts:
            rates[f"prefill_{length}"] = length / min(run[0] for run in runs)
        if length in options.pasts:
            rates[f"decode_{length}"] = options.steps / min(sum(run[1:]) for run in runs)
    return dict(version=f"openvino-genai {genai.__version__}", threads=options.threads, rates=rates)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--bits", type=int, default=8, choices=sorted(KINDS))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prompts", type=int, nargs="*", default=(1100, 2048))
    parser.add_argument("--pasts", type=int, nargs="*", default=(1100, 3000))
    parser.add_argument("--steps", type=int, default=24, help="decode steps of one timing")
    parser.add_argument("--out", help="JSON file, in place of the terminal")
    options = parser.parse_args()
    if options.prepare:
        return prepare(options.folder)
    text = json.dumps(measure(options), indent=1)
    if options.out:
        with open(options.out, "w") as file:
            file.write(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
