"""What the options of `mtl-optax train` make of a run's settings."""

import argparse
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax

from mtl_optax.data.dataset import Dataset
from mtl_optax.data.loading import check_mix
from mtl_optax.data.scan import Scan
from mtl_optax.study.command.arguments import UsageError
from mtl_optax.study.engine.methods import OPTIMIZERS
from mtl_optax.training import methods, networks
from mtl_optax.training.architectures import ARCHITECTURES
from mtl_optax.training.datasets import DATASETS, Line
from mtl_optax.training.settings import Settings, chosen


def settings_of(options: argparse.Namespace, line: Line) -> Settings:
    """Those given, those of the data set, those of all."""
    try:  # before the data are opened
        chosen("method", options.method, methods.EVERY)
        chosen("architecture", options.arch, ARCHITECTURES)
        chosen("optimiser", options.optimizer, OPTIMIZERS)
    except ValueError as error:
        raise UsageError(str(error)) from error
    batch_size = options.batch or line.batch_size
    # As many as can share the batch evenly.
    devices = options.devices or math.gcd(batch_size, len(jax.local_devices()))
    rate = options.lr
    if rate is None:
        adam = options.optimizer == "adam"
        rate = (
            line.learning_rate if adam else OPTIMIZERS[options.optimizer].learning_rate
        )
    return Settings(
        method=options.method,
        arch=options.arch,
        encoder=options.encoder or line.encoder,
        width=options.width,
        epochs=options.epochs or line.epochs,
        batch_size=batch_size,
        learning_rate=rate,
        optimizer=options.optimizer,
        schedule=options.schedule,
        seed=options.seed,
        devices=devices,
        workers=options.workers,
        log_every=options.log_every,
        convention=options.convention,
        mix=options.mix,
        hyper=options.hyper or {},
        weights=options.weights,
    )


def at_most(settings: Settings, found: Scan, options: argparse.Namespace) -> Settings:
    """With a smaller batch than the data set's usual one, where it has few examples."""
    good = found.good("train")
    if options.batch is not None or isinstance(good, Mapping):
        return settings
    size = min(settings.batch_size, len(good))
    devices = settings.devices if options.devices else math.gcd(size, settings.devices)
    return dataclasses.replace(settings, batch_size=size, devices=devices)


def check_fit(dataset: Dataset, settings: Settings) -> Settings:
    """Refuses what needs no example for it, before minutes go into reading them.

    Returns the settings with the encoder by name.
    """
    try:
        check_mix(dataset, settings.mix)
        encoder = networks.fitting(dataset, settings.arch, settings.encoder)
        methods.transformation(
            *(settings.method, dataset.names),
            optimizer=settings.optimizer,
            learning_rate=settings.learning_rate,
            schedule=settings.schedule,
            steps=1,
            seed=settings.seed,
            hyper=settings.hyper,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    return dataclasses.replace(settings, encoder=encoder)


def own_options(options: argparse.Namespace, line: Line) -> Mapping[str, Any]:
    """Options of the data set; an error for those of others."""
    every = {name for x in DATASETS.values() for name in x.options}
    given = {name: getattr(options, name) for name in sorted(every)}
    for name, value in given.items():
        if value is not None and name not in line.options:
            whose = [key for key, x in DATASETS.items() if name in x.options]
            raise UsageError(
                f"--{name.replace('_', '-')} is of {', '.join(whose)}, not of "
                f"{options.dataset}"
            )
    return {name: given[name] for name in line.options}
