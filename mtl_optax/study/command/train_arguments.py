"""The options of `mtl-optax train`. Only the standard library is imported here."""

import argparse
import ast
import os
from pathlib import Path
from typing import Any

from mtl_optax.training.datasets import DATASETS


def add(commands: Any, count: Any) -> None:
    """The command, to those of the whole; `count` reads a number of at least 1."""
    train = commands.add_parser(
        "train",
        help="train a network of several tasks on a data set in a folder of yours",
        description="Data sets: "
        + "; ".join(f"{name}: {line.about}" for name, line in DATASETS.items())
        + ". Defaults of batch, rate and epochs are those of the data set.",
    )
    option = train.add_argument
    option("dataset", choices=DATASETS, metavar="DATASET", help=", ".join(DATASETS))
    option("--data", type=Path, required=True, metavar="DIR", help="its folder")
    option("--out", type=Path, metavar="DIR", help="(results/DATASET-METHOD)")
    option("--method", default="unitary", help="as in mtl-optax methods (unitary)")
    option(
        *("--hyper",),
        type=_hyper,
        metavar="A=X,B=Y",
        help="settings of the method, such as c=0.2; of constant the tasks' weights",
    )
    option("--arch", default="hps", help="what tasks share (hps: hard sharing)")
    option("--encoder", help="the network before the heads (the data set's first)")
    option("--width", type=count, help="channels of the encoder's first stage")
    option("--weights", metavar="FILE", help="safetensors file for the encoder")
    option("--epochs", type=count, metavar="N")
    option("--batch", type=count, metavar="N", help="examples a step, on all devices")
    option("--lr", type=_rate, metavar="RATE")
    option("--optimizer", default="adam", help="adam, sgd, gd or muon (adam)")
    option("--schedule", default="constant", choices=("constant", "cosine"))
    option("--seed", type=_seed, default=0)
    option(
        "--devices", type=count, metavar="N", help="that share a batch (as many as can)"
    )
    option(
        *("--workers",),
        type=_workers,
        default=0,
        metavar="N",
        help="processes that read and augment (0: threads of this one)",
    )
    option(
        *("--log-every",),
        type=count,
        default=20,
        metavar="N",
        help="steps between two rows of steps.csv (20)",
    )
    option(
        *("--mix",),
        type=_mix,
        metavar="TASK=W,...",
        help="where tasks have examples of their own: batches of rows of all tasks in "
        "these proportions (a batch of each task)",
    )
    option(
        *("--convention",),
        type=_convention,
        default="pixels",
        help="of dense metrics: pixels as LibMTL, batches:2 (NYUv2) or batches:8 "
        "(Cityscapes) as CAGrad, Nash-MTL and FAMO, images as early MTAN (pixels)",
    )
    for name, text in {
        "resume": "go on where the run in OUT was stopped",
        "single-tasks": "train every task alone too, and report Delta-m",
        "skip-bad": "count examples that do not fit, and leave them out",
    }.items():
        option(f"--{name}", action="store_true", help=text)
    own = train.add_argument_group("of single data sets")
    own.add_argument("--classes", type=count, help="cityscapes: 7 or 19")
    own.add_argument("--size", type=count, help="celeba, office: pixels of a side")
    own.add_argument("--metric", choices=("f1", "accuracy"), help="celeba (f1)")
    own.add_argument("--attributes", type=_names, help="celeba: some, as A,B (all 40)")
    own.add_argument("--name", help="multimnist: which of several files")
    own.add_argument("--lists", type=Path, help="office: folder with lists of files")
    own.add_argument("--percent", type=count, help="office: which of VMTL's lists")
    own.add_argument("--description", type=Path, help="table: another TOML file")
    own.add_argument(
        "--entire-space",
        action="store_const",
        const=True,
        help="aliexpress: learn conversions from all rows, as a product",
    )


def _convention(text: str) -> str:
    way, _, number = text.partition(":")
    counted = way == "batches" and number.isdecimal() and int(number) > 0
    if text not in ("pixels", "images") and not counted:
        raise argparse.ArgumentTypeError(f"{text} is not pixels, images or batches:N")
    return text


def _whole(text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= most):
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 0 to {most}")
    return int(text)


def _seed(text: str) -> int:
    return _whole(text, 2**32 - 1)  # what draws of batches and of JAX tell apart


def _workers(text: str) -> int:
    return _whole(text, 4 * (os.cpu_count() or 1))  # more of them only wait


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no positive number")
    return value


def _pairs(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name and sign and value for name, sign, value in pairs):
        raise argparse.ArgumentTypeError(f"{text} is not NAME=VALUE,NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _hyper(text: str) -> dict[str, Any]:
    """Numbers, True, False and None as such; all else as text."""

    def value(text: str) -> Any:
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return text

    return {name: value(own) for name, own in _pairs(text).items()}


def _mix(text: str) -> dict[str, float]:
    return {name: _rate(own) for name, own in _pairs(text).items()}
