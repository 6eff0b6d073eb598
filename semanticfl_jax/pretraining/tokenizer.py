"""A byte-pair tokenizer in CLIP's layout, trained on the names."""

import json
from pathlib import Path

from semanticfl_jax.optional import optional_imports
from semanticfl_jax.pretraining import files

START, END = "<|startoftext|>", "<|endoftext|>"
#: How CLIP cuts a text into words before byte pairs are merged (Radford et al. 2021, their code).
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def write(directory: Path, texts: list[str], vocab_size: int, context: int) -> None:
    """Learn byte-pair merges from `texts` and write what `CLIPTokenizer.from_pretrained` reads.

    The vocabulary is ordered as CLIP's: the 256 byte symbols, the same at a word's end, the merges,
    start, end; the end of the text has the largest id, as some readers of CLIP's pooling assume.

    Args:
      directory: gets vocab.json, merges.txt, tokenizer_config.json, special_tokens_map.json.
      texts: the names.
      vocab_size: at most so many tokens, at least 514.
      context: tokens of a prompt, start and end included.
    """
    with optional_imports("diffusion", "pre-training"):
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    merges = [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]
    merges = merges[: vocab_size - 2 * len(alphabet) - 2]

    tokens = alphabet + [symbol + "</w>" for symbol in alphabet] + ["".join(m) for m in merges]
    tokens = [*dict.fromkeys(tokens), START, END]
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges), ""]
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": context,
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
    }
    vocabulary = json.dumps({token: i for i, token in enumerate(tokens)}, ensure_ascii=False)
    files.write_text(directory / "vocab.json", vocabulary)
    files.write_text(directory / "merges.txt", "\n".join(lines))
    files.write_json(directory / "tokenizer_config.json", settings | special)
    files.write_json(directory / "special_tokens_map.json", special)


def load(directory: Path):
    """Load the `CLIPTokenizerFast` of a directory: as `CLIPTokenizer`, quicker on many names."""
    with optional_imports("diffusion", "pre-training"):
        from transformers import CLIPTokenizerFast

    return CLIPTokenizerFast.from_pretrained(directory)


def encode(tokenizer, texts: list[str]):
    """Return token ids int32 [len(texts), context]: start, text (maybe cut), end, padding."""
    padding = {"padding": "max_length", "truncation": True}
    return tokenizer(texts, return_tensors="np", **padding)["input_ids"].astype("int32")
