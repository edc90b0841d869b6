"""A two-layer Llama with random weights and a word tokenizer, small enough to train in seconds.

`python tests/tiny_model.py OUT_DIR [CONTEXT_TOKENS]` writes it as a Hugging Face folder, which
`file:OUT_DIR` names.
Its vocabulary is bytes, so that it reads any text, and a row's words are not split up strangely.
"""

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CORPUS = [
    "Question: how many legs has a spider ?",
    "Question: who wrote the long novel ?",
    "Question: where is the tall tower ?",
    "Text: the film was good and the cast was great",
    "Text: the film was bad and the plot was awful",
    "Class: NUM HUM LOC DESC ENTY ABBR",
    "Sentiment: positive negative Answer: yes no red green blue",
]


def write(folder: Path, seed: int = 0, context_tokens: int = 128) -> Path:
    """Writes config, weights and tokenizer; the same seed writes the same bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        CORPUS * 20,
        BpeTrainer(
            vocab_size=512,
            special_tokens=["<pad>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>")
    fast.chat_template = CHAT_TEMPLATE
    torch.manual_seed(seed)
    network = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=512,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=context_tokens,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
            tie_word_embeddings=True,
            initializer_range=0.08,
        )
    )
    # Frozen, tied embeddings this small could never make an adapter sure of an answer.
    network.model.norm.weight.data.fill_(4.0)
    folder.mkdir(parents=True, exist_ok=True)
    network.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python tests/tiny_model.py OUT_DIR [CONTEXT_TOKENS]")
    write(Path(sys.argv[1]), context_tokens=int(sys.argv[2]) if len(sys.argv) == 3 else 128)
