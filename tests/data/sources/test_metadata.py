"""Tables beside images: encodings, forms and places, and columns that nobody asked for."""

import json
import unicodedata

import numpy as np
import pytest
from PIL import Image

from semanticfl_jax.data.sources.image_folder import load_image_folder

NAMES = [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(4)]
SITES = ["Zürich", "Genève", "Zürich", "Köln", "Köln", "Genève", "Köln", "Zürich"]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Two classes of four training images and one of test, each of its own colour."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    for i, name in enumerate([*(f"train/{n}" for n in NAMES), "test/cat/0.png", "test/dog/0.png"]):
        path = tmp_path / "x" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (i, 0, 0)).save(path)
    return tmp_path / "x"


def load(root, column="site", **options):
    return load_image_folder(root, column=column, **options)


def table(delimiter=",", names=NAMES):
    rows = [delimiter.join((name, site, "1")) for name, site in zip(names, SITES, strict=True)]
    return "\n".join([delimiter.join(("file_name", "site", "age/sex (y)")), *rows]) + "\n"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252"]
)
def test_encodings_are_told_apart(root, encoding, capsys):
    (root / "train" / "metadata.csv").write_bytes(table().encode(encoding))
    for _ in range(2):
        assert load(root)["columns"]["site"].tolist() == SITES
        said = "metadata.csv is not UTF-8: read as Windows-1252" in capsys.readouterr().err
        assert said == (encoding in ("latin-1", "cp1252"))


@pytest.mark.parametrize("content", [table().encode("utf-16-le"), b"\xff" + b"file_name\x81,\x90"])
def test_an_unknown_encoding_is_named(root, content):
    (root / "train" / "metadata.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"train/metadata\.csv: must be text in UTF-8.*save it as"):
        load(root)
    assert load(root, column=None)["columns"] == {}


@pytest.mark.parametrize("name", ["metadata.csv", "Metadata.CSV", "metadata.tsv"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters(root, name, delimiter):
    (root / "train" / name).write_text(table(delimiter).replace("\n", "\r\n"))
    assert load(root)["columns"]["site"].tolist() == SITES


def json_lines(rows):
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode() + b"\n\n"


def parquet(rows):
    import pyarrow
    from pyarrow import parquet

    content = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(rows), content)
    return content.getvalue().to_pybytes()


@pytest.mark.parametrize(("suffix", "write"), [(".jsonl", json_lines), (".parquet", parquet)])
def test_other_forms(root, suffix, write):
    rows = [{"file_name": NAMES[i], "site": SITES[i], "age": i} for i in range(8)]
    rows[0]["box"] = {"x": [1, 2]}
    (root / "train" / f"metadata{suffix}").write_bytes(write(rows))
    columns = load(root)["columns"]
    assert columns["site"].tolist() == SITES
    assert columns["age"].tolist() == [str(i) for i in range(8)]
    assert set(columns) == {"site", "age"}
    with pytest.raises(ValueError, match=r"'box' cannot be used: 7 of 8 images have no value: tra"):
        load(root, column="box")


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        (".jsonl", b'{"file_name": "a"}\n{"file', "line 2 is no JSON"),
        (".jsonl", b"[1]", "line 1 must be an object"),
        (".jsonl", b'{"name": "a"}', "must have a column file_name, has name"),
        (".jsonl", b'{"file_name": "a"}\n{"x": 1}', "row 2 has no file_name"),
        (".parquet", b"PAR1", "no whole parquet file"),
        (".csv", b"file_name,file_name\na,b\n", "two columns file_name"),
        (".csv", b'file_name,site\na,"b\n', "line 2: unexpected end of data"),
        (".csv", b"", "must have a column file_name, has none"),
        (".csv", b"file_name," + b"x" * 200_000 + b"\n", "line 1: field larger than"),
        (".jsonl", b'{"file_name": ' + b"[" * 100_000, "line 1 is no JSON"),
    ],
)
def test_damaged_tables_are_named(root, suffix, content, message):
    (root / "train" / f"metadata{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match=rf"train/metadata\{suffix}: .*{message}"):
        load(root)


def test_only_the_column_in_use_is_checked(root):
    """Any name will do, and what two columns share is left out."""
    header = 'file_name,age/sex (y),,x,x,"a\nb"'
    rows = [f"{name},{i},,1,2,3" for i, name in enumerate(NAMES)]
    (root / "train" / "metadata.csv").write_text("\n".join([header, *rows]))
    columns = load(root, column="age/sex (y)")["columns"]
    assert set(columns) == {"age/sex (y)", "a\nb"}
    assert columns["age/sex (y)"].tolist() == [str(i) for i in range(8)]
    with pytest.raises(ValueError, match="'x' cannot be used: the columns are age/sex"):
        load(root, column="x")


def test_a_table_beside_the_splits(root):
    names = [f"train/{name}" for name in NAMES]
    (root / "metadata.csv").write_text(table(names=names))
    assert load(root)["columns"]["site"].tolist() == SITES
    # Rows may be missing there, unless the column is used; nor need the files of all be there.
    rows = ["train/dog/9.png,x,1", *table(names=names).splitlines()[1:-2]]
    (root / "metadata.csv").write_text("\n".join(["file_name,site,age", *rows]))
    assert load(root, column=None)["columns"] == {}
    with pytest.raises(
        ValueError, match=r"'site' .*: 2 of 8 images have no value: train/dog/2\.png"
    ):
        load(root)


def test_names_of_files_as_they_are_written_elsewhere(root):
    path = root / "train" / "cat" / unicodedata.normalize("NFD", "ä.png")
    (root / "train" / "cat" / "0.png").rename(path)
    written = ["cat/ä.png", "./cat/1.png", "cat\\2.png", "train/cat/3.png", *NAMES[4:]]
    (root / "train" / "metadata.csv").write_text(table(names=written))
    loaded = load(root)
    order = np.argsort(loaded["train_images"][:, 0, 0, 0])  # by colour, which is the number
    assert loaded["columns"]["site"][order].tolist() == SITES


def test_without_a_table_it_is_said_where_one_was_sought(root):
    with pytest.raises(ValueError, match=r"'site' cannot be used: .*train has no metadata\.csv, "):
        load(root)
    (root / "train" / "labels.xlsx").write_bytes(b"")
    (root / "meta.csv").write_text("x")
    np.testing.assert_array_equal(load(root, column=None)["train_labels"], [0] * 4 + [1] * 4)
    with pytest.raises(ValueError, match=r"not read are train/labels\.xlsx, meta\.csv"):
        load_image_folder(root, column="site", image_size=4)


@pytest.mark.parametrize("value", ["", " ", '" "'])
def test_an_empty_field_is_a_value_that_is_missing(root, value):
    lines = table().splitlines()
    lines[2] = f"{NAMES[1]},{value},1"
    (root / "train" / "metadata.csv").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"'site' .*: 1 of 8 images have no value: train/cat/1\.p"):
        load(root)
    assert set(load(root, column="age/sex (y)")["columns"]) == {"age/sex (y)"}


def test_what_is_no_number_is_missing(root):
    rows = [{"file_name": name, "site": float("nan") if i else 1.5} for i, name in enumerate(NAMES)]
    for name, content in (
        ("metadata.jsonl", json_lines(rows)),
        ("metadata.parquet", parquet(rows)),
    ):
        (root / "train" / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"'site' .*: 7 of 8 images have no value"):
            load(root)
        (root / "train" / name).unlink()


def test_lines_of_old_macs(root):
    (root / "train" / "metadata.csv").write_text(table(";").replace("\n", "\r"))
    assert load(root)["columns"]["site"].tolist() == SITES
