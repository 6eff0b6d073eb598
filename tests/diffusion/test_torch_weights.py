"""Names and layouts of single tensors; the parity tests show that whole models convert."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from semanticfl_jax.diffusion.torch_weights import convert, read, torch_names

RNG = np.random.default_rng(0)
CONV, DENSE, NORM = ("conv_in", "kernel"), ("linear_1", "kernel"), ("norm", "scale")
EXPECTED = {CONV: (3, 3, 2, 4), DENSE: (5, 6), NORM: (7,)}


def tensors():
    return {
        "conv_in.weight": RNG.normal(size=(4, 2, 3, 3)),
        "linear_1.weight": RNG.normal(size=(6, 5)),
        "norm.weight": RNG.normal(size=7),
    }


def test_layouts():
    given = tensors()
    found = convert(given, EXPECTED, "file")
    assert found[CONV][0, 2, 1, 3] == given["conv_in.weight"][3, 1, 0, 2]
    np.testing.assert_array_equal(found[DENSE], given["linear_1.weight"].T)
    np.testing.assert_array_equal(found[NORM], given["norm.weight"])


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("up_blocks_1/attentions_2/to_out_0/bias", ["up_blocks.1.attentions.2.to_out.0.bias"]),
        ("time_embedding/linear_2/kernel", ["time_embedding.linear_2.weight"]),
        ("text_model/embeddings/token_embedding/embedding", None),
        ("mid_block/attentions_0/query/kernel", None),
    ],
)
def test_names(path, names):
    special = {
        "embedding": ["text_model.embeddings.token_embedding.weight"],
        "kernel": ["mid_block.attentions.0.to_q.weight", "mid_block.attentions.0.query.weight"],
    }
    assert torch_names(tuple(path.split("/"))) == (names or special[path.rsplit("/", 1)[1]])


def test_names_of_attention_before_diffusers_0_17():
    expected = {("attentions_0", "proj_attn", "kernel"): (2, 3)}
    weight = RNG.normal(size=(3, 2))
    for name in ("attentions.0.proj_attn.weight", "attentions.0.to_out.0.weight"):
        (found,) = convert({name: weight}, expected, "file").values()
        np.testing.assert_array_equal(found, weight.T)


def test_pointwise_convolutions_and_linear_maps_are_interchangeable():
    weight = RNG.normal(size=(3, 2))
    as_linear = convert(
        {"a.b.weight": weight[:, :, None, None]}, {("a", "b", "kernel"): (2, 3)}, ""
    )
    as_conv = convert({"a.b.weight": weight}, {("a", "b", "kernel"): (1, 1, 2, 3)}, "")
    np.testing.assert_array_equal(as_linear["a", "b", "kernel"], weight.T)
    np.testing.assert_array_equal(as_conv["a", "b", "kernel"][0, 0], weight.T)


def test_every_tensor_and_parameter_is_accounted_for():
    given = tensors()
    with pytest.raises(
        ValueError, match=r"file does not fit .* missing: norm.weight; unexpected: x"
    ):
        convert(
            {**{k: v for k, v in given.items() if k != "norm.weight"}, "x": RNG.normal(size=1)},
            EXPECTED,
            "file",
        )
    convert(given | {"text_model.embeddings.position_ids": np.arange(3)}, EXPECTED, "file")
    with pytest.raises(ValueError, match=r"norm/scale has shape \(8,\), .* asks for \(7,\)"):
        convert(given | {"norm.weight": RNG.normal(size=8)}, EXPECTED, "file")


def test_long_lists_of_names_are_cut():
    with pytest.raises(ValueError, match=r"n0, n1, n10, n11, n12, ... \(20 in all\)"):
        convert(tensors() | {f"n{i}": np.zeros(1) for i in range(20)}, EXPECTED, "file")


def test_damaged_files_are_named(tmp_path):
    whole = tmp_path / "whole.safetensors"
    save_file(tensors(), whole)
    assert set(read(whole, EXPECTED)) == set(EXPECTED)
    for name, content in (("a.safetensors", whole.read_bytes()[:-9]), ("b.msgpack", b"\xc1")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} is not a whole"):
            read(tmp_path / name, EXPECTED)
