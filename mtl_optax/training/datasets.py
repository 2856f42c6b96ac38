"""The data sets of `mtl-optax train`: a line for each. Standard library alone."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple


class Line(NamedTuple):
    """A data set of the command."""

    about: str
    opens: str  # module:function
    options: tuple[str, ...] = ()  # keywords of the function that the command has
    batch_size: int = 8
    learning_rate: float = 1e-4
    epochs: int = 200
    encoder: str | None = None  # the one that the published code trains


DATASETS: Mapping[str, Line] = {
    "nyuv2": Line(
        "segmentation (13 classes), depth and normals; MTAN's files",
        *("dense:open_nyuv2", ()),
    ),
    "cityscapes": Line(
        "segmentation and depth; MTAN's files",
        *("dense:open_cityscapes", ("classes",)),
    ),
    "celeba": Line(
        "40 attributes of faces, original layout or Kaggle's",
        *("celeba:open_celeba", ("size", "metric", "attributes")),
        batch_size=256,
        learning_rate=3e-4,
        epochs=15,
    ),
    "multimnist": Line(
        "two digits or garments in a picture; pickles or torch files",
        *("multimnist:open_multimnist", ("name",)),
        batch_size=256,
        learning_rate=1e-3,
        epochs=100,
    ),
    "qm9": Line(
        "11 properties of molecules, from a npz file",
        *("qm9:open_qm9", ()),
        batch_size=120,
        learning_rate=1e-3,
        epochs=300,
    ),
    "office": Line(
        "Office-31 or Office-Home: a task for each domain",
        *("office:open_office", ("size", "lists", "percent")),
        batch_size=64,
        epochs=100,
    ),
    "aliexpress": Line(
        "clicks and conversions, CSV or Parquet",
        *("aliexpress:open_aliexpress", ("entire_space",)),
        batch_size=2048,
        learning_rate=1e-3,
        epochs=10,
    ),
    "table": Line(
        "any CSV or Parquet files, described by a table.toml beside them",
        *("table:open_table", ("description",)),
        batch_size=256,
        learning_rate=1e-3,
        epochs=50,
    ),
}


def open_dataset(name: str, root: Path, options: Mapping[str, Any]) -> Any:
    """The data set in a folder; options that were not given are left to the loader."""
    module, function = DATASETS[name].opens.split(":")
    opener = getattr(import_module(f"mtl_optax.data.{module}"), function)
    return opener(root, **{k: x for k, x in options.items() if x is not None})
