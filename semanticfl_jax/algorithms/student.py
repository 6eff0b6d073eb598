"""The student's term: an image's features, mapped linearly, come near what the student sees in it.

Ours; the paper has anchors of classes alone, which tell a client no more than the label does.

    L_student = weight mean_d ( head(f(x)) - s(x) )^2

with f the client's features, s the student (`semantics/student`), which the server sends once, and
a linear head that is trained and aggregated like every other parameter. The client computes s(x)
of its own images: no image and no feature of one leaves it. State: the targets, float16, unless
they are computed in each step.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from semanticfl_jax.algorithms.base import Contact, LossTerm, TermInputs
from semanticfl_jax.config import StudentConfig
from semanticfl_jax.models.losses import masked_mean
from semanticfl_jax.randomness import HostStream, host_generator
from semanticfl_jax.semantics.student import Student
from semanticfl_jax.types import PyTree


def starts_from(student: Student, config: StudentConfig, variables: PyTree | None) -> bool:
    """Return whether a network starts from the student.

    Args:
      student: what clients receive.
      config: whether it may, and whether it must.
      variables: of the network, {"params": ..., "batch_stats": ...}, or their shapes; None: there
        is no network.
    """
    fits = variables is not None and student.fits(variables)
    return config.must_start or (config.may_start and fits)


def student_term(
    student: Student,
    config: StudentConfig,
    feature_dim: int,
    *,
    seed: int,
    starts: bool = False,
    holders: Mapping[str, np.ndarray] | None = None,
) -> LossTerm | None:
    """Return the student's term; None where clients have no targets.

    Args:
      student: what clients receive.
      config: the weight, when targets are computed, and the control.
      feature_dim: width of the clients' features.
      seed: of the run, by which the control "permuted" permutes.
      starts: whether the clients' network starts from the student (`starts_from`).
      holders: as `draw_modalities` returns them; a client without "student" drops the term.
    """
    if not config.sets_targets:
        return None

    def init(key: jax.Array) -> dict[str, jax.Array]:
        # Where the network starts from the student, so does the head: the term begins near zero,
        # as near as the images' normalisation is to that which the student was made with.
        if starts and student.head is not None:
            return jax.tree.map(jnp.asarray, student.head)
        kernel = jax.nn.initializers.lecun_normal()(key, (feature_dim, student.dim), jnp.float32)
        return {"kernel": kernel, "bias": jnp.zeros(student.dim)}

    def loss(inputs: TermInputs) -> jax.Array:
        if config.targets == "once":
            targets = inputs.rows["targets"].astype(jnp.float32)
        else:
            variables = inputs.shared["student"]
            targets = jax.lax.stop_gradient(student.of_normalized(variables, inputs.images))
        head = inputs.params
        # Full precision: accelerators round the factors of a float32 product by default.
        seen = jnp.matmul(inputs.outputs.features, head["kernel"], precision="highest")
        error = jnp.mean(jnp.square(seen + head["bias"][None] - targets), axis=-1)
        holds = inputs.holds.get("student", 1.0)
        return config.weight * holds * masked_mean(error, inputs.mask)

    def rows(shared, images: jax.Array) -> dict[str, jax.Array]:
        return {"targets": student.of_images(shared["student"], images).astype(jnp.float16)}

    def permuted(count: int) -> np.ndarray:
        return host_generator(seed, HostStream.STUDENT_TARGETS).permutation(count)

    order = permuted if config.control == "permuted" else None
    return LossTerm(
        "student",
        loss,
        shared={"student": student.variables},
        holders={name: who for name, who in (holders or {}).items() if name == "student"},
        init=init,
        needs=("features",),
        contact=Contact(rows, order) if config.targets == "once" else None,
    )
