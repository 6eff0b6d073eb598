"""What pieces of a user's own algorithm return wrongly is named, before anything is compiled."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

import semanticfl_jax as sfl
from semanticfl_jax.algorithms.aggregators import mean
from semanticfl_jax.algorithms.transforms import UpdateTransform
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.federated.contracts import require_server_step
from tests.federation import CLASSES, SoftmaxRegression, noise_images

SERVER = sfl.ServerRule(lambda state, params, aggregate: (params, state))
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


def test_a_term_must_return():
    with pytest.raises(SemanticFLError, match=r"LossTerm.loss of none must .*got a NoneType"):
        start(server=SERVER, terms=(sfl.LossTerm("none", lambda inputs: None),))


@pytest.mark.parametrize("nothing", [{}, None, ()])
def test_rules_may_keep_nothing_in_any_form(nothing):
    def carry_nothing(seen):
        return descent(seen, own=nothing)

    rule = sfl.ClientRule(
        lambda trained: sfl.Finished(nothing), init=lambda model: nothing, descend=carry_nothing
    )
    start(server=SERVER, client=rule)


def test_a_term_applies_the_network_to_models():
    def loss(inputs):
        return jnp.mean(inputs.apply(inputs.received.params).logits)

    with pytest.raises(SemanticFLError, match=r"TermInputs.apply takes a .*Model, .*got a dict"):
        start(server=SERVER, terms=(sfl.LossTerm("mine", loss),))


KINDS = {
    "server": (
        {"server": SERVER.update},
        "server of mine must be of the kind ServerRule, got <function",
    ),
    "client": (
        {"client": SERVER.update},
        "client of mine must be of the kind ClientRule, got <function",
    ),
    "terms": (
        {"terms": sfl.LossTerm("one", lambda inputs: 0.0)},
        r"terms of mine must be a tuple, \(a LossTerm,\), got a LossTerm",
    ),
    "term": ({"terms": (SERVER.update,)}, "each of the terms of mine must be of the kind LossTerm"),
    "transforms": (
        {"transforms": ("clip",)},
        "transforms of mine must be of the kind UpdateTransform, got '",
    ),
    "aggregator": (
        {"aggregator": "mean"},
        "aggregator of mine must be of the kind Aggregator, got 'mean'",
    ),
}


@pytest.mark.parametrize("case", KINDS)
def test_pieces_are_of_their_kinds(case):
    pieces, message = KINDS[case]
    with pytest.raises(SemanticFLError, match=message):
        sfl.Algorithm("mine", **{"server": SERVER, **pieces})


def test_a_clients_rule_is_functions_and_begins_in_one_way():
    with pytest.raises(SemanticFLError, match=r"ClientRule.finish must be a function, got Fini"):
        sfl.ClientRule(sfl.Finished(()))
    for name in ("start", "carries"):
        with pytest.raises(SemanticFLError, match=rf"ClientRule.{name} must be left out beside be"):
            sfl.ClientRule(other, begin=lambda seen: (seen.received, ()), **{name: other})


def test_a_term_must_be_a_scalar():
    each = sfl.LossTerm("each", lambda inputs: inputs.mask.astype(jnp.float32))
    with pytest.raises(SemanticFLError, match=r"LossTerm.loss of each must return a scalar"):
        start(server=SERVER, terms=(each,))


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (lambda state, params, aggregate: params, "got a dict"),
        (
            lambda state, params, aggregate: (state, params),
            r"params lacks params/model/Dense_0/bias",
        ),
        (
            lambda state, params, aggregate: (
                jax.tree.map(lambda x: x.astype(jnp.bfloat16), params),
                state,
            ),
            r"params/model/\S+ must be float32\[4\], got bfloat16",
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
    with pytest.raises(
        SemanticFLError, match=r"state/moment must be float32\[3\], got float32\[2\]"
    ):
        require_server_step((params, {"moment": jnp.zeros(2)}), params, state, "mine")


def zeros(model):
    return jax.tree.map(jnp.zeros_like, model.params)


def other(trained, state=(), **also):
    del trained
    return sfl.Finished(state, **also)


def descent(seen, **wrong):
    (loss, statistics), gradient = seen.value_and_grad(seen.model)
    return sfl.Descent(loss, statistics, gradient, seen.own)._replace(**wrong)


CLIENTS = {
    "no_finished": (
        {"finish": lambda trained: (trained.state, None)},
        r"ClientRule.finish of mine must return semanticfl_jax.Finished\(.*got a tuple",
    ),
    "other_type": (
        {"finish": lambda t: sfl.Finished(t.state + 0.5), "init": lambda model: jnp.int32(0)},
        r"with the state that init makes: state must be int32\[\], got float32\[\]",
    ),
    "other_tree": (
        {"finish": lambda t: sfl.Finished({"a": t.rate})},
        "with the state that init makes: state has also state/a",
    ),
    "update": (
        {"finish": lambda t: sfl.Finished((), update=t.model)},
        "Finished with an update like params: update lacks update/model/Dense_0/bias",
    ),
    "correction": (
        {"finish": other, "correction": lambda state, broadcast: {"model": jnp.zeros(3)}},
        "ClientRule.correction of mine must return a tree like params: correction lacks",
    ),
    "start": (
        {"finish": other, "start": lambda state, model, broadcast: model.params},
        r"ClientRule.start of mine must return a model, the model a Model, got a dict",
    ),
    "start_form": (
        {"finish": other, "start": lambda state, model, broadcast: sfl.Model({}, {})},
        r"ClientRule.start of mine must return a model: model lacks model/params/model/Dense_0",
    ),
    "begin": (
        {"finish": other, "begin": lambda seen: seen.received},
        r"ClientRule.begin of mine must return \(model, own\), got a Model",
    ),
    "begin_form": (
        {"finish": other, "begin": lambda seen: (seen.received._replace(params={}), ())},
        r"ClientRule.begin of mine must return \(model, own\): model lacks model/params/model",
    ),
    "carries": (
        {"finish": other, "carries": lambda *seen: {"a": "none"}},
        r"ClientRule.carries of mine must return a tree of arrays, got a str",
    ),
    "descend": (
        {"finish": other, "descend": lambda seen: seen.value_and_grad(seen.model)},
        r"ClientRule.descend of mine must return semanticfl_jax.Descent\(loss, .*got a tuple",
    ),
    "descend_no_loss": (
        {"finish": other, "descend": lambda seen: descent(seen, loss=None)},
        r"Descent with a scalar loss, got a NoneType",
    ),
    "descend_loss": (
        {"finish": other, "descend": lambda seen: descent(seen, loss=jnp.zeros(2))},
        r"Descent with a scalar loss, got an array \[2\]",
    ),
    "descend_gradient": (
        {"finish": other, "descend": lambda seen: descent(seen, gradient={})},
        r"Descent with a gradient like params: gradient lacks gradient/model/Dense_0",
    ),
    "descend_statistics": (
        {"finish": other, "descend": lambda seen: descent(seen, batch_stats={"mean": 0.0})},
        r"Descent with running statistics of their form: batch_stats has also batch_stats/mean",
    ),
    "descend_own": (
        {"finish": other, "descend": lambda seen: descent(seen, own=seen.rate)},
        r"Descent with own as it was before the step: own has also own",
    ),
    "descend_params": (
        {"finish": other, "descend": lambda seen: seen.value_and_grad(seen.model.params)},
        r"value_and_grad takes a semanticfl_jax.Model, .*got a dict",
    ),
    "begin_params": (
        {"finish": other, "begin": lambda seen: seen.value_and_grad(seen.received.params, 0)},
        r"value_and_grad takes a semanticfl_jax.Model, .*got a dict",
    ),
    "words": (
        {"finish": lambda t: sfl.Finished(t.state), "init": lambda model: {"a": "none"}},
        "ClientRule.init of mine must return a tree of arrays, got a str in it: 'none'",
    ),
}


@pytest.mark.parametrize("case", CLIENTS)
def test_a_clients_rule_must_keep_its_forms(case):
    functions, message = CLIENTS[case]
    with pytest.raises(SemanticFLError, match=message):
        start(server=SERVER, client=sfl.ClientRule(**functions))


TRANSFORMS = {
    "alone": (lambda update, state, key: update, "apply of mine must return .*, got a Model"),
    "other": (lambda update, state, key: (update.params, state), "update lacks update/params"),
    "state": (lambda update, state, key: (update, key), "state has also state"),
}


@pytest.mark.parametrize("case", TRANSFORMS)
def test_and_so_must_a_transform(case):
    apply, message = TRANSFORMS[case]
    with pytest.raises(SemanticFLError, match=message):
        start(server=SERVER, transforms=(UpdateTransform("mine", apply),))


def test_an_aggregator_returns_an_update_and_its_state():
    base = mean()
    parameters = dataclasses.replace(base, finish=lambda total, key: total.params)
    with pytest.raises(SemanticFLError, match=r"Aggregator.finish of mean .*lacks update/params"):
        start(server=SERVER, aggregator=parameters)
    alone = dataclasses.replace(base, start=lambda model: 0, finish=lambda total, key, state: total)
    with pytest.raises(SemanticFLError, match=r"mean, which has start, .*got a Model"):
        start(server=SERVER, aggregator=alone)


def test_weights_are_one_for_each_client():
    with pytest.raises(SemanticFLError, match=r"the weights of mine must be one .*\[2\].*\[\]"):
        start(server=SERVER, weights=lambda sizes, counts: 1 / jnp.sum(sizes > 0))


def test_numbers_are_arrays():
    """Python's numbers, wherever a state begins."""

    def loss(inputs):
        return 0 * inputs.params["scale"] * jnp.sum(inputs.outputs.logits)

    def update(state, params, aggregate):
        return params, state + 1

    rounds = sfl.ClientRule(lambda trained: sfl.Finished(trained.state + 1), init=lambda model: 0)
    start(
        server=sfl.ServerRule(update, init=lambda model: 0.0),
        client=rounds,
        terms=(sfl.LossTerm("mine", loss, init=lambda key: {"scale": 1.0}),),
    )


CONSTANT = jnp.zeros(2)


@pytest.mark.parametrize("init", ["model", "twice", "constant"])
def test_states_may_share_memory(init):
    """With the model, within themselves, and with arrays that the user keeps for other runs."""
    made = {
        "model": lambda model: model.params,
        "twice": lambda model: {"m": CONSTANT, "v": CONSTANT},
        "constant": lambda model: CONSTANT,
    }[init]
    own = {"model": lambda key: {}, "twice": lambda key: made(None), "constant": made}[init]
    kept = dataclasses.replace(
        mean(), start=made, finish=lambda totals, key, state: (totals, state)
    )
    algorithm = sfl.Algorithm(
        "mine",
        sfl.ServerRule(lambda state, params, aggregate: (params, state), init=made),
        aggregator=kept,
        terms=(sfl.LossTerm("mine", lambda inputs: 0.0, init=own),),
    )
    model, dataset = SoftmaxRegression(CLASSES), noise_images()
    for _ in range(2):
        sfl.run(CONFIG, dataset=dataset, model=model, algorithm=algorithm, say=None, progress=False)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", "b", "a"), "a term of mine must have a name of its own, got 'a', which another"),
        (("model",), "got 'model', which the network's parameters have"),
    ],
)
def test_terms_have_names_of_their_own(names, message):
    terms = tuple(sfl.LossTerm(name, lambda inputs: 0.0) for name in names)
    with pytest.raises(SemanticFLError, match=message):
        sfl.Algorithm("mine", SERVER, terms=terms)


@pytest.mark.parametrize("count", [139, 141])
def test_rows_of_single_images_are_one_for_each(count):
    rows = {"target": jnp.zeros((count, 2))}
    term = sfl.LossTerm("mine", lambda inputs: jnp.sum(inputs.rows["target"]), per_sample=rows)
    message = rf"per_sample/target of the term mine .* each of the 140 .*, got \[{count}, 2\]"
    with pytest.raises(SemanticFLError, match=message):
        start(server=SERVER, terms=(term,))


def test_needs_are_a_tuple():
    with pytest.raises(SemanticFLError, match=r"needs of the term mine must be a tuple, \('fea"):
        sfl.LossTerm("mine", lambda inputs: 0.0, needs="features")


def measuring(figures):
    return sfl.ClientRule(lambda trained: sfl.Finished((), figures=figures))


def server(figures):
    return sfl.ServerRule(lambda state, x, aggregate: (x, state), figures=lambda *_: figures)


COUNTS = dataclasses.replace(
    mean(),
    finish=lambda totals, key, count: (totals, count + 1),
    start=lambda model: 0,
    figures=lambda count: {"count": count},
)
FIGURES = {
    "list": (
        {"client": measuring([1.0])},
        "the figures of ClientRule.finish of mine must be scalars by name, a dict, got a list",
    ),
    "array": (
        {"client": measuring({"a": jnp.zeros(3)})},
        r"of ClientRule.finish of mine must be scalars by name: a is an array \[3\]",
    ),
    "name": ({"client": measuring({1: 1.0})}, "must be scalars by name, got the name 1"),
    "text": (
        {"server": server({"a": "high"})},
        "figures of ServerRule.figures of mine must be scalars by name: a is a str",
    ),
    "aggregator": (
        {"aggregator": dataclasses.replace(COUNTS, figures=lambda count: count)},
        "of Aggregator.figures of mean must be scalars by name, a dict",
    ),
    "row": (
        {"server": server({"seconds": 1.0})},
        "of ServerRule.figures of mine must have names of their own, got 'seconds', which the row",
    ),
    "loss": ({"client": measuring({"train_loss": 1.0})}, "got 'train_loss', which the row has"),
    "test": ({"client": measuring({"ece": 1.0})}, "got 'ece', which the row has"),
    "clients": ({"client": measuring({"personal_client_loss": 1.0})}, "which the row has"),
    "term": (
        {
            "server": server({"train_loss_near": 1.0}),
            "terms": (sfl.LossTerm("near", lambda inputs: 0.0),),
        },
        "got 'train_loss_near', which the terms of mine has already",
    ),
    "two": (
        {"server": server({"a": 1.0}), "client": measuring({"a": 1.0})},
        "ServerRule.figures of mine .* got 'a', which ClientRule.finish of mine has already",
    ),
    "three": (
        {"client": measuring({"count": 1.0}), "aggregator": COUNTS},
        "got 'count', which Aggregator.figures of mean has already",
    ),
}


@pytest.mark.parametrize("case", FIGURES)
def test_figures_are_scalars_with_names_of_their_own(case):
    pieces, message = FIGURES[case]
    with pytest.raises(SemanticFLError, match=message):
        start(**{"server": SERVER, **pieces})
