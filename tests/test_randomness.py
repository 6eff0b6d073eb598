"""The streams of a run: numbers that never change, and draws that do not meet."""

import itertools

import jax
import numpy as np

from semanticfl_jax.randomness import (
    HostStream,
    Stream,
    client_key,
    host_generator,
    round_keys,
    run_key,
)


def test_streams_keep_their_numbers():
    # Other numbers would give other results for the same seed.
    assert {stream.name: int(stream) for stream in Stream} == {
        "COHORT": 0,
        "LOCAL_TRAINING": 1,
        "INITIAL_PARAMETERS": 2,
        "ORDER": 3,
        "DROPOUT": 4,
        "CLIENT_RULE": 5,
        "TRANSFORMS": 6,
        "AGGREGATOR": 7,
        "SERVER_RULE": 8,
        "ENCODING": 9,
        "ATTACK": 10,
        "ROOT": 11,
        "ATTACKERS": 12,
        "GENERATED_IMAGES": 13,
        "FINE_TUNING": 20,
    }
    assert {stream.name: int(stream) for stream in HostStream} == {
        "CORRUPTIONS": 101,
        "CORRUPTION_NOISE": 102,
        "CLUSTERS": 110,
        "SKETCH": 111,
        "CANARIES": 112,
        "ARRIVALS": 113,
        "ANCHORS": 0x5EED,
        "MODALITIES": 0x307988C0,
        "CLIENT_TEST": 103,
        "SIMPLEX": 104,
        "STUDENTS": 107,
        "STUDENT_TARGETS": 108,
        "DISTILLATION": 105,
        "TRAIN_LIMIT": 106,
    }


def test_a_rounds_keys_are_those_of_its_streams():
    key = run_key(3)
    keys = round_keys(key, 5)
    for stream, found in zip((1, 5, 6, 7, 8, 9, 10, 11), keys, strict=True):
        expected = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), stream), 5)
        assert found == expected
        assert client_key(found, 9) == jax.random.fold_in(expected, 9)
    other = [*round_keys(key, 6), *round_keys(run_key(4), 5)]
    drawn = [int(jax.random.bits(each)) for each in [*keys, *other]]
    assert len(set(drawn)) == len(drawn)


def test_host_streams_do_not_meet():
    drawn = [host_generator(0, stream).integers(2**60) for stream in HostStream]
    drawn += [host_generator(0, HostStream.CORRUPTIONS, part).integers(2**60) for part in (1, 2)]
    assert all(a != b for a, b in itertools.combinations(drawn, 2))
    np.testing.assert_array_equal(
        host_generator(7, HostStream.CORRUPTION_NOISE, 4).random(3),
        np.random.default_rng([7, 102, 4]).random(3),
    )
