"""NYUv2 and Cityscapes as MTAN pre-processed them: a .npy file a picture and task."""

import re
from collections.abc import Mapping
from pathlib import Path

from mtl_optax.data.augment import scale_crop_flip
from mtl_optax.data.dataset import Dataset, Images, Task
from mtl_optax.data.dense_folders import DenseFiles, first_size, numbers_in
from mtl_optax.data.faults import BadLayout


def open_nyuv2(root: Path | str) -> Dataset:
    """NYUv2 with 13 classes, depth and surface normals.

    The tree is `root/{train,val}/{image,label,depth,normal}/NUMBER.npy`, as MTAN
    published it and LibMTL, CAGrad, Nash-MTL and FAMO read it: images `[H, W, 3]` in
    [0, 1], labels `[H, W]` with -1 for none, depth `[H, W, 1]` in metres with 0 for
    none, normals `[H, W, 3]` of length 1 with (0, 0, 0) for none. Sizes are those of
    the files (288 x 384 as published). Numbers may have gaps; a folder `test` is read
    too, in the place of `val` if that is missing. Labels may be of any numeric type
    that holds whole numbers (MTAN's are floats), and everything else of any floating
    type; values of images are taken as they are.

    Args:
      root: the folder that holds `train` and `val`.

    Returns:
      :class:`Dataset` with the tasks depth, normals and segmentation, whose training
      examples are augmented by :func:`scale_crop_flip`. Reading an example raises
      :class:`BadData` for a file that is missing in one folder, cut short, pickled, of
      another type or shape; for a depth or normal that is not finite, a negative
      depth, a label that is no whole number, and for 255, by which other formats mark
      pixels without a class.

    Raises:
      BadLayout: if folders or files are not there, or no image can be read.

    Cost: lists the folders, and reads one image.

    When not to use it: for the 40 classes of NYUD-v2, which come as pictures.

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> import numpy as np
      >>> from mtl_optax.data.dense import open_nyuv2
      >>> normals = np.tile([0.0, 0.0, 1.0], (4, 6, 1))
      >>> files = {"image": normals, "label": normals[..., 0]}
      >>> files |= {"depth": normals[..., 2:], "normal": normals}
      >>> with tempfile.TemporaryDirectory() as root:
      ...     for place in [Path(root, x, y) for x in ("train", "val") for y in files]:
      ...         place.mkdir(parents=True)
      ...         np.save(place / "0.npy", files[place.name])
      ...     data = open_nyuv2(root)
      ...     example = data.splits["train"][0]
      >>> data.names, example["inputs"].shape
      (('depth', 'normals', 'segmentation'), (4, 6, 3))

    References:
      Silberman, Hoiem, Kohli, Fergus, `Indoor Segmentation and Support Inference from
      RGBD Images <https://cs.nyu.edu/~fergus/datasets/indoor_seg_support.pdf>`_, 2012;
      Liu, Johns, Davison, `End-to-End Multi-Task Learning with Attention
      <https://arxiv.org/abs/1803.10704>`_, 2019.
    """
    folders = {"depth": "depth", "normals": "normal", "segmentation": "label"}
    tasks = (
        Task("depth", "depth", unit="m"),
        Task("normals", "normals", size=3),
        Task("segmentation", "segmentation", size=13),
    )
    return _open("nyuv2", Path(root).expanduser(), tasks, folders, ())


def open_cityscapes(root: Path | str, *, classes: int | None = None) -> Dataset:
    """Cityscapes with 7 or 19 classes and disparity.

    The tree is that of :func:`open_nyuv2` without normals (128 x 256 as published).
    Labels stand in `label` (LibMTL, 7 classes), `label_7` (CAGrad, FAMO) or
    `label_19`. The folder `depth` has disparity in [0, 0.5), which is an inverse
    depth, with 0 for none; its name, its metrics and its augmentation are those of the
    published code, which treats it as depth: where a picture is enlarged, it is divided
    by the scale, though the disparity of what comes nearer grows.

    Args:
      root: the folder that holds `train` and `val`.
      classes: which folder of labels to read, where there are several; of a folder
        `label`, which does not say it, the number of classes.

    Returns:
      :class:`Dataset` with the tasks depth and segmentation; as :func:`open_nyuv2`.

    Raises:
      BadLayout: as :func:`open_nyuv2`; if the folder of labels is not determined.

    Cost: as :func:`open_nyuv2`.

    When not to use it: for the pictures of the Cityscapes site, which no published
    multi-task table uses in full size.

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> import numpy as np
      >>> from mtl_optax.data.dense import open_cityscapes
      >>> image = np.ones((4, 6, 3))
      >>> files = {"image": image, "label_7": image[..., 0], "depth": image[..., :1]}
      >>> with tempfile.TemporaryDirectory() as root:
      ...     for place in [Path(root, x, y) for x in ("train", "val") for y in files]:
      ...         place.mkdir(parents=True)
      ...         np.save(place / "0.npy", files[place.name])
      ...     data = open_cityscapes(root)
      >>> data.notes[0]
      'Labels of 7 classes are read from label_7.'

    References:
      Cordts et al., `The Cityscapes Dataset for Semantic Urban Scene Understanding
      <https://arxiv.org/abs/1604.01685>`_, 2016; Liu, Johns, Davison, `End-to-End
      Multi-Task Learning with Attention <https://arxiv.org/abs/1803.10704>`_, 2019.
    """
    root = Path(root).expanduser()
    labels, size = _labels_of(root / "train", classes)
    folders = {"depth": "depth", "segmentation": labels}
    tasks = (
        Task("depth", "depth", unit="disparity"),
        Task("segmentation", "segmentation", size=size),
    )
    notes = (
        f"Labels of {size} classes are read from {labels}.",
        "Depth is disparity, an inverse depth; augmentation divides it by the scale, "
        "as the published code does.",
    )
    return _open("cityscapes", root, tasks, folders, notes)


def _open(
    name: str,
    root: Path,
    tasks: tuple[Task, ...],
    folders: Mapping[str, str],
    notes: tuple[str, ...],
) -> Dataset:
    """Finds the splits, and the size of the first image that can be read."""
    is_test = not (root / "val").is_dir() and (root / "test").is_dir()
    held = ("test",) if is_test else ("val", "test")
    places = {"train": "train", "val": held[0]}
    if len(held) == 2 and (root / "test").is_dir():
        places["test"] = "test"
    if held == ("test",):
        notes += ("There is no folder val: the split val is the folder test.",)
    parts = ("image", *folders.values())
    found = {place: numbers_in(root, place, parts) for place in places.values()}
    size = first_size(root / "train" / "image", sorted(found["train"]["image"]))
    splits = {}
    for split, place in places.items():
        numbers = tuple(sorted(set().union(*found[place].values())))
        counts = {part: len(files) for part, files in found[place].items()}
        splits[split] = DenseFiles(root / place, counts, folders, numbers, size)
        if numbers != tuple(range(len(numbers))):
            notes += (
                f"{place} has {len(numbers)} numbers from {numbers[0]} to "
                f"{numbers[-1]}, with gaps.",
            )
    inputs = Images(size.height, size.width)
    return Dataset(name, tasks, splits, inputs, scale_crop_flip, notes)


def _labels_of(train: Path, classes: int | None) -> tuple[str, int]:
    """The folder of labels, and how many classes it has."""
    there = [x.name for x in train.iterdir() if x.is_dir()] if train.is_dir() else []
    sizes = {x: int(m[1]) for x in there if (m := re.fullmatch(r"label_(\d+)", x))}
    if "label" in there and classes not in sizes.values():
        sizes["label"] = classes or 7
    named = ", ".join(sorted(sizes)) or "no such folder"
    if classes is not None:
        sizes = {x: size for x, size in sizes.items() if size == classes}
    if len(sizes) == 1:
        return next(iter(sizes.items()))
    wanted = "label, label_7 or label_19" if classes is None else f"label_{classes}"
    raise BadLayout(
        train,
        f"should hold labels in {wanted}; there is {named}",
        "Say which with classes=7 or classes=19."
        if sizes
        else f"Give the folder whose train holds {wanted}, as MTAN published it.",
    )
