"""Stage 1: a small CLIP text tower that takes over a sentence encoder's sense of similarity.

The pooled output itself carries it (no projection head): it is trained towards the teacher's
embedding, projected to the tower's width by the singular vectors that keep most of it, and towards
the teacher's similarities within the batch (relational distillation, Park et al. 2019). [ours]
"""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from semanticfl_jax.config import ConfigError
from semanticfl_jax.optional import optional_imports
from semanticfl_jax.pretraining import files, loop, tokenizer
from semanticfl_jax.pretraining.config import TextConfig


def clip_config(config: TextConfig, vocab_size: int):
    """Return the `CLIPTextConfig` of the tower."""
    with optional_imports("diffusion", "pre-training"):
        from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=vocab_size,
        hidden_size=config.width,
        intermediate_size=4 * config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        max_position_embeddings=config.context,
        projection_dim=config.width,
        bos_token_id=vocab_size - 2,
        eos_token_id=vocab_size - 1,
        pad_token_id=vocab_size - 1,
    )


def build(config: TextConfig, vocab_size: int):
    """Return the tower, an object without parameters: call it with `params=`."""
    with optional_imports("diffusion", "pre-training"):
        from transformers import FlaxCLIPTextModel

    return FlaxCLIPTextModel(clip_config(config, vocab_size), _do_init=False)


def load(directory: Path):
    """Return the tower of a checkpoint's `text_encoder/`, an object without parameters."""
    with optional_imports("diffusion", "pre-training"):
        from transformers import CLIPTextConfig, FlaxCLIPTextModel

    return FlaxCLIPTextModel(
        CLIPTextConfig.from_pretrained(directory / "text_encoder"), _do_init=False
    )


def projection(teacher: np.ndarray, width: int) -> np.ndarray:
    """Return [d, width]: the leading right singular vectors of the teacher's embeddings [n, d].

    They are not centred: the projection keeps inner products, hence cosines, as well as any can.
    """
    _, vectors = np.linalg.eigh(teacher.T @ teacher)
    return vectors[:, ::-1][:, :width].copy()


def unit(rows: jax.Array) -> jax.Array:
    """Return rows [n, d] divided by their norms."""
    return rows / jnp.maximum(jnp.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def token_means(ids: np.ndarray, wanted: np.ndarray, vocab_size: int) -> np.ndarray:
    """Return a token's mean of `wanted` over the texts that hold it, less that over all texts.

    A head start for the token embeddings: a token begins near the meaning of its names.

    Args:
      ids: [n, context] token ids.
      wanted: [n, width] embeddings of the texts.
      vocab_size: number of tokens.

    Returns:
      [vocab_size, width] float32 of unit variance; zero for tokens in no text.
    """
    texts = np.repeat(np.arange(len(ids)), ids.shape[1])
    holds = np.unique(np.stack([ids.ravel(), texts], 1), axis=0)
    sums = np.zeros((vocab_size, wanted.shape[1]), np.float32)
    np.add.at(sums, holds[:, 0], (wanted - wanted.mean(0))[holds[:, 1]])
    means = sums / np.maximum(np.bincount(holds[:, 0], minlength=vocab_size), 1)[:, None]
    return means / max(means.std(), 1e-6)


def distillation_loss(pooled: jax.Array, teacher: jax.Array, basis: jax.Array) -> dict:
    """Return `loss` = `cosine` + `relation`.

    `cosine` is the mean of 1 - cos(pooled_i, teacher_i basis); `relation` is the squared error of
    the similarities within the batch, in units of the variance of the teacher's.

    Args:
      pooled: [batch, width].
      teacher: [batch, d] unit rows.
      basis: [d, width].
    """
    student = unit(pooled)
    cosine = 1 - (student * unit(teacher @ basis)).sum(1).mean()
    wanted = teacher @ teacher.T
    relation = ((student @ student.T - wanted) ** 2).mean() / wanted.var()
    return {"loss": cosine + relation, "cosine": cosine, "relation": relation}


def length_buckets(ids: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return (padded length, rows) for the short three quarters, the next fifth and the rest.

    In a causal tower padding after a text's end changes nothing but the time it takes.
    """
    end = ids.max()
    lengths = (ids == end).argmax(1) + 1
    edges = sorted({int(np.quantile(lengths, q)) for q in (0.75, 0.95)} | {ids.shape[1]})
    lower = [0, *edges[:-1]]
    buckets = [
        (edge, np.flatnonzero((lengths > low) & (lengths <= edge)))
        for low, edge in zip(lower, edges, strict=True)
    ]
    return [bucket for bucket in buckets if len(bucket[1])]


class Batches:
    """Batches of (ids, teacher embeddings): an epoch's order depends on (seed, epoch) alone."""

    def __init__(self, ids: np.ndarray, teacher: np.ndarray, batch_size: int, seed: int):
        self.ids, self.teacher = ids, teacher
        self.batch_size, self.seed = batch_size, seed
        self.buckets = length_buckets(ids)
        self.per_epoch = sum(-(-len(rows) // batch_size) for _, rows in self.buckets)
        self.epoch = -1

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        """Return the batch of a step; a bucket's last batch is filled with repeated rows."""
        epoch, index = divmod(step, self.per_epoch)
        if epoch != self.epoch:
            rng = np.random.default_rng([self.seed, epoch])
            batches = []
            for length, rows in self.buckets:
                order = rng.permutation(rows)
                count = -(-len(rows) // self.batch_size)
                order = np.resize(order, count * self.batch_size)
                batches += [(length, part) for part in np.split(order, count)]
            self.order = [batches[i] for i in rng.permutation(len(batches))]
            self.epoch = epoch
        length, rows = self.order[index]
        return {"ids": self.ids[rows, :length], "teacher": self.teacher[rows]}


def train(
    config: TextConfig,
    directory: Path,
    workdir: Path,
    names: list[str],
    teacher: np.ndarray,
    held_out: dict[str, tuple[list[str], np.ndarray]],
    prompt: str,
    seed: int,
    checkpoint_every: int,
    log_every: int,
) -> tuple[Any, dict[str, float]]:
    """Train the tower and write `tokenizer/` and `text_encoder/` under `directory`.

    Args:
      config: sizes and schedule.
      directory: the checkpoint, in diffusers' layout.
      workdir: for the stage's own checkpoint and curve.
      names: the names to learn from.
      teacher: [len(names), d] float32 unit rows, of `prompt` with each name.
      held_out: per list, its names and their teacher embeddings.
      prompt: a text with one {}.
      seed: of initialisation and order.
      checkpoint_every: steps between checkpoints.
      log_every: steps between lines of the curve.

    Returns:
      (parameters as saved, by list the rank correlation of student and teacher similarities).
    """
    texts = [prompt.format(name) for name in names]
    if not (directory / "tokenizer" / "special_tokens_map.json").is_file():
        tokenizer.write(directory / "tokenizer", texts, config.vocab_size, config.context)
    clip_tokenizer = tokenizer.load(directory / "tokenizer")
    model = build(config, len(clip_tokenizer))
    ids = tokenizer.encode(clip_tokenizer, texts)
    batches = Batches(ids, teacher, config.batch_size, seed)
    steps = config.steps(batches.per_epoch)

    optimiser = loop.adamw(config.learning_rate, steps, config.warmup, config.weight_decay)
    basis = projection(teacher, config.width)
    params = jax.jit(partial(model.init_weights, input_shape=(1, 4)))(jax.random.key(seed))
    table = params["text_model"]["embeddings"]["token_embedding"]
    table["embedding"] += 0.1 * token_means(ids, teacher @ basis, len(clip_tokenizer))
    state = {"params": params, "optimiser": optimiser.init(params)}

    def step(state, batch, key):
        del key  # nothing is random but the order

        def loss_fn(params):
            pooled = model(batch["ids"], params=params).pooler_output
            losses = distillation_loss(pooled, batch["teacher"], basis)
            return losses["loss"], losses

        gradients, losses = jax.grad(loss_fn, has_aux=True)(state["params"])
        updates, optimiser_state = optimiser.update(gradients, state["optimiser"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        return {"params": params, "optimiser": optimiser_state}, losses

    held_ids = {
        name: tokenizer.encode(clip_tokenizer, [prompt.format(n) for n in list_names])
        for name, (list_names, _) in held_out.items()
    }
    pooled = jax.jit(partial(_pooled, model))

    def evaluate(state):
        return {
            f"spearman_{name}": rank_correlation(
                np.asarray(pooled(state["params"], held_ids[name])), embeddings
            )
            for name, (_, embeddings) in held_out.items()
        }

    state, curve = loop.train(
        workdir,
        "text",
        state,
        step,
        batches,
        steps,
        seed,
        config.batch_size,
        checkpoint_every,
        log_every,
        evaluate,
    )
    params = files.as_saved(state["params"])
    files.require_finite("text", params)
    encoder = directory / "text_encoder"
    settings = model.config.to_diff_dict() | {"architectures": ["CLIPTextModel"]}
    files.write_json(encoder / "config.json", settings)
    files.write_msgpack(encoder / "flax_model.msgpack", params, np.float16)
    return params, {name: curve[-1][f"spearman_{name}"] for name in held_out}


def take_over(
    source: Path, directory: Path, held_out: dict[str, tuple[list[str], np.ndarray]], prompt: str
) -> tuple[Any, dict[str, float]]:
    """Copy `tokenizer/` and `text_encoder/` of a checkpoint to `directory`, once.

    Args:
      source: a checkpoint that this module wrote.
      directory: the new one.
      held_out: as in `train`.
      prompt: a text with one {}.

    Returns:
      As `train`.

    Raises:
      ConfigError: if `source` has no such text tower.
    """
    weights = Path("text_encoder") / "flax_model.msgpack"
    if not (source / weights).is_file():
        raise ConfigError(f"text_from: {source} has no {weights}")
    if not (directory / weights).is_file():
        for part in ("tokenizer", "text_encoder"):
            shutil.copytree(source / part, directory / part, dirs_exist_ok=True)
    clip_tokenizer = tokenizer.load(directory / "tokenizer")
    pooled = jax.jit(partial(_pooled, load(directory)))
    params = files.read_msgpack(directory / weights)
    params = jax.tree.map(lambda leaf: leaf.astype(np.float32), params)
    correlations = {}
    for name, (list_names, embeddings) in held_out.items():
        ids = tokenizer.encode(clip_tokenizer, [prompt.format(n) for n in list_names])
        correlations[name] = rank_correlation(np.asarray(pooled(params, ids)), embeddings)
    return params, correlations


def _pooled(model, params, ids):
    return model(ids, params=params).pooler_output


def token_states(model, params, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return token states float32 [n, context, width] and pooled [n, width] of ids [n, context]."""
    output = jax.jit(lambda params, ids: model(ids, params=params))(params, ids)
    return np.asarray(output.last_hidden_state), np.asarray(output.pooler_output)


def rank_correlation(student: np.ndarray, teacher: np.ndarray) -> float:
    """Return Spearman's correlation of all pairs' cosine similarities, student's and teacher's.

    Args:
      student: [n, width].
      teacher: [n, d], the same texts.
    """
    upper = np.triu_indices(len(student), 1)

    def ranks(rows):
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return np.argsort(np.argsort((rows @ rows.T)[upper])).astype(np.float64)

    return float(np.corrcoef(ranks(student), ranks(teacher))[0, 1])
