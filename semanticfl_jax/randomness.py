"""Every random stream of a run, by name, and the keys and generators that are drawn from it.

A run has one seed. On the devices it becomes one key; a stream is a number folded into that key,
after it the round and the client's id, if the stream depends on them. Nothing else goes into a key,
so that results depend neither on chunks nor on devices, and a resumed run draws what it would have
drawn. On the host, streams are NumPy generators that are seeded with the seed and the stream's
number. A number is never given to another stream: results of old runs would change.
"""

import enum
import zlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Stream(enum.IntEnum):
    """What is drawn on the devices, and what it depends on besides the seed."""

    #: Which clients take part: the round.
    COHORT = 0
    #: A client's training, `LocalKeys`: the round and the client.
    LOCAL_TRAINING = 1
    #: The initial parameters of the model and of the loss terms: nothing.
    INITIAL_PARAMETERS = 2
    #: The order in which `round_robin` takes the clients: nothing.
    ORDER = 3
    #: Which clients drop out: the round and the client.
    DROPOUT = 4
    #: `ClientRule.finish`: the round and the client.
    CLIENT_RULE = 5
    #: `UpdateTransform.apply`: the round, the client and the transform's place in the algorithm.
    TRANSFORMS = 6
    #: `Aggregator.finish`, the noise of central privacy: the round.
    AGGREGATOR = 7
    #: `ServerRule.update`: the round.
    SERVER_RULE = 8
    #: `Aggregator.encode`: the round and the client.
    ENCODING = 9
    #: What attackers send: the round and the client.
    ATTACK = 10
    #: The server's own training, `LocalKeys`: the round.
    ROOT = 11
    #: Which clients attack: nothing.
    ATTACKERS = 12
    #: What generated images start from, of a seed that is not the run's: the image's place.
    GENERATED_IMAGES = 13
    #: Fine-tuning before a test on a client's own images, `LocalKeys`: the round and the client.
    FINE_TUNING = 20


class HostStream(enum.IntEnum):
    """What is drawn on the host; the partition is drawn from the seed alone."""

    #: Which clients are corrupted, how and how badly: which of the three.
    CORRUPTIONS = 101
    #: Noise on a corrupted client's images: the image's index.
    CORRUPTION_NOISE = 102
    #: Anchors that replace the semantic ones, for controls.
    ANCHORS = 0x5EED
    #: Which of their images clients keep for testing.
    CLIENT_TEST = 103
    #: The simplex of FedETF.
    SIMPLEX = 104
    #: What sets IFCA's initial models apart.
    CLUSTERS = 110
    #: The hashes of count sketches.
    SKETCH = 111
    #: The speeds of clients that train at their own pace, and who replaces whom.
    ARRIVALS = 113
    #: Which canaries of an audit take part, and their labels.
    CANARIES = 112
    #: Which clients lack a modality.
    MODALITIES = zlib.crc32(b"modality")
    #: Which clients lack the student.
    STUDENTS = 107
    #: The order in which a control permutes the student's targets among the images.
    STUDENT_TARGETS = 108
    #: The images that a student is distilled on, those held out, and the order of its batches.
    DISTILLATION = 105
    #: The training images that clients share, if they are limited.
    TRAIN_LIMIT = 106


def run_key(seed: int) -> jax.Array:
    """Return the key of a run, of which all others are made."""
    return jax.random.key(seed)


def stream_key(key: jax.Array, stream: Stream) -> jax.Array:
    """Return a stream's key, of the run's `key`."""
    return jax.random.fold_in(key, int(stream))


def round_key(key: jax.Array, stream: Stream, number: jax.Array) -> jax.Array:
    """Return a stream's key in round `number`, int32 scalar, of the run's `key`."""
    return jax.random.fold_in(stream_key(key, stream), number)


def client_key(key: jax.Array, client: jax.Array) -> jax.Array:
    """Return the key of `client`, int32 scalar, of a stream's key in a round."""
    return jax.random.fold_in(key, client)


class RoundKeys(NamedTuple):
    """A round's keys, one for each stream that the training of its cohort draws from.

    Attributes:
      local_training: to be made a client's by `client_key`.
      client_rule: to be made a client's by `client_key`.
      transforms: to be made a client's by `client_key`.
      aggregator: of the whole round.
      server_rule: of the whole round.
      encoding: to be made a client's by `client_key`.
      attack: to be made a client's by `client_key`.
      root: of the whole round.
    """

    local_training: jax.Array
    client_rule: jax.Array
    transforms: jax.Array
    aggregator: jax.Array
    server_rule: jax.Array
    encoding: jax.Array
    attack: jax.Array
    root: jax.Array


def round_keys(key: jax.Array, number: jax.Array) -> RoundKeys:
    """Return the keys of round `number`, int32 scalar, of the run's `key`."""
    return RoundKeys(*(round_key(key, Stream[name.upper()], number) for name in RoundKeys._fields))


class LocalKeys(NamedTuple):
    """What a client's training draws from.

    Attributes:
      order: of its samples in each epoch, see `epoch_keys`.
      steps: augmentation and dropout layers, see `step_keys`.
      work: how many steps a straggler does.
    """

    order: jax.Array
    steps: jax.Array
    work: jax.Array


def local_keys(key: jax.Array) -> LocalKeys:
    """Return the keys of a client's training, of its key in the stream `LOCAL_TRAINING`."""
    return LocalKeys(*jax.random.split(key, 3))


def epoch_keys(order_key: jax.Array, epochs: int) -> jax.Array:
    """Return a key for each epoch, [epochs]."""
    return jax.vmap(jax.random.fold_in, (None, 0))(order_key, jnp.arange(epochs))


def step_keys(steps_key: jax.Array, index: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the keys of augmentation and of dropout layers in step `index`, int32 scalar."""
    augmentation, dropout = jax.random.split(jax.random.fold_in(steps_key, index))
    return augmentation, dropout


def host_generator(seed: int, stream: HostStream, *index: int) -> np.random.Generator:
    """Return the generator of a host's stream, at a place in it if it has several."""
    return np.random.default_rng([seed, int(stream), *index])
