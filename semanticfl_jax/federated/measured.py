"""What a round measures of itself."""

from collections.abc import Mapping
from typing import NamedTuple

import jax

from semanticfl_jax.algorithms.base import Model
from semanticfl_jax.federated.aggregation import Totals
from semanticfl_jax.federated.client_update import all_finite


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
      figures: scalars by name, of the aggregator.
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
) -> RoundMetrics:
    """Return what a round measured.

    Args:
      totals: over all devices.
      cohort: int32 [places], as drawn.
      reported: bool [places].
      contacted: bool [num_clients], those who were asked in the rounds before.
      diverged: bool [places].
      model: the server's, after the round.
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
    )
