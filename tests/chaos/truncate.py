"""Every file that a run writes or is given, cut at random lengths."""

import dataclasses
import os
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from tests.chaos.case import Case, Options, rows

_ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Target:
    """Files and what they are for.

    Attributes:
      make: writes them into a folder, which does not exist yet.
      use: does something with a folder of them, and returns what can be compared by ==; it hands
        on what is said in between.
      skip: names of files and folders that are not read.
    """

    make: Callable[[Path], None]
    use: Callable[[Path, list[str]], Any]
    skip: tuple[str, ...] = ()


def cases(options: Options, scratch: Path) -> Iterator[Case]:
    """Yield every file of every target at some lengths, 0 first."""
    for name, target in TARGETS.items():
        whole = scratch / name
        if not whole.exists():
            target.make(whole)
        pristine = [path for path in sorted(whole.rglob("*")) if path.is_file()]
        for path in pristine:
            inside = path.relative_to(whole)
            if any(part in target.skip for part in inside.parts):
                continue
            chance, size = random.Random(f"{options.seed} {name} {inside}"), path.stat().st_size
            lengths = [0, *(chance.randrange(max(size, 1)) for _ in range(options.lengths - 1))]
            for length in dict.fromkeys(lengths):
                attempt = partial(_cut, target, whole, scratch / "copy", inside, length)
                yield Case(f"{name}: {inside} cut to {length} of {size} bytes", attempt)


def _cut(target: Target, whole: Path, copy: Path, inside: Path, length: int) -> str | None:
    from semanticfl_jax.errors import SemanticFLError

    said: list[str] = []

    def used(cut: int | None) -> Any:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(whole, copy)
        if cut is not None:
            os.truncate(copy / inside, cut)
        said.clear()
        return target.use(copy, said)

    def is_named(text: str) -> bool:
        # A part of a checkpoint or of a cache is named by the whole of it.
        named = [inside.name, *(part for part in inside.parts[:-1] if part != "run")]
        return any(each in text for each in named)

    if target not in _expected:
        _expected[target] = used(None)
    try:
        found = used(length)
    except SemanticFLError as error:
        return None if is_named(str(error)) else f"not named: {error}"
    except Exception as error:
        return f"{error!r:.300}"
    warned = any(line.startswith("warning: ") and is_named(line) for line in said)
    return None if found == _expected[target] or warned else "another result"


_expected: dict[Target, Any] = {}


def _make_run(folder: Path, finished: bool) -> None:
    from tests.chaos.run import train

    train(folder / "run", _ROUNDS)
    if not finished:
        (folder / "run" / "summary.json").unlink()


def _train(folder: Path, said: list[str]) -> Any:
    """Train what is left; return the rows, whether there is a summary, and the weights."""
    import jax

    from semanticfl_jax.simulation.callbacks import DrawPlots
    from tests.chaos.run import train

    # Pictures take most of the time, and are not what is tested here.
    with mock.patch.object(DrawPlots, "on_end"):
        result = train(folder / "run", _ROUNDS, said.append)
    weights = [leaf.tolist() for leaf in jax.tree.leaves(result.params)]
    return rows(folder / "run"), (folder / "run" / "summary.json").exists(), weights


def _report(folder: Path, said: list[str]) -> str:
    del said
    from semanticfl_jax.reporting.html.page import write_page
    from semanticfl_jax.reporting.report import compare

    write_page([folder / "run"], folder / "report.html")
    return compare([folder / "run"], folder / "report")


def _make_given(folder: Path) -> None:
    from tests.chaos.run import train

    train(folder / "run", _ROUNDS)
    for name in ("partition.npz", "model.safetensors"):
        shutil.move(folder / "run" / name, folder / name)
    shutil.rmtree(folder / "run")


def _train_with_given(folder: Path, said: list[str]) -> Any:
    """Train from weights, a partition and anchors that are given, and write nothing."""
    import semanticfl_jax as sfl
    from tests.chaos import run

    config = dataclasses.replace(
        run.config(_ROUNDS, folder / "given-anchors.npz"),
        partition=sfl.PartitionConfig(file=str(folder / "partition.npz")),
    )
    return [
        row["train_loss"]
        for row in sfl.run(
            config,
            dataset=run.dataset(),
            model=run.SoftmaxRegression(run.CLASSES),
            init_params=folder / "model.safetensors",
            progress=False,
            say=said.append,
        ).history
    ]


def _make_images(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    chance = np.random.default_rng(0)
    for split, count in (("train", 3), ("test", 1)):
        for name in ("cat", "dog"):
            (folder / "images" / split / name).mkdir(parents=True)
            for number in range(count):
                path = folder / "images" / split / name / f"{number}.png"
                Image.fromarray(chance.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    for form in ("zip", "gztar", "xztar"):
        shutil.make_archive(str(folder / "packed"), form, folder / "images")
    _load(folder / "images")  # which writes the cache


def _load(place: Path) -> Any:
    from semanticfl_jax.data.sources import load_dataset

    found = load_dataset("image_folder", str(place))
    arrays = (found.train_images, found.train_labels, found.test_images, found.test_labels)
    return [array.tolist() for array in arrays], found.class_names


def _load_all(folder: Path, said: list[str]) -> Any:
    del said
    places = ("images", "packed.zip", "packed.tar.gz", "packed.tar.xz")
    return [_load(folder / each) for each in places]


TARGETS = {
    "finished": Target(partial(_make_run, finished=True), _train, ("plots", "checkpoints")),
    "unfinished": Target(partial(_make_run, finished=False), _train, ("plots",)),
    "reported": Target(partial(_make_run, finished=True), _report, ("checkpoints",)),
    "given": Target(_make_given, _train_with_given),
    "images": Target(_make_images, _load_all),
}
