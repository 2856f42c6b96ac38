"""NYUv2 and Cityscapes from folders: what is read, and what is said of bad files."""

import pickle
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.dense_files import (
    NO_DEPTH,
    NO_LABEL,
    ONE_CLASS,
    write_cityscapes,
    write_nyuv2,
)
from mtl_optax.data.dataset import KINDS, Images
from mtl_optax.data.dense import open_cityscapes, open_nyuv2
from mtl_optax.data.faults import BadData, BadLayout

SHAPES = {"image": (24, 32, 3), "label": (24, 32), "depth": (24, 32, 1)}
SHAPES["normal"] = SHAPES["image"]


@pytest.fixture
def root(tmp_path):
    write_nyuv2(tmp_path)
    return tmp_path


def put(root, part, array, number=1):
    """In the place of a file of the training split."""
    path = root / "train" / part / f"{number}.npy"
    np.save(path, array)
    return path


def fault(root, number=1):
    """What reading the example says."""
    source = open_nyuv2(root).splits["train"]
    with pytest.raises(BadData) as raised:
        source[number]
    assert pickle.loads(pickle.dumps(raised.value)).args == raised.value.args
    return str(raised.value)


def test_examples_are_what_is_on_disk_in_the_form_of_their_kinds(root):
    data = open_nyuv2(root)
    assert (data.names, data.notes) == (("depth", "normals", "segmentation"), ())
    assert data.inputs == Images(24, 32)
    assert {split: len(source) for split, source in data.splits.items()} == {
        "train": 4,
        "val": 4,
    }
    source = pickle.loads(pickle.dumps(data.splits["train"]))  # as workers get it
    for number in range(4):
        example = source[np.int64(number)]
        assert example["inputs"].dtype == np.float32
        assert source.where(number) == str(root / "train" / "image" / f"{number}.npy")
        folders = {"depth": "depth", "normals": "normal", "segmentation": "label"}
        for task in data.tasks:
            path = root / "train" / folders[task.name] / f"{number}.npy"
            target = example["targets"][task.name]
            assert target.dtype == KINDS[task.kind].dtype
            np.testing.assert_array_equal(target, np.load(path))


def test_made_files_have_the_edge_cases_and_normals_that_follow_from_depth(root):
    source = open_nyuv2(root).splits["train"]
    targets = [source[number]["targets"] for number in range(4)]
    assert not targets[NO_DEPTH]["depth"].any()
    assert set(np.unique(targets[ONE_CLASS]["segmentation"])) == {0}
    assert set(np.unique(targets[NO_LABEL]["segmentation"])) == {-1}
    lengths = np.linalg.norm(targets[0]["normals"], axis=-1)
    np.testing.assert_allclose(lengths[:, :-1], 1, rtol=1e-4)
    assert not lengths[:, -1].any()
    # On a plane 1 / depth is linear in the pixels: the floor, class 0.
    depth, label = targets[0]["depth"][..., 0], targets[0]["segmentation"]
    rows = [r for r in range(24) if (label[r, 1:] == 0).sum() > 5]
    for row in rows:
        floor = 1 / depth[row, 1:][label[row, 1:] == 0]
        np.testing.assert_allclose(np.ptp(floor), 0, atol=1e-6)
    assert rows


def test_larger_trees_have_the_sizes_that_were_asked_for(tmp_path):
    write_nyuv2(tmp_path, train=1, val=2, height=48, width=40)
    data = open_nyuv2(str(tmp_path))
    assert data.inputs == Images(48, 40)
    assert [len(data.splits[x]) for x in ("train", "val")] == [1, 2]


@pytest.mark.parametrize("dtype", ["float64", "float16", ">f4"])
def test_other_floating_types_and_orders_of_bytes_are_converted(root, dtype):
    put(root, "image", np.full(SHAPES["image"], 0.5, dtype))
    put(root, "depth", np.full(SHAPES["depth"], 2, dtype))
    put(root, "label", np.full(SHAPES["label"], 3, dtype))
    example = open_nyuv2(root).splits["train"][1]
    arrays = [example["inputs"], *example["targets"].values()]
    assert [x.dtype.str for x in arrays] == ["<f4", "<f4", "<f4", "<i4"]
    assert [float(x.flat[0]) for x in arrays[:2]] == [0.5, 2]
    assert set(np.unique(arrays[3])) == {3}


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint8", "uint64"])
def test_labels_of_any_integer_type(root, dtype):
    put(root, "label", np.full(SHAPES["label"], 12, dtype))
    label = open_nyuv2(root).splits["train"][1]["targets"]["segmentation"]
    assert label.dtype == np.int32
    assert set(np.unique(label)) == {12}


def test_bad_values_name_the_first_pixel_and_the_cure(root):
    normal, depth = np.zeros(SHAPES["normal"]), np.ones(SHAPES["depth"])
    label = np.zeros(SHAPES["label"])
    for part, array, at, value, wanted in [
        ("depth", depth, (3, 5, 0), np.nan, "not finite ([nan]) at row 3, column 5"),
        ("depth", depth, (23, 31), 1e60, "not finite ([inf]) at row 23, column 31"),
        ("depth", depth, (2, 1), -1, "negative at row 2, column 1"),
        (
            "normal",
            normal,
            (0, 7, 2),
            -np.inf,
            "not finite ([0.0, 0.0, -inf]) at row 0",
        ),
        ("label", label, (4, 4), 3.5, "label 3.5 at row 4, column 4"),
        ("label", label, (4, 4), np.nan, "label nan at row 4, column 4"),
        ("label", label, (4, 4), 2.0**32, "label 4294967296.0 at row 4"),
        ("label", label.astype("uint8"), (4, 4), 255, "np.where(array == 255, -1"),
    ]:
        before = np.load(root / "train" / part / "1.npy")
        wrong = array.copy()
        wrong[at] = value
        path = put(root, part, wrong)
        said = fault(root)
        assert said.startswith(f"{path}: "), said
        assert wanted in said
        np.save(path, before)
    open_nyuv2(root).splits["train"][1]


@pytest.mark.parametrize(
    ("part", "dtype", "cure"),
    [
        ("image", "uint8", "array / 255"),
        ("image", "complex64", "floats from 0 to 1"),
        ("depth", "uint16", "metres"),
        ("normal", "uint8", "array / 127.5 - 1"),
        ("label", "U3", "numbers of classes"),
        ("label", "complex64", "numbers of classes"),
    ],
)
def test_other_types_are_refused_with_a_cure(root, part, dtype, cure):
    path = put(root, part, np.zeros(SHAPES[part], dtype))
    said = fault(root)
    assert said.startswith(f"{path}: holds ")
    assert cure in said


@pytest.mark.parametrize(
    ("part", "shape", "cure"),
    [
        ("image", (3, 24, 32), "np.moveaxis(array, 0, -1)"),
        ("normal", (3, 24, 32), "np.moveaxis(array, 0, -1)"),
        ("depth", (1, 24, 32), "np.moveaxis(array, 0, -1)"),
        ("depth", (24, 32), "array[..., None]"),
        ("label", (24, 32, 1), "array[..., 0]"),
        ("image", (24, 30, 3), "one size"),
        ("label", (12, 16), "one size"),
        ("label", (), "one size"),
    ],
)
def test_other_shapes_are_refused_with_a_cure(root, part, shape, cure):
    path = put(root, part, np.zeros(shape))
    said = fault(root)
    assert said.startswith(f"{path}: has shape {shape}, where {SHAPES[part]}")
    assert str(root / "train" / "image" / "0.npy") in said
    assert cure in said


RAN = []


def run():
    RAN.append(1)


class Runs:
    """What a hostile pickle would do."""

    def __reduce__(self):
        return run, ()


def test_what_is_cut_short_or_pickled_is_refused_unread(root):
    path = root / "train" / "depth" / "1.npy"
    whole = path.read_bytes()
    objects = np.empty(SHAPES["depth"], object)
    objects[:] = Runs()
    np.save(root / "objects.npy", objects, allow_pickle=True)
    np.savez(root / "many.npz", depth=np.ones(SHAPES["depth"]))
    for held in (
        whole[:-1],
        whole[:60],
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00\x10\x00{'descr': broken",
        pickle.dumps(Runs()),
        (root / "objects.npy").read_bytes(),
        (root / "many.npz").read_bytes(),
    ):
        path.write_bytes(held)
        said = fault(root)
        assert said.startswith(f"{path}: cannot be read as .npy (")
        assert "never read" in said
    assert not RAN
    pickle.loads(pickle.dumps(Runs()))
    assert RAN


def test_a_file_that_one_folder_lacks_is_named_with_the_folder_that_has_it(root):
    (root / "train" / "label" / "3.npy").unlink()
    said = fault(root, 3)
    assert said.startswith(f"{root / 'train' / 'label' / '3.npy'}: is missing, while ")
    assert "4 files in image, 3 in label" in said
    (root / "train" / "image" / "2.npy").unlink()
    assert "image/2.npy: is missing" in fault(root, 2)
    source = open_nyuv2(root).splits["train"]
    assert source[1]["inputs"].shape == (24, 32, 3)
    shutil.rmtree(root / "train")
    with pytest.raises(BadData, match=r"image/1\.npy: was there, and is not any more"):
        source[1]


def test_numbers_may_have_gaps_and_are_sorted_as_numbers(root):
    for part in SHAPES:
        for number, other in ((2, 10), (0, 100)):
            folder = root / "train" / part
            (folder / f"{number}.npy").rename(folder / f"{other}.npy")
    for name in ("._1.npy", "notes.txt"):
        (root / "train" / "image" / name).write_text("left by a program")
    data = open_nyuv2(root)
    assert data.splits["train"].numbers == (1, 3, 10, 100)
    assert data.notes == ("train has 4 numbers from 1 to 100, with gaps.",)


@pytest.mark.parametrize("name", ["01.npy", "one.npy", "-1.npy", "1 (1).npy"])
def test_names_that_are_no_numbers_are_an_error(root, name):
    np.save(root / "train" / "depth" / name, np.zeros(3))
    with pytest.raises(BadLayout, match=re.escape(f"depth: holds {name}")):
        open_nyuv2(root)


def test_folders_that_are_not_there_are_named_with_what_is(root):
    (root / "val" / "normal").rename(root / "val" / "normals")
    with pytest.raises(BadLayout) as raised:
        open_nyuv2(root)
    said = str(raised.value)
    assert "no folder val/normal" in said
    assert "depth, image, label, normals" in said
    assert "{train,val}/{image,depth,normal,label}/NUMBER.npy" in said
    shutil.rmtree(root / "val" / "normals")
    (root / "val" / "normal").mkdir()
    with pytest.raises(BadLayout, match=r"normal: holds no \.npy file"):
        open_nyuv2(root)
    with pytest.raises(BadLayout, match=r"no folder train/image.*no such folder"):
        open_nyuv2(root / "nowhere")


def test_a_bad_first_image_does_not_set_the_size(root):
    first = root / "train" / "image" / "0.npy"
    first.write_bytes(first.read_bytes()[:100])
    assert open_nyuv2(root).inputs == Images(24, 32)
    for number in range(4):
        put(root, "image", np.zeros((3, 24, 32)), number)
    with pytest.raises(BadLayout, match=r"no image; .*0\.npy has shape.*moveaxis"):
        open_nyuv2(root)


def test_a_test_folder_stands_beside_val_or_in_its_place(root):
    shutil.copytree(root / "val", root / "test")
    data = open_nyuv2(root)
    assert list(data.splits) == ["train", "val", "test"]
    shutil.rmtree(root / "val")
    data = open_nyuv2(root)
    assert list(data.splits) == ["train", "val"]
    assert data.splits["val"].folder == root / "test"
    assert "the split val is the folder test" in data.notes[0]
    shutil.rmtree(root / "test")
    with pytest.raises(BadLayout, match="no folder val/image"):
        open_nyuv2(root)


@pytest.mark.parametrize(("label", "classes"), [("label_7", 7), ("label_19", 19)])
def test_cityscapes_says_which_labels_were_taken(tmp_path, label, classes):
    write_cityscapes(tmp_path, label=label, classes=classes)
    data = open_cityscapes(tmp_path)
    assert (data.names, data.tasks[1].size) == (("depth", "segmentation"), classes)
    assert data.notes[0] == f"Labels of {classes} classes are read from {label}."
    example = data.splits["val"][0]
    assert set(example["targets"]) == {"depth", "segmentation"}
    assert 0 <= example["targets"]["depth"].min() < example["targets"]["depth"].max()
    assert example["targets"]["depth"].max() < 0.5
    assert example["targets"]["segmentation"].max() < classes


def test_labels_of_cityscapes_are_chosen_where_there_are_several(tmp_path):
    write_cityscapes(tmp_path, label="label_7")
    write_cityscapes(tmp_path, label="label_19", classes=19)
    with pytest.raises(BadLayout, match=r"label_19, label_7. Say which with classes="):
        open_cityscapes(tmp_path)
    for classes in (7, 19):
        data = open_cityscapes(tmp_path, classes=classes)
        assert data.splits["train"].tasks["segmentation"] == f"label_{classes}"
    with pytest.raises(BadLayout, match="should hold labels in label_2"):
        open_cityscapes(tmp_path, classes=2)


def test_a_folder_label_has_seven_classes_unless_it_is_said(tmp_path):
    write_cityscapes(tmp_path, label="label")
    assert open_cityscapes(tmp_path).tasks[1].size == 7
    assert open_cityscapes(tmp_path, classes=19).tasks[1].size == 19
    write_cityscapes(tmp_path, label="label_19", classes=19)
    with pytest.raises(BadLayout, match="there is label, label_19"):
        open_cityscapes(tmp_path)
    source = open_cityscapes(tmp_path, classes=19).splits["train"]
    assert source.tasks["segmentation"] == "label_19"
    source = open_cityscapes(tmp_path, classes=7).splits["train"]
    assert source.tasks["segmentation"] == "label"
    shutil.rmtree(tmp_path / "train")
    with pytest.raises(BadLayout, match="no such folder"):
        open_cityscapes(tmp_path)


def test_a_source_is_its_fields(root):
    source = open_nyuv2(root).splits["train"]
    assert len(replace(source, numbers=(3, 1))) == 2
    part = replace(source, numbers=(3, 1))
    np.testing.assert_array_equal(part[1]["inputs"], source[1]["inputs"])
