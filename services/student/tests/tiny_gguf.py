"""The tiny model as a GGUF file, for tests of what runs on llama.cpp.

`python tests/tiny_gguf.py OUT_FILE [CONTEXT_TOKENS]` writes it. Its weights are random, so what it
says means nothing; the same prompt gives the same text.
"""

import json
import sys
import tempfile
from pathlib import Path

import gguf
import tiny_model
from safetensors.torch import load_file

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write(path: Path, context_tokens: int = 512) -> Path:
    """Writes weights, tokenizer and settings into one file."""
    with tempfile.TemporaryDirectory() as name:
        folder = tiny_model.write(Path(name), context_tokens=context_tokens)
        weights = load_file(folder / "model.safetensors")
        config = json.loads((folder / "config.json").read_text())
        tokenizer = json.loads((folder / "tokenizer.json").read_text())["model"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(context_tokens)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    tokens = sorted(tokenizer["vocab"], key=tokenizer["vocab"].__getitem__)
    # The vocabulary's rest is never drawn by a tokenizer, but the embeddings have a row for each.
    unused = [f"<unused{index}>" for index in range(config["vocab_size"] - len(tokens))]
    kinds = [gguf.TokenType.NORMAL] * len(tokens) + [gguf.TokenType.UNUSED] * len(unused)
    kinds[0] = kinds[1] = gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens + unused)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["merges"]])
    writer.add_pad_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)
    for name, tensor in weights.items():
        writer.add_tensor(_name(name), tensor.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem.startswith("model.layers."):
        _, _, layer, rest = stem.split(".", 3)
        return f"blk.{layer}.{NAMES[rest]}.weight"
    return f"{NAMES[stem]}.weight"


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python tests/tiny_gguf.py OUT_FILE [CONTEXT_TOKENS]")
    write(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) == 3 else 512)
