"""Names and layouts of single tensors; the parity tests show that whole models convert."""

import json
import struct

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


def raw(path, kind, size, name="conv_in.weight"):
    """A safetensors file of eight numbers of a type, written by hand."""
    header = {name: {"dtype": kind, "shape": [8], "data_offsets": [0, 8 * size]}}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(range(8 * size)))


@pytest.mark.parametrize(("kind", "size"), [("F8_E4M3", 1), ("F8_E5M2", 1), ("I8", 1), ("U8", 1)])
def test_quantised_weights_are_refused_in_a_line(tmp_path, kind, size):
    path = tmp_path / "x.safetensors"
    raw(path, kind, size)
    with pytest.raises(ValueError, match=rf"conv_in\.weight is of type {kind}; .*Convert it to fp"):
        read(path, {("conv_in", "bias"): (8,)})


def test_bfloat16_is_read_and_integer_buffers_are_passed_over(tmp_path):
    path = tmp_path / "x.safetensors"
    raw(path, "BF16", 2, "norm.weight")
    (found,) = read(path, {("norm", "scale"): (8,)}).values()
    bits = np.frombuffer(bytes(range(16)), "<u2").astype(np.uint32) << 16
    np.testing.assert_array_equal(found.astype(np.float32), bits.view(np.float32))
    raw(path, "I64", 8, "embeddings.position_ids")
    with pytest.raises(ValueError, match=r"missing: norm.weight; unexpected: none"):
        read(path, {("norm", "scale"): (8,)})


def test_weights_in_several_files_are_read_as_one(tmp_path):
    given = tensors()
    names = list(given)
    for number, part in enumerate((names[:1], names[1:])):
        save_file(
            {n: np.ascontiguousarray(given[n]) for n in part}, tmp_path / f"{number}.safetensors"
        )
    index = tmp_path / "model.safetensors.index.json"
    where = {n: f"{int(n != names[0])}.safetensors" for n in names}
    index.write_text(json.dumps({"weight_map": where}))
    found, expected = read(index, EXPECTED), convert(given, EXPECTED, "file")
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(found[path], value)
