"""Random requests of the partitioner."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.chaos.case import Case, Options

#: Requests in one case.
_EACH = 500


def cases(options: Options, scratch: Path) -> Iterator[Case]:
    """Yield random requests, some hundred together."""
    del scratch
    for start in range(0, options.partitions, _EACH):
        count = min(_EACH, options.partitions - start)
        attempt = partial(_ask, count, options.seed * options.partitions + start)
        yield Case(f"{start} to {start + count - 1}", attempt, count)


def _ask(count: int, first: int) -> str | None:
    """Ask for `count` partitions; return what was wrong with the smallest wrong one."""
    import numpy as np
    from hypothesis import given, seed, settings
    from hypothesis import strategies as st

    from semanticfl_jax import PartitionConfig
    from semanticfl_jax.data.partition import make_partition
    from semanticfl_jax.errors import SemanticFLError
    from semanticfl_jax.registry import PARTITIONS

    schemes = [name for name, entry in PARTITIONS.items() if "column" not in entry.uses]

    @seed(first)
    @settings(max_examples=count, deadline=None, database=None)
    @given(
        st.sampled_from(schemes),
        st.integers(1, 400),
        st.integers(1, 12),
        st.integers(1, 60),
        st.floats(1e-3, 1e3),
        st.integers(1, 8),
        st.tuples(st.integers(0, 60), st.integers(1, 4), st.floats(0.01, 1.0)),
        st.sampled_from([1.0, 3.0, 100.0]),
        st.integers(0, 2**31 - 1),
    )
    def ask(scheme, samples, classes, clients, alpha, shards, biased, tail, draw):
        names = ("biased_clients", "classes_per_biased", "biased_share")
        values = {
            "alpha": alpha,
            "shards_per_client": shards,
            **dict(zip(names, biased, strict=True)),
        }
        uses = PARTITIONS[scheme].uses
        chosen = {name: value for name, value in values.items() if name in uses}
        labels = np.random.default_rng(draw).integers(0, classes, samples).astype(np.int32)
        began = time.process_time()  # others may use the cores as well
        try:
            config = PartitionConfig(scheme=scheme, imbalance_factor=tail, **chosen)
            made = make_partition(config, labels, clients, seed=draw)
        except SemanticFLError:
            pass
        else:
            assert len(np.unique(made.indices)) == len(made.indices), "an index twice"
            assert made.num_clients == clients, "another number of clients"
            assert made.sizes.min() >= 1, "a client without samples"
            assert made.indices.min() >= 0, "an index below 0"
            assert made.indices.max() < samples, "an index out of range"
        assert time.process_time() - began < 10, "over 10 s"

    try:
        ask()
    except Exception as error:
        return f"{error!r:.300} {getattr(error, '__notes__', '')}"
    return None
