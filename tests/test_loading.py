"""Batches have numbers: whoever reads batch n gets the same one."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import chex
import numpy as np
import pytest
from toy_data import TASKS, Bars, Lines, bars, brightened, domains, lines

from mtl_optax.data import loading
from mtl_optax.data.faults import BadData
from mtl_optax.data.loading import Reading
from mtl_optax.data.scan import BadDataSet, scan

ALL = np.arange(64)
EIGHT = Reading(8)


def every(iterator):
    return list(iterator)


def read(dataset=None, reading=EIGHT, good=ALL, epochs=2, **options):
    dataset = dataset or dataclasses.replace(bars(), augment=brightened)
    return every(loading.training(dataset, good, reading, epochs=epochs, **options))


def of_rows(batches):
    """Which examples they hold: their labels and noise tell them apart."""
    return np.concatenate([x["inputs"].sum(axis=(1, 2, 3)) for x in batches])


def test_an_epoch_is_every_example_once_in_an_order_of_its_own():
    plain = bars()
    batches = read(plain, epochs=3)
    assert len(batches) == 24
    wanted = np.sort([plain.splits["train"][i]["inputs"].sum() for i in range(64)])
    epochs = [of_rows(batches[8 * e : 8 * e + 8]) for e in range(3)]
    for epoch in epochs:
        np.testing.assert_allclose(np.sort(epoch), wanted, rtol=1e-5)
    assert not np.array_equal(epochs[0], epochs[1])


def test_what_is_left_over_is_another_part_each_epoch():
    dropped = []
    batches = read(bars(), Reading(24), epochs=4)
    assert len(batches) == 8
    for epoch in range(4):
        seen = of_rows(batches[2 * epoch : 2 * epoch + 2])
        assert len(np.unique(seen)) == 48
        dropped.append(frozenset(np.round(seen, 3)))
    assert len(set(dropped)) == 4


@pytest.mark.parametrize("start", [1, 11])
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_going_on_at_a_batch_gives_what_comes_there(start, workers):
    """In mid-epoch, with augmentation, and with another number of workers."""
    chex.assert_trees_all_equal(
        read(reading=Reading(8, workers=workers), start=start), read()[start:]
    )


READER = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from toy_data import bars
from mtl_optax.data import loading
reading = loading.Reading(8, workers=1)
batches = loading.training(bars(), np.arange(64), reading, epochs=None)
next(batches)
print("reading", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_workers_do_not_outlive_a_process_that_is_killed():
    command = [sys.executable, "-c", READER, str(Path(__file__).parent)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == "reading\n"
        process.kill()
        # The pipe ends when all that could write to it are gone, workers included.
        assert process.communicate(timeout=60) == ("", None)


def test_seeds_differ_and_repeat():
    chex.assert_trees_all_equal(
        read(reading=Reading(8, seed=3))[0], read(reading=Reading(8, seed=3))[0]
    )
    one, other = (of_rows(read(reading=Reading(8, seed=s))[:1]) for s in (0, 1))
    assert not np.array_equal(one, other)


def test_processes_share_the_batches_that_one_would_see():
    """Augmented alike: draws belong to the example's place, not to the process."""
    whole = read()
    parts = [read(reading=Reading(8, process=(p, 2))) for p in (0, 1)]
    for batch, *shares in zip(whole, *parts, strict=True):
        for p, share in enumerate(shares):
            np.testing.assert_array_equal(share["inputs"], batch["inputs"][p::2])
            np.testing.assert_array_equal(
                share["targets"]["row"], batch["targets"]["row"][p::2]
            )


def test_draws_differ_between_examples_and_epochs():
    draws = of_rows(read(epochs=2)) - of_rows(read(bars(), epochs=2))
    assert len(np.unique(np.round(draws, 3))) == 128


def test_validation_data_are_not_augmented():
    dataset = dataclasses.replace(bars(), augment=brightened)
    (batch,) = read(dataset, Reading(20), np.arange(20), epochs=1, split="val")
    wanted = sorted(dataset.splits["val"][i]["inputs"].sum() for i in range(20))
    np.testing.assert_allclose(sorted(of_rows([batch])), wanted, rtol=1e-5)


@pytest.mark.parametrize("processes", [1, 2])
def test_evaluation_sees_every_example_once_and_fills_with_none(processes):
    dataset = bars(val=11)
    parts = [
        every(
            loading.evaluation(
                dataset, np.arange(11), Reading(4, process=(p, processes)), split="val"
            )
        )
        for p in range(processes)
    ]
    batches = [batch for part in parts for batch in part]
    assert {len(x["inputs"]) for x in batches} == {4 // processes}
    rows = np.concatenate([x["targets"]["row"] for x in batches])
    assert len(rows) == 12
    assert (rows >= 0).sum() == 11


def test_tasks_with_examples_of_their_own_have_batches_of_their_own():
    """The larger one sets the epoch; the smaller begins anew."""
    dataset = domains()
    batches = read(dataset, Reading(8), scan(dataset).good("train"), epochs=2)
    assert len(batches) == 2 * 5
    for batch in batches:
        assert {k: x.shape for k, x in batch["inputs"].items()} == {
            "column": (8, 8, 8, 1),
            "row": (8, 8, 8, 1),
        }
        assert all((y >= 0).all() for y in batch["targets"].values())
    joined = loading.joined(batches[0], TASKS)
    assert joined["inputs"].shape == (16, 8, 8, 1)
    np.testing.assert_array_equal(joined["targets"]["column"][8:], -1)
    np.testing.assert_array_equal(joined["targets"]["row"][:8], -1)
    np.testing.assert_array_equal(
        joined["targets"]["row"][8:], batches[0]["targets"]["row"]
    )


def test_a_mixture_has_the_proportions_asked_for():
    dataset = domains()
    good = scan(dataset).good("train")
    batches = read(dataset, Reading(8), good, epochs=2, mix={"column": 3, "row": 1})
    assert len(batches) == 2 * 6
    for batch in batches:
        of_column, of_row = (batch["targets"][t] >= 0 for t in ("column", "row"))
        assert of_column.sum() == 6
        assert of_row.sum() == 2
        assert not (of_column & of_row).any()


def test_evaluation_of_each_domain_alone():
    dataset = domains()
    good = scan(dataset).good("val")
    batches = every(loading.evaluation(dataset, good, Reading(4), split="val"))
    counted = {t: sum((x["targets"][t] >= 0).sum() for x in batches) for t in good}
    assert counted == {"column": 6, "row": 5}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reading": Reading(9, process=(0, 2))}, "cannot be shared evenly"),
        ({"reading": Reading(65)}, "smaller --batch"),
        ({"mix": {"row": 1}}, "leave mix out"),
        ({"dataset": domains(), "mix": {"row": 1}}, "weight for each task"),
    ],
)
def test_what_cannot_be_says_so(options, message):
    good = ALL if "dataset" not in options else {"column": ALL[:40], "row": ALL[:10]}
    with pytest.raises(ValueError, match=message):
        read(good=good, **options)


def test_bad_examples_are_refused_by_name():
    with pytest.raises(BadDataSet, match=r"bars, row 7: inputs is not finite.*\n.*9"):
        scan(bars(bad=(7, 9)))


def test_or_counted_and_left_out():
    found = scan(bars(bad=(7, 9)), skip_bad=True)
    assert [str(fault)[:11] for fault in found.faults] == ["bars, row 7", "bars, row 9"]
    assert set(ALL) - set(found.good("train")) == {7, 9}


def test_labels_are_described():
    found = scan(bars(without=(1, 2, 3)))
    column, row = (found.splits["train"].labels[t] for t in ("column", "row"))
    assert (column.missing, column.without, column.low, column.high) == (3, 3, 0, 3)
    assert row.share_missing == 0
    assert found.absent("train")
    assert not found.absent("val")


def test_a_task_without_any_label_is_refused():
    with pytest.raises(BadData, match="column has no label"):
        scan(bars(without=ALL))


class Wrong(Bars):
    def __init__(self, change):
        super().__init__(12)
        self.change = change

    def __getitem__(self, index):
        example = super().__getitem__(index)
        return self.change(example) if index == 5 else example


def larger(example):
    return {**example, "inputs": np.zeros((9, 8, 1), np.float32)}


def other_class(example):
    return {**example, "targets": {**example["targets"], "row": np.int32(4)}}


def no_label(example):
    return {**example, "targets": {"row": np.int32(0)}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (larger, r"inputs has shape \(9, 8, 1\), others \(8, 8, 1\)"),
        (other_class, "label 4 of row is none of the classes 0 to 3"),
        (no_label, "there is no label of column"),
    ],
)
def test_what_does_not_fit_is_found(change, message):
    dataset = dataclasses.replace(
        bars(), splits={"train": Wrong(change), "val": Bars(8)}
    )
    with pytest.raises(BadDataSet, match=rf"bars, row 5: {message}"):
        scan(dataset)


def test_an_id_that_is_there_twice():
    dataset = bars(train=8)
    dataset.splits["train"].ids = [0, 1, 2, 3, 2, 5, 6, 7]
    with pytest.raises(BadDataSet, match=r"row 4: the id 2 is there twice.*row 2"):
        scan(dataset)


def test_an_id_that_is_in_two_splits():
    dataset = bars(train=2, val=2)
    dataset.splits["train"].ids = ["a", "b"]
    dataset.splits["val"].ids = ["c", "b"]
    with pytest.raises(BadDataSet, match=r"row 1: the id 'b' is there twice.*row 1"):
        scan(dataset)


class Taken(Lines):
    """Lines that can be read many at once."""

    def take(self, indices):
        examples = [self[int(i)] for i in indices]
        inputs, targets = (
            {
                name: np.stack([x[part][name] for x in examples])
                for name in examples[0][part]
            }
            for part in ("inputs", "targets")
        )
        if not np.isfinite(inputs["numbers"]).all():
            raise BadData("lines", "not finite", "Mend it")
        return {"inputs": inputs, "targets": targets}


@pytest.mark.parametrize("bad", [(), (7, 9)])
def test_reading_many_at_once_changes_nothing(bad):
    """Neither what is found, nor batches of training and of evaluation."""
    sources = [kind(64, bad=bad, without=(3,)) for kind in (Lines, Taken)]
    plain = dataclasses.replace(lines(), augment=None)
    slow, fast = (
        dataclasses.replace(plain, splits={"train": x, "val": x}) for x in sources
    )
    found = [scan(dataset, skip_bad=True) for dataset in (slow, fast)]
    for split in ("train", "val"):
        one, other = (x.splits[split] for x in found)
        assert (one.labels, one.shapes) == (other.labels, other.shapes)
        assert len(one.faults) == len(other.faults) == len(bad)
    good = found[0].good("train")
    np.testing.assert_array_equal(found[1].good("train"), good)
    chex.assert_trees_all_equal(read(fast, good=good), read(slow, good=good))
    held = [
        every(loading.evaluation(dataset, good, Reading(24), split="val"))
        for dataset in (fast, slow)
    ]
    for one, other in zip(*held, strict=True):
        chex.assert_trees_all_equal(one["targets"], other["targets"])
