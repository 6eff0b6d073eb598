"""Images of several domains, a folder a domain and in it a folder a class.

    DIR/DOMAIN/CLASS/...      PACS: art_painting/dog/..., photo/dog/...; Office-Caltech alike

The domain is the column `domain`: `partition.scheme=natural partition.column=domain` makes each a
client. A fifth of every class of every domain is the test split (our choice).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from semanticfl_jax.contexts import DatasetContext
from semanticfl_jax.data.sources.class_folders import class_names, class_of, classes_in
from semanticfl_jax.data.sources.dataset import ImageDataset, named
from semanticfl_jax.data.sources.file_tree import Directory
from semanticfl_jax.data.sources.idx import directory_of
from semanticfl_jax.data.sources.image_files import Listing, load_images
from semanticfl_jax.data.sources.image_formats import is_image
from semanticfl_jax.errors import SemanticFLError

TEST_SHARE, SEED = 0.2, 0


def domain_folder(settings: object, context: DatasetContext) -> ImageDataset:
    """Return images by domain and class, normalised by train's mean and deviation (ours)."""
    del settings
    config = context.config
    tree = Directory(directory_of(context, "domain_folder"))
    arrays = load_images(
        "domain_folder",
        tree,
        lambda: list_files(tree),
        side=config.image_size,
        unreadable=config.unreadable,
    )
    return named("domain_folder", arrays)


def list_files(tree: Directory) -> tuple[list[str], dict[str, Listing]]:
    """Return the class names, and the files of the splits "train" and "test".

    Labels follow the names of the classes' folders in alphabetical order, over all domains. A class
    that a domain lacks is reported, and is no error.

    Raises:
      SemanticFLError: unless there are two domains and two classes at least.
    """
    below = [name for name in tree.names if name.count("/") >= 2]
    found = [name.split("/") for name in below if is_image(name)]
    domains = sorted({parts[0] for parts in found})
    of_domains = {
        domain: classes_in(tree.path / domain, {parts[1] for parts in found if parts[0] == domain})
        for domain in domains
    }
    classes = sorted(set().union(*of_domains.values()))
    if len(domains) < 2 or len(classes) < 2:
        raise SemanticFLError(
            f"{tree.path} must hold folders DOMAIN/CLASS of images, at least two of each; found "
            f"the domains {domains} and the classes {classes}"
        )
    names = class_names(tree.path, classes)
    for domain, there in of_domains.items():
        if lacking := [each for each in classes if each not in there]:
            print(f"{Path(tree.path) / domain} has no {', '.join(lacking)}", file=sys.stderr)
    is_test = _drawn([(parts[0], parts[1]) for parts in found])
    splits = {}
    strays = [name for name in tree.names if is_image(name) and name.count("/") < 2]
    problems = {**tree.problems, **dict.fromkeys(strays, "in no folder DOMAIN/CLASS")}
    for name, chosen in (("train", ~is_test), ("test", is_test)):
        files = [found[i] for i in np.flatnonzero(chosen)]
        splits[name] = Listing(
            ["/".join(parts) for parts in files],
            [classes.index(class_of(parts[1])) for parts in files],
            {"domain": [parts[0] for parts in files]},
            problems if name == "train" else {},
            [each for each in below if not is_image(each)] if name == "train" else (),
        )
    return names, splits


def _drawn(groups: Sequence[tuple[str, str]]) -> np.ndarray:
    """Return which files are tested, bool [n]: the same share of every group of two at least."""
    names = np.array(["/".join(group) for group in groups])
    rng, is_test = np.random.default_rng(SEED), np.zeros(len(names), bool)
    for name in np.unique(names):
        members = rng.permutation(np.flatnonzero(names == name))
        if len(members) > 1:
            is_test[members[: max(1, round(TEST_SHARE * len(members)))]] = True
    return is_test
