"""MultiMNIST, CelebA and Office from their folders; damaged pictures and lists."""

import pickle
import shutil
from pathlib import Path

import image_files
import numpy as np
import pytest
from PIL import Image

from mtl_optax.data.celeba import open_celeba
from mtl_optax.data.dataset import KINDS, Images
from mtl_optax.data.faults import BadData, BadLayout
from mtl_optax.data.multimnist import open_multimnist
from mtl_optax.data.office import open_office
from mtl_optax.data.pictures import read_picture

FILES = Path(__file__).parent / "files"


def sources(data):
    """All sources of a data set, with the tasks of each."""
    for split in data.splits.values():
        if data.by_task:
            yield from (((task,), source) for task, source in split.items())
        else:
            yield data.names, split


def check(data):
    """What holds for each data set: forms, types, ranges, copies for workers."""
    assert list(data.names) == sorted(data.names)
    assert all(isinstance(note, str) and note.endswith(".") for note in data.notes)
    for names, source in sources(data):
        assert len(source) > 0
        copied = pickle.loads(pickle.dumps(source))
        for index in range(len(source)):
            example = source[index]
            assert example["inputs"].shape == data.inputs
            assert example["inputs"].dtype == np.float32
            assert np.isfinite(example["inputs"]).all()
            assert tuple(example["targets"]) == names
            for task in data.tasks:
                if task.name in names:
                    label = example["targets"][task.name]
                    assert np.shape(label) == ()
                    assert label.dtype == KINDS[task.kind].dtype
                    assert -1 <= label < task.size
            np.testing.assert_array_equal(copied[index]["inputs"], example["inputs"])
            assert copied[index]["targets"] == example["targets"]
            assert copied.where(index) == source.where(index)


def faults(source):
    """Errors of the examples, by number."""
    found = {}
    for index in range(len(source)):
        try:
            source[index]
        except BadData as error:
            found[index] = error
    return found


# MultiMNIST


def test_a_pickle_of_ten_rows(tmp_path):
    data = open_multimnist(image_files.write_multimnist(tmp_path))
    check(data)
    assert data.inputs == Images(36, 36, 1)
    assert [len(data.splits[split]) for split in ("train", "val", "test")] == [9, 1, 4]
    images, labels = image_files.pairs(4, seed=1)
    for row in range(4):
        example = data.splits["test"][row]
        expected = images[row, ..., None].astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(example["inputs"], expected)
        assert list(example["targets"].values()) == labels[row].tolist()
    assert data.splits["test"].where(3).endswith("multi_mnist.pickle, test row 3")


@pytest.mark.slow
def test_the_validation_part_is_scikit_learns(tmp_path):
    """Of train_test_split(test_size=0.1, random_state=42), as libmoon has it."""
    from sklearn.model_selection import train_test_split

    for rows in (10, 57):
        data = open_multimnist(image_files.write_multimnist(tmp_path, rows=rows))
        train, val = train_test_split(np.arange(rows), test_size=0.1, random_state=42)
        np.testing.assert_array_equal(data.splits["train"].rows, train)
        np.testing.assert_array_equal(data.splits["val"].rows, val)
    assert "6 of the training rows" in data.notes[1]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda x: x.astype(np.float64), "float64 from 0 to 255, divided by 255"),
        (lambda x: np.float32(x / 255), "float32 from 0 to 1."),
        (lambda x: x[..., None], "uint8 from 0 to 255"),
        (lambda x: x[:, None], "uint8 from 0 to 255"),
        (lambda x: x.reshape(len(x), -1), "uint8 from 0 to 255"),
    ],
)
def test_forms_of_images(tmp_path, change, found):
    images, labels = image_files.pairs(10)
    path = tmp_path / "some.pickle"
    path.write_bytes(pickle.dumps([change(images), labels] * 2))
    data = open_multimnist(path)
    check(data)
    assert data.inputs == Images(36, 36, 1)
    assert found in data.notes[0]
    np.testing.assert_allclose(
        data.splits["test"][3]["inputs"][..., 0], images[3] / 255, rtol=1e-6
    )


@pytest.mark.parametrize("version", ["torch1_python2", "torch2"])
def test_torch_files(tmp_path, version):
    """With and without a validation file, in `processed` and without it."""
    processed = tmp_path / "processed"
    processed.mkdir()
    for split in ("training", "test"):
        shutil.copy(FILES / f"{version}_multi.pt", processed / f"multi_{split}.pt")
    data = open_multimnist(tmp_path)
    check(data)
    assert data.inputs == Images(7, 7, 1)
    assert "float64 from 0 to 255" in data.notes[0]
    assert [len(source) for source in data.splits.values()] == [9, 1, 10]
    shutil.copy(FILES / f"{version}_multi.pt", processed / "multi_validation.pt")
    for root in (processed, processed / "multi_training.pt"):
        data = open_multimnist(root)
        assert [len(source) for source in data.splits.values()] == [10, 10, 10]
        assert len(data.notes) == 1
        example = data.splits["val"][3]
        assert example["targets"] == {"left": 3, "right": 9}
        assert example["inputs"].max() == np.float32(75) / np.float32(255)
    (processed / "multi_test.pt").unlink()
    with pytest.raises(BadLayout, match=r"multi_test\.pt are needed"):
        open_multimnist(tmp_path)


def test_several_pickles(tmp_path):
    image_files.write_multimnist(tmp_path, side=20)
    image_files.write_multimnist(tmp_path, file="fmnist.pickle", side=22)
    with pytest.raises(BadLayout, match="several data sets: multi_mnist, fmnist"):
        open_multimnist(tmp_path)
    assert open_multimnist(tmp_path, name="fmnist").inputs.height == 22
    assert open_multimnist(tmp_path, name="multi_mnist").inputs.height == 20
    with pytest.raises(BadLayout, match="no 'fashion', but multi_mnist, fmnist"):
        open_multimnist(tmp_path, name="fashion")


def test_no_multimnist(tmp_path):
    with pytest.raises(BadLayout, match=r"none of multi_mnist\.pickle"):
        open_multimnist(tmp_path)
    with pytest.raises(BadLayout, match="no such file or folder"):
        open_multimnist(tmp_path / "absent")


def test_a_file_that_changes_is_read_anew(tmp_path):
    image_files.write_multimnist(tmp_path, side=20)
    assert open_multimnist(tmp_path).inputs.height == 20
    image_files.write_multimnist(tmp_path, side=30)
    assert open_multimnist(tmp_path).inputs.height == 30


IMAGES, LABELS = image_files.pairs(10)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ([IMAGES, LABELS], "a list of 2"),
        (3, "a int"),
        ((IMAGES, LABELS, IMAGES, "no array"), "test labels are of str"),
        ((IMAGES.astype("S3"), LABELS, IMAGES, LABELS), "train images are of .S3"),
        ((IMAGES[0, 0], LABELS, IMAGES, LABELS), r"images of shape \(36,\)"),
        ((IMAGES[:0], LABELS[:0], IMAGES, LABELS), r"images of shape \(0, 36, 36\)"),
        ((IMAGES[:4], LABELS, IMAGES, LABELS), r"images \(4, 36, 36\), but labels"),
        ((IMAGES, LABELS[:, :1], IMAGES, LABELS), r"but labels \(10, 1\)"),
    ],
    ids=range(8),
)
def test_pickles_of_another_form(tmp_path, value, found):
    path = tmp_path / "some.pickle"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(BadData, match=found) as error:
        open_multimnist(path)
    assert error.value.path == path


def test_rows_that_do_not_fit(tmp_path):
    """They raise when they are read; all others stay."""
    images, labels = image_files.pairs(20)
    images = images.astype(np.float32)
    labels = labels.astype(np.float64)
    images[1, 0, 0] = 256
    images[2, 0, 0] = -1
    images[3, 0, 0] = np.nan  # left to the check of all data sets
    labels[4, 1] = 2.5
    labels[5, 0] = np.nan
    labels[6, 0], labels[7, 0] = 2**40 + 3, 1e19  # as int32: 3, and anything
    path = tmp_path / "some.pickle"
    path.write_bytes(pickle.dumps((IMAGES, LABELS, images, labels[:17])))
    test = open_multimnist(path).splits["test"]
    found = faults(test)
    assert list(found) == [1, 2, 4, 5, 6, 7, 17, 18, 19]
    assert all(error.row == row for row, error in found.items())
    assert "test image of 0 to 256" in str(found[1])
    assert "row 17: test image without labels, which end at row 16" in str(found[17])
    assert np.isnan(test[3]["inputs"]).any()
    for row in (*range(1, 8), 17):
        if row != 3:
            with pytest.raises(BadData):
                test.take(np.array([0, row]))


# Pictures


@pytest.mark.parametrize(
    ("mode", "ending"),
    [
        ("RGB", "jpg"),
        ("L", "jpg"),
        ("CMYK", "jpg"),
        ("RGBA", "png"),
        ("LA", "png"),
        ("P", "png"),
        ("1", "png"),
    ],
)
def test_every_mode_is_rgb(tmp_path, mode, ending):
    path = tmp_path / f"picture.{ending}"
    Image.new("RGB", (40, 30), "white").convert(mode).save(path)
    picture = read_picture(path, 24)
    assert picture.shape == (24, 24, 3)
    assert picture.dtype == np.float32
    np.testing.assert_allclose(picture, 1, atol=0.02)


def test_a_palette_with_transparent_colours(tmp_path):
    path = tmp_path / "picture.png"
    picture = Image.new("RGB", (40, 30), "red").convert("P")
    picture.save(path, transparency=bytes([0, 128]))
    np.testing.assert_allclose(read_picture(path, 8), [[[1, 0, 0]] * 8] * 8, atol=0.02)


def test_shrinking_averages(tmp_path):
    """Every second pixel is white: half grey, and no pattern."""
    path = tmp_path / "picture.png"
    pixels = np.zeros((96, 96), np.uint8)
    pixels[::2, ::2] = pixels[1::2, 1::2] = 255
    Image.fromarray(pixels).save(path)
    np.testing.assert_allclose(read_picture(path, 8), 0.5, atol=0.01)


def test_damaged_pictures(tmp_path):
    good, path = tmp_path / "good.jpg", tmp_path / "bad.jpg"
    image_files.thing(1, 2, 0).save(good)
    for data, found in (
        (b"", "the file is empty"),
        (b"<html>Not found</html>", "cannot be read as a picture"),
        (good.read_bytes()[:400], "cannot be read as a picture"),
        (good.read_bytes()[:10], "cannot be read as a picture"),
    ):
        path.write_bytes(data)
        with pytest.raises(BadData, match=found) as error:
            read_picture(path, 24)
        assert error.value.path == path
    path.unlink()
    with pytest.raises(BadData, match="no such file"):
        read_picture(path, 24)
    path.mkdir()
    with pytest.raises(BadData, match="cannot be read"):
        read_picture(path, 24)


def test_sixteen_bits_are_refused(tmp_path):
    """Pillow would clip them at 255."""
    path = tmp_path / "picture.png"
    Image.fromarray(np.full((8, 8), 1000, np.uint16)).save(path)
    with pytest.raises(BadData, match="a picture of mode I;16"):
        read_picture(path, 24)


def test_a_very_large_picture_is_not_decoded(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("1", (9500, 9500)).save(path)
    assert path.stat().st_size < 100_000
    with pytest.raises(BadData, match="a very large picture"):
        read_picture(path, 24)


# CelebA


@pytest.mark.parametrize("layout", ["original", "kaggle", "flat"])
def test_celeba(tmp_path, layout):
    data = open_celeba(image_files.write_celeba(tmp_path, layout=layout))
    check(data)
    assert data.inputs == Images(64, 64)
    assert len(data.tasks) == 40
    assert {task.metric for task in data.tasks} == {"f1"}
    assert [len(source) for source in data.splits.values()] == [4, 1, 1]
    assert data.splits["val"].ids == ["000005.jpg"]
    values = image_files.faces(6)
    for index in range(4):
        example = data.splits["train"][index]
        squares = example["inputs"].reshape(8, 8, 64, 3)[:, 3:5, 6::13].mean((1, 3))
        np.testing.assert_array_equal(squares > 0.5, values[index].reshape(8, 5) == 1)
        for column, name in enumerate(image_files.ATTRIBUTES):
            assert example["targets"][name] == (values[index, column] + 1) // 2
    assert "list_attr_celeba" in data.splits["val"].where(0)


def test_some_attributes(tmp_path):
    root = image_files.write_celeba(tmp_path)
    data = open_celeba(root, size=24, attributes=("Young", "Male"), metric="accuracy")
    check(data)
    assert data.names == ("Male", "Young")
    assert data.tasks[0].metric == "accuracy"
    with pytest.raises(BadData, match="no attribute 'Old' among 5_o_Clock_Shadow"):
        open_celeba(root, attributes=("Old",))
    with pytest.raises(ValueError, match="metric 'auc'"):
        open_celeba(root, metric="auc")


def edit(path, old, new, count=1):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


@pytest.mark.parametrize("layout", ["original", "kaggle"])
def test_lines_that_do_not_fit(tmp_path, layout):
    """Each is an error of one picture, with its line; the others stay."""
    root = image_files.write_celeba(tmp_path, layout=layout, parts=(*[0] * 9, 1, 2, 2))
    (labels,) = root.glob("**/list_attr_celeba.*")
    (parts,) = root.glob("**/list_eval_partition.*")
    comma = "," if layout == "kaggle" else " "
    lines = labels.read_text().splitlines()
    first = 2 if layout == "kaggle" else 3  # line of the first picture
    row = lines[first - 1 + 1].split(comma)
    lines[first - 1 + 1] = comma.join([*row[:-1], "0"])  # Young of 2
    lines[first - 1 + 2] += f"{comma}1"  # 3 has 41 values
    lines[first - 1 + 3] = lines[first - 1 + 3].replace("000004", "000444")
    labels.write_text("\n".join(lines) + "\n")
    edit(parts, f"000005.jpg{comma}0", f"000005.jpg{comma}7")
    edit(parts, f"000006.jpg{comma}0", f"000006.jpg{comma}0\n000006.jpg{comma}2")
    next(root.glob("**/000009.jpg")).unlink()
    data = open_celeba(root)
    train = data.splits["train"]
    found = {train.ids[index]: error for index, error in faults(train).items()}
    assert {name: str(error).split(": ", 1)[1] for name, error in found.items()} == {
        "000002.jpg": "Young of 000002.jpg is '0'. It is 1 or -1",
        "000003.jpg": "41 attributes of 40. Get the list again",
        "000444.jpg": f"000444.jpg is not in {parts.name}. Add its part there",
        "000004.jpg": f"000004.jpg is not in {labels.name}. Add its attributes there",
        "000005.jpg": "000005.jpg has the part '7'. It is 0 (train), 1 (val) or 2 "
        "(test)",
        "000009.jpg": "no such file. Get it, or strike it off the list",
    }
    assert found["000002.jpg"].path == labels
    assert found["000002.jpg"].row == first + 1
    assert found["000004.jpg"].path == parts
    (twice,) = faults(data.splits["test"]).values()
    assert "000006.jpg is listed a second time" in str(twice)
    assert len(faults(data.splits["val"])) == 0


def test_the_list_of_attributes_twice(tmp_path):
    """A picture of two lines is in `ids` twice, where the common check finds it."""
    root = image_files.write_celeba(tmp_path, layout="kaggle")
    path = root / "list_attr_celeba.csv"
    path.write_text(path.read_text() + path.read_text().splitlines()[1] + "\n")
    ids = open_celeba(root).splits["train"].ids
    assert ids.count("000001.jpg") == 2


def test_celeba_that_is_not_all_there(tmp_path):
    root = image_files.write_celeba(tmp_path / "whole")
    edit(root / "Anno/list_attr_celeba.txt", "6\n", "7\n")
    with pytest.raises(BadData, match="first line says '7', and 6 pictures follow"):
        open_celeba(root)
    (root / "Anno/list_attr_celeba.txt").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(BadData, match="not a text file"):
        open_celeba(root)
    (root / "Anno/list_attr_celeba.txt").unlink()
    with pytest.raises(
        BadLayout, match=r"attributes is at none of Anno/list_attr_cele"
    ):
        open_celeba(root)
    with pytest.raises(BadLayout, match="the folder of pictures is at none of"):
        open_celeba(tmp_path / "empty")
    root = image_files.write_celeba(tmp_path / "twice")
    edit(root / "Anno/list_attr_celeba.txt", "Bald", "Young")
    with pytest.raises(BadData, match="the attribute 'Young' twice"):
        open_celeba(root)
    root = image_files.write_celeba(tmp_path / "none", layout="kaggle")
    (root / "list_attr_celeba.csv").write_text("image_id\n000001.jpg\n")
    with pytest.raises(BadData, match=r"list_attr_celeba\.csv: no attributes"):
        open_celeba(root)
    root = image_files.write_celeba(tmp_path / "no val", parts=(0, 0, 2))
    with pytest.raises(BadLayout, match="no picture is in part 1, val"):
        open_celeba(root)


# Office


@pytest.mark.parametrize("data_set", ["office-31", "office-home"])
def test_office_without_lists(tmp_path, data_set):
    root = image_files.write_office(tmp_path, data_set=data_set)
    data = open_office(root, size=24)
    check(data)
    assert data.by_task
    assert (
        data.names
        == {
            "office-31": ("amazon", "dslr", "webcam"),
            "office-home": ("Art", "Clipart", "Product", "Real_World"),
        }[data_set]
    )
    assert all(task.size == 3 for task in data.tasks)
    for task in data.names:
        three = [data.splits[split][task] for split in ("train", "val", "test")]
        assert [len(source) for source in three] == [3, 3, 3]
        assert len({name for source in three for name in source.ids}) == 9
        for source in three:
            for index, name in enumerate(source.ids):
                assert source[index]["targets"][task] == int(name[6:8])
    again = open_office(root, size=24)
    assert again.splits["val"]["dslr" if "dslr" in data.names else "Art"].ids == (
        data.splits["val"]["dslr" if "dslr" in data.names else "Art"].ids
    )


def test_sixty_twenty_twenty(tmp_path):
    data = open_office(image_files.write_office(tmp_path, classes=2, pictures=10))
    sizes = [len(split["dslr"]) for split in data.splits.values()]
    assert sizes == [12, 4, 4]


def test_pictures_are_normalised(tmp_path):
    root = image_files.write_office(tmp_path)
    for path in root.glob("**/*.jpg"):
        Image.new("RGB", (20, 20), "white").save(path)
    example = open_office(root, size=24).splits["train"]["amazon"][0]
    for channel, (mean, sd) in enumerate(
        [(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]
    ):
        np.testing.assert_allclose(
            example["inputs"][..., channel], (1 - mean) / sd, rtol=1e-5
        )


@pytest.mark.parametrize("data_set", ["office-31", "office-home"])
def test_lists_of_libmtl(tmp_path, data_set):
    root = image_files.write_office(tmp_path / "data", data_set=data_set)
    lists = image_files.write_office_lists(root, tmp_path / "lists")
    data = open_office(root, lists=lists, size=24)
    check(data)
    assert any("number classes otherwise" in note for note in data.notes)
    for task in data.names:
        three = [data.splits[split][task] for split in ("train", "val", "test")]
        assert [len(source) for source in three] == [6, 2, 1]
        for source in three:
            for index, name in enumerate(source.ids):
                assert source[index]["targets"][task] == int(name[6:8])
        assert "_val.txt, row 2" in three[1].where(1)


def test_lists_of_vmtl(tmp_path):
    """Absolute paths of another machine; a tenth of "test" is for validation."""
    root = image_files.write_office(
        tmp_path / "data", data_set="office-home", pictures=6
    )
    lists = image_files.write_office_lists(root, tmp_path / "lists", kind="vmtl")
    data = open_office(root, lists=lists, size=24)
    check(data)
    assert [len(split["Art"]) for split in data.splits.values()] == [6, 2, 10]
    ids = [name for split in data.splits.values() for name in split["Art"].ids]
    assert len(set(ids)) == 18
    for task in ("Art", "Clipart", "Product", "Real_World"):
        for part in ("train", "test"):
            shutil.copy(lists / task / f"{part}_5.txt", lists / task / f"{part}_20.txt")
    with pytest.raises(BadLayout, match="lists with 5, 20 %"):
        open_office(root, lists=lists)
    assert open_office(root, lists=lists, percent=20).by_task
    with pytest.raises(BadLayout, match=r"nor Art/train_10.txt"):
        open_office(root, lists=lists, percent=10)


def test_lines_of_lists_that_do_not_fit(tmp_path):
    root = image_files.write_office(tmp_path / "data", classes=4)
    lists = image_files.write_office_lists(root, tmp_path / "lists")
    path = lists / "amazon_train.txt"
    head = "amazon/images/"
    path.write_text(
        f"{head}class_00/00001.jpg 3\n"
        f"{head}class_00/00002.jpg 2\n"
        f"{head}class_09/00001.jpg 1\n"
        "dslr/images/class_00/00001.jpg 3\n"
        f"{head}class_01/00001.jpg\n"
        f"{head}class_01/00009.jpg 2\n"
        "\n"
        f"C:\\data\\{head}class_01\\00001.jpg\t2\n"
        "00001.jpg 2\n"
    )
    train = open_office(root, lists=lists, size=24).splits["train"]["amazon"]
    found = faults(train)
    assert {error.row: error.found for error in found.values() if error.row} == {
        2: "class 2 for class_00, which is 3 in amazon_train.txt, row 1",
        3: "there is no folder of class class_09",
        4: "dslr/images/class_00 is not of amazon",
        5: "no path and class number",
        9: "no path and class number",
    }
    assert list(found) == [1, 2, 3, 4, 5, 7]
    assert "class_01/00009.jpg: no such file" in str(found[5])


def test_a_list_that_is_no_text(tmp_path):
    root = image_files.write_office(tmp_path / "data")
    lists = image_files.write_office_lists(root, tmp_path / "lists")
    with (lists / "dslr_val.txt").open("ab") as file:
        file.write(b"\xe9 1\n")
    with pytest.raises(BadLayout, match=r"dslr_val\.txt: not in UTF-8"):
        open_office(root, lists=lists, size=24)


def test_a_class_that_a_domain_lacks(tmp_path):
    root = image_files.write_office(tmp_path)
    shutil.rmtree(root / "dslr/images/class_01")
    (root / "webcam/images/.cache").mkdir()
    (root / "webcam/images/class_00/notes.txt").write_text("no picture")
    data = open_office(root, size=24)
    check(data)
    assert "dslr has no class_01." in data.notes
    assert "1 files are left out: no .jpeg, .jpg, .png." in data.notes
    assert {task.size for task in data.tasks} == {3}
    labels = {
        int(example["targets"]["dslr"]) for example in data.splits["train"]["dslr"]
    }
    assert labels == {0, 2}


def test_office_that_is_not_all_there(tmp_path):
    root = image_files.write_office(tmp_path / "data")
    with pytest.raises(BadLayout, match=r"neither amazon_train\.txt and so on"):
        open_office(root, lists=tmp_path / "lists")
    for path in (root / "dslr").glob("**/*.jpg"):
        path.unlink()
    with pytest.raises(BadLayout, match="no pictures for train of dslr"):
        open_office(root)
    shutil.rmtree(root / "dslr")
    with pytest.raises(
        BadLayout, match="of office-31 no dslr; of office-home no Art, C"
    ):
        open_office(root)
