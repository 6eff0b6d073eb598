"""What pieces of a user's own algorithm return wrongly is named, before anything is compiled."""

import jax
import jax.numpy as jnp
import pytest

import semanticfl_jax as sfl
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.federated.contracts import require_server_step
from tests.federation import CLASSES, SoftmaxRegression, noise_images

CONFIG = sfl.ExperimentConfig(
    num_clients=3,
    clients_per_round=2,
    rounds=1,
    local_epochs=1,
    public_per_class=0,
    augmentation=(),
    runtime=sfl.RuntimeConfig(num_devices=1),
)


def start(**pieces):
    algorithm = sfl.Algorithm(name="mine", **pieces)
    model, dataset = SoftmaxRegression(CLASSES), noise_images()
    sfl.Simulation(CONFIG, dataset=dataset, model=model, algorithm=algorithm, say=None).close()


def test_a_term_must_be_a_scalar():
    each = sfl.LossTerm("each", lambda inputs: inputs.mask.astype(jnp.float32))
    server = sfl.ServerRule(lambda state, params, aggregate: (params, state))
    with pytest.raises(SemanticFLError, match=r"LossTerm.loss of each must return a scalar"):
        start(server=server, terms=(each,))


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (lambda state, params, aggregate: params, "got a dict"),
        (lambda state, params, aggregate: (state, params), "params with the structure it was"),
        (
            lambda state, params, aggregate: (
                jax.tree.map(lambda x: x.astype(jnp.bfloat16), params),
                state,
            ),
            r"params/model/\S+ was float32\[4\], is bfloat16",
        ),
    ],
)
def test_a_servers_step_must_keep_the_form_of_the_model(update, message):
    expected = rf"ServerRule.update of mine must return .params, state.*{message}"
    with pytest.raises(SemanticFLError, match=expected):
        start(server=sfl.ServerRule(update))


def test_and_of_its_state():
    params, state = {"w": jnp.ones(3)}, {"moment": jnp.zeros(3)}
    assert require_server_step((params, state), params, state, "mine") == (params, state)
    with pytest.raises(SemanticFLError, match=r"state/moment was float32\[3\], is float32\[2\]"):
        require_server_step((params, {"moment": jnp.zeros(2)}), params, state, "mine")
