"""What a round measures of itself."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.base import Aggregate, Algorithm, Model
from semanticfl_jax.federated.aggregation import Totals
from semanticfl_jax.federated.client_update import all_finite
from semanticfl_jax.federated.contracts import require_figures, require_own_names
from semanticfl_jax.types import PyTree


class RoundMetrics(NamedTuple):
    """What a round measured; scalars but for the cohort.

    Attributes:
      train_loss: mean over the samples seen by the cohort, each epoch counting; NaN if nobody
        reported, or all who did are left out.
      images: samples trained on, each epoch counting.
      padding_share: share of computed batch rows that were padding.
      cohort: int32 [places], client ids; -1 in empty places.
      reported: bool [places], those of the cohort that did not drop out.
      new: bool [places], those of the cohort that were never asked before.
      diverged: bool [places], those who came to a loss, a model or an update that is not finite.
      finite: bool scalar, whether the server's model is, after the round.
      figures: float32 scalars by name: the loss's terms, and what client rule, server rule,
        aggregator and the simulated clock measure.
    """

    train_loss: jax.Array
    images: jax.Array
    padding_share: jax.Array
    cohort: jax.Array
    reported: jax.Array
    new: jax.Array
    diverged: jax.Array
    finite: jax.Array
    figures: Mapping[str, jax.Array] = {}


def measured(
    totals: Totals,
    cohort: jax.Array,
    reported: jax.Array,
    contacted: jax.Array,
    diverged: jax.Array,
    model: Model,
    own: Mapping[str, jax.Array],
) -> RoundMetrics:
    """Return what a round measured.

    Args:
      totals: over all devices.
      cohort: int32 [places], as drawn.
      reported: bool [places].
      contacted: bool [num_clients], those who were asked in the rounds before.
      diverged: bool [places].
      model: the server's, after the round.
      own: what the algorithm measured (`figures`).
    """
    return RoundMetrics(
        train_loss=totals.loss / totals.counted,
        images=totals.samples,
        padding_share=1.0 - totals.samples / totals.rows,
        cohort=cohort,
        reported=reported,
        new=(cohort >= 0) & ~contacted[cohort],
        diverged=diverged,
        finite=all_finite(model),
        figures=own,
    )


def figures(
    algorithm: Algorithm,
    totals: Totals,
    aggregate: Aggregate,
    server: PyTree,
    kept: PyTree,
    clock: Mapping[str, jax.Array],
    columns: Collection[str] = (),
) -> dict[str, jax.Array]:
    """Return what an algorithm measured in a round, scalars by name for its row.

    Args:
      algorithm: its terms, its rules and its aggregator.
      totals: over all devices.
      aggregate: what the server rule saw.
      server: that rule's state after the round.
      kept: the aggregator's.
      clock: of the simulated clock; {} without one.
      columns: other names that a row has.

    Raises:
      SemanticFLError: for what is no scalar, and for a name that the row has already.
    """
    name, aggregator, found = algorithm.name, algorithm.aggregator, {}
    if aggregator.figures is not None:
        what = f"Aggregator.figures of {aggregator.name}"
        found[what] = require_figures(aggregator.figures(kept), what)
    # Means; NaN if nobody reported.
    counted = totals.counted
    terms = {f"train_loss_{term}": total / counted for term, total in totals.terms.items()}
    found[f"the terms of {name}"] = terms
    of_clients = {figure: total[0] / total[1] for figure, total in totals.figures.items()}
    found[f"ClientRule.finish of {name}"] = of_clients
    if algorithm.server.figures is not None:
        what = f"ServerRule.figures of {name}"
        of_server = require_figures(algorithm.server.figures(server, aggregate), what)
        # Where nobody reported the server took no step, unless it had to add noise.
        stepped = (aggregate.participants > 0) | aggregator.adds_noise
        found[what] = {key: jnp.where(stepped, x, jnp.nan) for key, x in of_server.items()}
    return require_own_names({"the simulated clock": clock, **found}, columns)
