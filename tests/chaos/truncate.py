"""Every file that a run writes or is given, cut at random lengths."""

import dataclasses
import os
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.chaos.case import Case, Options, rows, same_end

_ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Target:
    """Files and what they are for.

    Attributes:
      make: writes them into a folder, which does not exist yet.
      use: does something with a folder of them, and returns what can be compared by ==.
      skip: files that are not read, or whose names may differ.
    """

    make: Callable[[Path], None]
    use: Callable[[Path], Any]
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
            if path.name in target.skip:
                continue
            chance, size = random.Random(f"{options.seed} {name} {inside}"), path.stat().st_size
            lengths = [0, *(chance.randrange(max(size, 1)) for _ in range(options.lengths - 1))]
            for length in dict.fromkeys(lengths):
                attempt = partial(_cut, target, whole, scratch / "copy", inside, length)
                yield Case(f"{name}: {inside} cut to {length} of {size} bytes", attempt)


def _cut(target: Target, whole: Path, copy: Path, inside: Path, length: int) -> str | None:
    from semanticfl_jax.errors import SemanticFLError

    def used(cut: int | None) -> Any:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(whole, copy)
        if cut is not None:
            os.truncate(copy / inside, cut)
        return target.use(copy)

    if target not in _expected:
        _expected[target] = used(None)
    try:
        found = used(length)
    except SemanticFLError as error:
        # A part of a checkpoint or of a cache is named by the whole of it.
        named = [inside.name, *(part for part in inside.parts[:-1] if part != "run")]
        return None if any(each in str(error) for each in named) else f"not named: {error}"
    except Exception as error:
        return f"{error!r:.300}"
    return None if found == _expected[target] else "another result"


_expected: dict[Target, Any] = {}


def _make_run(folder: Path, finished: bool) -> None:
    from tests.chaos.run import train

    train(folder / "run", _ROUNDS)
    if not finished:
        (folder / "run" / "summary.json").unlink()


def _train(folder: Path) -> Any:
    from tests.chaos.run import train

    train(folder / "run", _ROUNDS)
    done, whole = folder / "run", folder.parent / "finished" / "run"
    return rows(done), (done / "summary.json").exists(), same_end(done, whole)


def _report(folder: Path) -> str:
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


def _train_with_given(folder: Path) -> Any:
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
            say=None,
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


def _load_all(folder: Path) -> Any:
    places = ("images", "packed.zip", "packed.tar.gz", "packed.tar.xz")
    return [_load(folder / each) for each in places]


TARGETS = {
    "finished": Target(partial(_make_run, finished=True), _train),
    "unfinished": Target(partial(_make_run, finished=False), _train),
    "reported": Target(partial(_make_run, finished=True), _report),
    "given": Target(_make_given, _train_with_given),
    "images": Target(_make_images, _load_all),
}
