"""A study in shards: what one trains, and what makes a whole of them."""

import argparse
import shlex
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

import mtl_optax
from mtl_optax.study import studies
from mtl_optax.study.command.arguments import Incomplete, UsageError, parser
from mtl_optax.study.command.choices import Asked, default_out
from mtl_optax.study.command.progress import bars
from mtl_optax.study.engine.checkpoints import Checkpoints, Refused
from mtl_optax.study.engine.run import concluded, prepared
from mtl_optax.study.engine.shard_files import Pieces, begun, together
from mtl_optax.study.engine.shards import Piece, Shard, pieces, share, sources
from mtl_optax.study.engine.study import PartResult
from mtl_optax.study.engine.train import train_all

FOLDER = "shards"  # in OUT


def train(asked: Asked, options: argparse.Namespace) -> None:
    """The pieces of one shard that are not there yet."""
    if options.resume:
        raise UsageError(
            "a shard goes on by itself where it was stopped: leave --resume out"
        )
    shard, folder = Shard(*options.shard), asked.out / FOLDER
    every = pieces(asked.parts.values())
    own = share(every, shard)
    found = Pieces(folder, _identities(asked))
    found.begin(shard, _without_shard(options.arguments))
    todo: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for piece in own:
        todo[piece.part][piece.method].append(piece.block)
    console = Console()
    trained = [
        _part(asked, shard, name, blocks, found, console)
        for name, blocks in todo.items()
    ]
    if not own:
        print(
            f"Shard {shard} has nothing to do: {len(every)} pieces are all there are."
        )
        return
    print(
        f"Shard {shard}: {len(own)} of {len(every)} pieces, {sum(trained)} trained "
        f"now. When all shards are done: mtl-optax report {asked.out}"
    )


def _part(
    asked: Asked,
    shard: Shard,
    name: str,
    blocks: dict[str, list[int]],
    found: Pieces,
    console: Console,
) -> int:
    """What the shard has of a part; the number of pieces trained."""
    part, settings = asked.parts[name]
    for method in list(blocks):
        if all(found.has(Piece(name, method, x, 0)) for x in blocks[method]):
            del blocks[method]
    if not blocks:
        return 0
    number = sum(map(len, blocks.values()))
    console.print(
        f"{part.title}, shard {shard}: {number} piece(s) of {', '.join(blocks)}",
        highlight=False,
        markup=False,
    )
    _, work = prepared(part, settings, tuple(blocks))
    work = {
        method: own._replace(blocks=own.blocks[blocks[method]])
        for method, own in work.items()
        if own.blocks is not None
    }
    store = _checkpoints(found, shard, name, blocks)
    with bars(console, tuple(work), settings.steps) as tick:
        runs = train_all(work, settings.recipe(part.readings), tick, store)
    for method, run in runs.items():
        found.write(name, method, blocks[method], run)
    store.remove()
    with suppress(OSError):  # other parts may have some
        store.folder.parent.rmdir()
    return number


def _checkpoints(
    found: Pieces, shard: Shard, name: str, blocks: dict[str, list[int]]
) -> Checkpoints:
    """Those that a kill left, if they are of the same pieces."""
    folder = found.folder / f"going_on_{shard.number}_of_{shard.of}" / name
    identity = {**found.identities[name], "blocks": blocks}
    try:
        return Checkpoints(folder, identity, resume=folder.exists())
    except Refused:
        return Checkpoints(folder, identity, resume=False)


def none_in(out: Path) -> None:
    """Refuses a folder that holds shards, which a report would take for its results."""
    if (out / FOLDER).exists():
        raise UsageError(
            f"{out / FOLDER} holds shards: join them with mtl-optax report {out}, "
            f"delete that folder, or use another --out"
        )


def arguments(out: Path) -> list[str]:
    """The command of the shards in a folder, but for `--shard`."""
    every = [said["arguments"] for said in begun(out / FOLDER).values()]
    if not every:
        raise UsageError(f"{out / FOLDER} holds no shard: mtl-optax study ... --shard")
    return list(every[0])


def complete(asked: Asked, arguments: list[str]) -> list[Piece]:
    """All pieces; `Incomplete` says which are missing, and how to make them."""
    every = pieces(asked.parts.values())
    found = Pieces(asked.out / FOLDER, _identities(asked, joins=True))
    missing = [piece for piece in every if not found.has(piece)]
    if not missing:
        return every
    counts = [said["shard"][1] for said in begun(found.folder).values()]
    count = max(counts, key=lambda x: (counts.count(x), x))
    lines = [f"{asked.out}: {len(missing)} of {len(every)} pieces are missing:"]
    commands = []
    for index in range(1, count + 1):
        own = set(share(every, Shard(index, count))) & set(missing)
        if own:
            told = [x.about(asked.parts[x.part][1]) for x in missing if x in own]
            lines += [f"  shard {index}/{count}: {text}" for text in told]
            commands.append(_command(asked, arguments, Shard(index, count)))
    raise Incomplete("\n".join([*lines, "Make them with", *commands]))


def results(asked: Asked, every: list[Piece]) -> dict[str, PartResult]:
    """Of each part, as if it had been trained here."""
    found = Pieces(asked.out / FOLDER, _identities(asked, joins=True))
    made = {}
    for name, (part, settings) in asked.parts.items():
        problem, work = prepared(part, settings)
        runs = {
            method: together(
                [found.read(x) for x in every if (x.part, x.method) == (name, method)]
            )
            for method in work
        }
        args = part, settings, problem, work, runs, asked.study.name
        made[name] = concluded(*args)
    return made


def _identities(asked: Asked, *, joins: bool = False) -> dict[str, dict[str, Any]]:
    """Of each part; who joins may have another device than those that trained."""
    folders = [Path(mtl_optax.__file__).parent]
    if asked.study.name not in studies.OWN:
        folders.append(studies.CLONE / "benchmarks" / "studies")
    code = {"source code": sources(folders)}
    every = {name: asked.identity(name) | code for name in asked.parts}
    if joins:
        said = next(iter(begun(asked.out / FOLDER).values()))["identities"]
        for name in every.keys() & said.keys():
            every[name]["device"] = said[name].get("device")
    return every


def _without_shard(arguments: list[str]) -> list[str]:
    """Argparse takes `--shard 1/2`, `--shard=1/2`, and what begins the name."""
    kept, skip = [], False
    for word in arguments:
        name = word.partition("=")[0]
        if skip:
            skip = False
        elif len(name) > len("--s") and "--shard".startswith(name):
            skip = "=" not in word
        else:
            kept.append(word)
    return kept


def _command(asked: Asked, arguments: list[str], shard: Shard) -> str:
    out = parser().parse_args(arguments).out or default_out(asked.study.name)
    moved = [] if out == asked.out else ["--out", str(asked.out)]
    words = ["mtl-optax", *arguments, *moved, "--shard", str(shard)]
    return f"  {shlex.join(words)}"
