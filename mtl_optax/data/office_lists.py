"""Lists of Office pictures: LibMTL's and VMTL's, lines `PATH CLASS`.

Paths may be those of another machine: of DOMAIN/[images/]CLASS/FILE the end counts.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mtl_optax.data.faults import BadLayout
from mtl_optax.data.pictures import Fault

SPLITS = ("train", "val", "test")
PERCENTS = (5, 10, 20)  # of VMTL


class Listed(NamedTuple):
    """Pictures of one split of one domain."""

    ids: list[str]  # CLASS/FILE
    labels: list[int]
    path: Path | None  # of the list
    rows: list[int]
    faults: dict[int, Fault]


Splits = Mapping[str, Mapping[str, Listed]]


def by_lists(
    lists: Path,
    percent: int | None,
    domains: Mapping[str, tuple[str, ...]],
    classes: Sequence[str],
) -> tuple[Splits, list[str]]:
    """What lists name, by split and domain, and notes; see `open_office`."""
    reader = _Reader(domains, classes)
    form = {task: [f"{task}_{split}.txt" for split in SPLITS] for task in domains}
    if _all_there(lists, form):
        listed = {
            task: tuple(reader.read(task, lists / file) for file in files)
            for task, files in form.items()
        }
        notes = [f"The splits are those of the lists in {lists.name}."]
    else:
        share = _share(lists, percent, domains)
        listed = {}
        for task in domains:
            train = reader.read(task, lists / task / f"train_{share}.txt")
            val, test = _tenth(reader.read(task, lists / task / f"test_{share}.txt"))
            listed[task] = train, val, test
        notes = [
            f"Training pictures are those of the lists train_{share}.txt; every tenth "
            f"of test_{share}.txt is for validation, the others are for test."
        ]
    if reader.renumbered:
        notes.append("The lists number classes otherwise; the folders are followed.")
    splits = {
        split: {task: listed[task][at] for task in sorted(domains)}
        for at, split in enumerate(SPLITS)
    }
    return splits, notes


def _all_there(lists: Path, files: Mapping[str, Sequence[str]]) -> bool:
    """Whether each domain has its files."""
    return all((lists / name).is_file() for names in files.values() for name in names)


def _share(lists: Path, percent: int | None, domains: Mapping[str, object]) -> int:
    """Which of VMTL's lists there are, or were chosen."""
    there = []
    for share in PERCENTS if percent is None else (percent,):
        pair = f"train_{share}.txt", f"test_{share}.txt"
        if _all_there(lists, {task: [f"{task}/{x}" for x in pair] for task in domains}):
            there.append(share)
    if not there:
        task = next(iter(domains))
        wanted = f"train_{percent or 5}.txt"
        found = f"neither {task}_train.txt and so on, nor {task}/{wanted} and so on"
        raise BadLayout(lists, found, "Name the folder that has them for all domains")
    if len(there) > 1:
        shares = ", ".join(f"{share}" for share in there)
        found = f"lists with {shares} % of the pictures for training"
        raise BadLayout(lists, found, "Choose by percent")
    return there[0]


class _Reader:
    """Reads lists, and remembers which number they give a class's folder."""

    def __init__(self, domains: Mapping[str, tuple[str, ...]], classes: Sequence[str]):
        self._domains = {task: {task, *names} for task, names in domains.items()}
        self._labels = {name: label for label, name in enumerate(classes)}
        self._numbers: dict[str, tuple[int, str]] = {}  # and the place that says so

    @property
    def renumbered(self) -> bool:
        """Whether lists have other numbers than sorted folders."""
        given = self._numbers.items()
        return any(self._labels[name] != number for name, (number, _) in given)

    def read(self, task: str, path: Path) -> Listed:
        """The pictures of one list."""
        listed = Listed([], [], path, [], {})
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise BadLayout(path, f"not in UTF-8: {error}", "Save it anew") from error
        for row, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            where, _, number = line.strip().replace("\t", " ").rpartition(" ")
            parts = where.strip().replace("\\", "/").split("/")
            name = parts[-2] if len(parts) > 1 else ""
            fault = self._fault(task, parts[:-1], number, f"{path.name}, row {row}")
            if fault is not None:
                listed.faults[len(listed.ids)] = Fault(path, *fault, row)
            listed.ids.append("/".join(parts[-2:]))
            listed.labels.append(self._labels.get(name, -1))
            listed.rows.append(row)
        return listed

    def _fault(
        self, task: str, parts: list[str], number: str, place: str
    ) -> tuple[str, str] | None:
        """What is wrong with a line and its cure, or None."""
        if not number.isdecimal() or not parts:
            return "no path and class number", "The line should be PATH CLASS"
        *above, name = parts
        if not self._domains[task] & set(above):
            found = f"{'/'.join(parts)} is not of {task}"
            return found, "Put the line into the list of its domain"
        if name not in self._labels:
            return f"there is no folder of class {name}", "Get the pictures again"
        said, by = self._numbers.setdefault(name, (int(number), place))
        if said != int(number):
            found = f"class {number} for {name}, which is {said} in {by}"
            return found, "Correct the wrong one of these lines"
        return None


def _tenth(listed: Listed) -> tuple[Listed, Listed]:
    """Every tenth picture of a list, and the others."""

    def part(chosen: list[int]) -> Listed:
        return Listed(
            [listed.ids[i] for i in chosen],
            [listed.labels[i] for i in chosen],
            listed.path,
            [listed.rows[i] for i in chosen],
            {at: listed.faults[i] for at, i in enumerate(chosen) if i in listed.faults},
        )

    everything = list(range(len(listed.ids)))
    return part(everything[::10]), part([i for i in everything if i % 10])
