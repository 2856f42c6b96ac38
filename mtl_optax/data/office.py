"""Office-31 and Office-Home: the same classes of things in several domains.

`amazon/images/back_pack/frame_0001.jpg` and so on of amazon, dslr, webcam; or
`Art/Calendar/00017.jpg` of Art, Clipart, Product and Real World. A domain is a task
with pictures of its own.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mtl_optax.data.dataset import Dataset, Images, Source, Task
from mtl_optax.data.faults import BadLayout
from mtl_optax.data.office_lists import SPLITS, Listed, Splits, by_lists
from mtl_optax.data.pictures import CONVERTED, ENDINGS, Pictures

DOMAINS: Mapping[str, Mapping[str, tuple[str, ...]]] = {  # and names of their folders
    "office-31": {name: (name,) for name in ("amazon", "dslr", "webcam")},
    "office-home": {
        **{name: (name,) for name in ("Art", "Clipart", "Product")},
        "Real_World": ("Real World", "Real_World", "RealWorld"),
    },
}


def open_office(
    root: Path | str,
    *,
    lists: Path | str | None = None,
    percent: int | None = None,
    size: int = 224,
) -> Dataset:
    """A task for each domain: which of the 31 or 65 things a picture shows.

    Pictures are as in LibMTL: the whole one is squeezed to a square by bilinear
    interpolation, less ImageNet's mean, over its sd. There is no augmentation.

    Args:
      root: the folder that holds the folders of the domains.
      lists: a folder of lists of pictures, lines `PATH CLASS`: LibMTL's, `DOMAIN_train
        .txt` and so on for val and test; or VMTL's, `DOMAIN/train_5.txt` and
        `DOMAIN/test_5.txt`. Of a path the class's folder and the file count. None: by
        class, 60 % of the pictures are for training, 20 % for validation and for test,
        drawn anew for each class and always the same.
      percent: of training pictures in VMTL's lists: 5, 10 or 20.
      size: of the square, in pixels.

    Returns:
      `Dataset` with images `[size, size, 3]`, float32; each split is a dict from
      domains to sources. Classes are folders, numbered in sorted order, over all
      domains together; lists number them otherwise (LibMTL's in no order), which
      changes no metric.

    Raises:
      BadLayout: if a domain's folder or list is not there, or has no pictures.
      BadData: of one picture, when it is read: it is missing or damaged, or its line in
        a list has no class, another domain, or another number than lines before it give
        the same folder.

    Cost: lists the folders.

    When not to use it: VMTL's lists for a choice by "val": they have no such part, so a
    tenth of the test pictures are taken for it, and the test has that much less.

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> from PIL import Image
      >>> from mtl_optax.data.office import open_office
      >>> with tempfile.TemporaryDirectory() as root:
      ...     for number in range(15):
      ...         domain = ("amazon", "dslr", "webcam")[number % 3]
      ...         folder = Path(root, domain, "images", "mug")
      ...         folder.mkdir(parents=True, exist_ok=True)
      ...         Image.new("RGB", (30, 30)).save(folder / f"frame_{number}.jpg")
      ...     data = open_office(root, size=24)
      >>> {name: len(source) for name, source in data.splits["train"].items()}
      {'amazon': 3, 'dslr': 3, 'webcam': 3}

    References:
      K. Saenko et al. Adapting Visual Category Models to New Domains, ECCV 2010.
      H. Venkateswara et al. Deep Hashing Network for Unsupervised Domain Adaptation,
      CVPR 2017.
    """
    root = Path(root)
    domains, folders = _folders(root)
    classes, notes = _classes(folders)
    if lists is None:
        splits, more = _by_class(folders, classes)
    else:
        splits, more = by_lists(Path(lists), percent, domains, classes)
    notes += more
    for split, listed in splits.items():
        for task, pictures in listed.items():
            if not pictures.ids:
                where = folders[task] if lists is None else lists
                raise BadLayout(where, f"no pictures for {split} of {task}", "Add some")
    sources: dict[str, dict[str, Source]] = {
        split: {
            task: _source(folders[task], task, listed[task], size) for task in folders
        }
        for split, listed in splits.items()
    }
    notes.append(
        f"Whole pictures are squeezed to {size} x {size}, less ImageNet's mean, over "
        f"its sd, as in LibMTL. {CONVERTED}."
    )
    tasks = tuple(Task(name, "class", len(classes)) for name in folders)
    return Dataset("office", tasks, sources, Images(size, size), notes=tuple(notes))


def _folders(root: Path) -> tuple[Mapping[str, tuple[str, ...]], dict[str, Path]]:
    """Names of each domain's folder, and the folder of its classes."""
    missing = {}
    for data_set, domains in DOMAINS.items():
        there = {
            task: [root / name for name in names if (root / name).is_dir()]
            for task, names in domains.items()
        }
        if all(there.values()):
            folders = {task: found[0] for task, found in there.items()}
            inside = {task: folder / "images" for task, folder in folders.items()}
            return domains, {
                task: inside[task] if inside[task].is_dir() else folders[task]
                for task in sorted(folders)
            }
        missing[data_set] = [task for task, found in there.items() if not found]
    looked = "; ".join(f"of {name} no {', '.join(x)}" for name, x in missing.items())
    raise BadLayout(root, looked, "Name the folder that holds all domains of one")


def _classes(folders: dict[str, Path]) -> tuple[list[str], list[str]]:
    """Names of the classes over all domains, and notes."""
    of = {
        task: {place.name for place in folder.iterdir() if place.is_dir()}
        for task, folder in folders.items()
    }
    classes = sorted(set().union(*of.values()))
    classes = [name for name in classes if not name.startswith(".")]
    notes = [f"{len(classes)} classes, numbered by sorted folder names."]
    for task, names in of.items():
        lacking = [name for name in classes if name not in names]
        if lacking:
            notes.append(f"{task} has no {', '.join(lacking)}.")
    return classes, notes


def _by_class(folders: dict[str, Path], classes: list[str]) -> tuple[Splits, list[str]]:
    """60, 20 and 20 % of the pictures of each class, and notes."""
    splits: Splits = {
        split: {task: Listed([], [], None, [], {}) for task in folders}
        for split in SPLITS
    }
    others = 0
    for task, folder in folders.items():
        for label, name in enumerate(classes):
            place = folder / name
            found = sorted(place.iterdir()) if place.is_dir() else []
            files = [file for file in found if file.suffix.lower() in ENDINGS]
            others += len(found) - len(files)
            order = np.random.default_rng(0).permutation(len(files))
            held = round(0.2 * len(files))
            parts = order[2 * held :], order[:held], order[held : 2 * held]
            for split, part in zip(SPLITS, parts, strict=True):
                listed = splits[split][task]
                listed.ids.extend(f"{name}/{files[i].name}" for i in sorted(part))
                listed.labels.extend([label] * len(part))
    notes = [
        "No lists: of each class 60 % of the pictures are for training, 20 % for "
        "validation, 20 % for test, drawn with seed 0."
    ]
    if others:
        notes.append(f"{others} files are left out: no {', '.join(sorted(ENDINGS))}.")
    return splits, notes


def _source(folder: Path, task: str, listed: Listed, size: int) -> Pictures:
    """The pictures of a domain's split."""
    return Pictures(
        folder=folder,
        ids=listed.ids,
        tasks=(task,),
        labels=np.array(listed.labels)[:, None],
        size=size,
        normalised=True,
        listed_in=listed.path,
        rows=listed.rows,
        faults=listed.faults,
    )
