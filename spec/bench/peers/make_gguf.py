"""Writes Qwen2.5-1.5B, the decoder of PixelRefer-2B, with random weights as GGUF files for llama.cpp: in bfloat16, and
made of that by llama-quantize Q8_0 (blocks of 32 with a scale) and Q4_0 (the same; embeddings, which are the head too,
become Q6_K). Needs numpy and gguf.

    python spec/bench/peers/make_gguf.py FOLDER --quantize .../llama-quantize

The files carry no vocabulary: llama-bench makes up the numbers of its tokens.
"""

import argparse
import os
import subprocess

import gguf
import numpy

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, MLP, VOCABULARY = 1536, 28, 12, 2, 128, 8960, 151936
KINDS = ("Q8_0", "Q4_0")


def tensors():
    """Pairs of name and shape, the outer dimension first."""
    yield "token_embd.weight", (VOCABULARY, HIDDEN)
    for layer in range(LAYERS):
        for name, *shape in (
            ("attn_norm.weight", HIDDEN),
            ("attn_q.weight", HEADS * HEAD_DIM, HIDDEN),
            ("attn_q.bias", HEADS * HEAD_DIM),
            ("attn_k.weight", KV_HEADS * HEAD_DIM, HIDDEN),
            ("attn_k.bias", KV_HEADS * HEAD_DIM),
            ("attn_v.weight", KV_HEADS * HEAD_DIM, HIDDEN),
            ("attn_v.bias", KV_HEADS * HEAD_DIM),
            ("attn_output.weight", HIDDEN, HEADS * HEAD_DIM),
            ("ffn_norm.weight", HIDDEN),
            ("ffn_gate.weight", MLP, HIDDEN),
            ("ffn_up.weight", MLP, HIDDEN),
            ("ffn_down.weight", HIDDEN, MLP),
        ):
            yield f"blk.{layer}.{name}", tuple(shape)
    yield "output_norm.weight", (HIDDEN,)


def values(name, shape, random):
    """Matrices as the upper halves of float32; small, so that activations stay finite."""
    if len(shape) == 1:
        return numpy.full(shape, 0.0 if name.endswith("bias") else 1.0, dtype=numpy.float32)
    uniform = (random.random(shape, dtype=numpy.float32) - 0.5) * 0.04
    return (uniform.view(numpy.uint32) >> 16).astype(numpy.uint16)


def describe(writer):
    writer.add_name("Qwen2.5-1.5B with random weights")
    writer.add_block_count(LAYERS)
    writer.add_context_length(32768)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_tokenizer_model("none")


def write(path):
    """One tensor at a time, so that memory holds one."""
    writer = gguf.GGUFWriter(path, "qwen2")
    describe(writer)
    for name, shape in tensors():
        count = int(numpy.prod(shape))
        if len(shape) == 1:
            writer.add_tensor_info(name, shape, numpy.dtype(numpy.float32), 4 * count)
        else:
            bf16 = gguf.GGMLQuantizationType.BF16
            writer.add_tensor_info(name, shape, numpy.dtype(numpy.uint16), 2 * count, raw_dtype=bf16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = numpy.random.default_rng(0)
    for name, shape in tensors():
        writer.write_tensor_data(values(name, shape, random))
    writer.close()


def make(path, write_to):
    """What is interrupted leaves no file under the name that is looked for."""
    if not os.path.exists(path):
        write_to(path + ".part")
        os.rename(path + ".part", path)
    print(path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--quantize", required=True, help="the llama-quantize to use")
    options = parser.parse_args()
    os.makedirs(options.folder, exist_ok=True)
    plain = os.path.join(options.folder, "qwen2.5-1.5b-BF16.gguf")
    make(plain, write)
    for kind in KINDS:
        command = [options.quantize, plain]
        make(plain.replace("BF16", kind), lambda path: subprocess.run(command + [path, kind], check=True,
             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))


if __name__ == "__main__":
    main()
