"""Which folders are splits: by their names, and by what lies in them."""

import re

import pytest

from semanticfl_jax.data.sources.file_tree import open_tree
from semanticfl_jax.data.sources.split_folders import find_splits, role_of


def put(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return open_tree(root)


def classes(*folders, kinds=("cat", "dog")):
    return [f"{folder}/{kind}/0.png" for folder in folders for kind in kinds]


@pytest.mark.parametrize(
    ("role", "names"),
    [
        ("train", "train Train TRAINING train_set Trainset seg_train ILSVRC2012_img_train"),
        ("train", "training-images train2017 01_train train_data TrainingData images.train"),
        ("test", "test Testing TESTS test-set seg_test Test_Images evaluation eval PublicTest"),
        ("val", "val Valid VALIDATION validation_set val2017 dev ILSVRC2012_img_val val_split"),
        (None, "cat train_station test_tube trains contest valley images data 2017 devil retrain"),
    ],
)
def test_names_of_splits(role, names):
    for name in names.split():
        assert role_of(name) == role, name


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("Training", "Testing"),
        ("Train", "Test"),
        ("TRAIN", "VAL"),
        ("train_set", "validation-set"),
        ("training", "eval"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("train/images", "valid/images"),
        ("pets/Train", "pets/Valid"),
        ("a/b/train", "a/b/test"),
        ("images/train2017", "images/val2017"),
    ],
)
def test_splits_are_found(tmp_path, train, test):
    splits = find_splits(put(tmp_path, *classes(train, test), "README.md"))
    assert (splits.train, splits.test, splits.notes) == (f"{train}/", f"{test}/", ())


def test_of_several_folders_the_usual_one_is_taken_and_the_others_said(tmp_path):
    splits = find_splits(put(tmp_path, *classes("train", "Train2", "test", "val", "extra")))
    assert (splits.train, splits.test) == ("train/", "test/")
    assert sorted(splits.notes) == [
        "Train2 is not used, test is the test split",
        "extra is not used, test is the test split",
        "val is not used, test is the test split",
    ]


@pytest.mark.parametrize(
    "inside", ["0.png", "images/0.png", "unknown/0.png", "test/0.png", "x.csv"]
)
def test_val_is_the_test_split_where_test_has_no_classes(tmp_path, inside):
    splits = find_splits(put(tmp_path, *classes("train", "val"), f"test/{inside}"))
    assert splits.test == "val/"
    (note,) = splits.notes
    assert note == "test has no folder of a class of train: val is the test split"


def test_all_folders_are_classes_where_none_is_a_split(tmp_path):
    tree = put(tmp_path, *classes("bus", "car", kinds=("day",)), "train/0.png", "test/0.png")
    # "train" and "test" hold images themselves, as classes do, but together they are splits.
    assert find_splits(tree).test == "test/"
    for name in ("test", "Testing", "valid", "train", "Train"):
        root = tmp_path / name / "x"
        splits = find_splits(put(root, "bus/0.png", "car/0.png", f"{name}/0.png"))
        assert (splits.train, splits.test) == ("", None)
        assert splits.notes == (f"{name} is read as a class",)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            classes("train"),
            "has a train folder but neither test nor val; make one, or name .*/train",
        ),
        (classes("Training"), r"holds Training, and a test folder \(or val\) is missing"),
        (classes("Test", "val"), "holds Test and val, and a train folder is missing"),
        ([*classes("test"), "cat/0.png", "dog/0.png"], "cat, dog, and so does test in it: move"),
        (
            classes("Train1", "Train2", "test"),
            "several folders that may be the train split: Train1,",
        ),
        (classes("train", "Test1", "Test2"), "several folders that may be the test split: Test1, "),
    ],
)
def test_what_is_unclear_is_asked_about(tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        find_splits(put(tmp_path, *names))


def test_an_unclear_split_that_is_not_needed_is_no_reason_to_refuse(tmp_path):
    splits = find_splits(put(tmp_path, *classes("train", "val", "Test1", "Test2")))
    assert splits.test == "val/" and len(splits.notes) == 2


def test_folders_that_hold_the_same_may_be_splits_of_another_name(tmp_path):
    (note,) = find_splits(put(tmp_path, *classes("prueba", "entrena"))).notes
    assert re.search("entrena, prueba are read as the classes, and each holds cat, dog; if", note)
    assert not find_splits(put(tmp_path, "prueba/bird/0.png")).notes


def test_a_split_named_alone_tells_of_the_other(tmp_path):
    put(tmp_path, *classes("Train", "Test"))
    splits = find_splits(open_tree(tmp_path / "Train"))
    assert (splits.train, splits.test) == ("", None)
    assert splits.notes[0].startswith("Test beside it: not used")


def test_a_lone_folder_of_a_directory_may_be_a_lone_class(tmp_path):
    assert find_splits(put(tmp_path, *classes("pets"))).train == ""
