"""Blur: out of focus, or in motion."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage  # type: ignore[import-untyped]

Floats = NDArray[np.float64]
Rng = np.random.Generator
PARTS = 9  # magnified images that are averaged
ANGLES = 12  # of motion


def gaussian(images: Floats, deviation: float, rng: Rng) -> Floats:
    """Of this many pixels."""
    del rng
    return ndimage.gaussian_filter(images, (0, deviation, deviation), mode="nearest")


def defocus(images: Floats, radius: float, rng: Rng) -> Floats:
    """Each point becomes a disk, whose pixels count by the share inside."""
    del rng
    reach, fine = int(np.ceil(radius)), 9
    line = (np.arange((2 * reach + 1) * fine) + 0.5) / fine - reach - 0.5
    inside = np.hypot(line[:, None], line[None]) <= radius
    size = 2 * reach + 1
    disk = inside.reshape(size, fine, size, fine).mean(axis=(1, 3))
    return ndimage.convolve(images, disk[None] / disk.sum(), mode="nearest")


def motion(images: Floats, length: float, rng: Rng) -> Floats:
    """So many pixels along a line, in one of ANGLES directions for each image."""
    drawn = rng.integers(ANGLES, size=len(images))
    moved = np.empty_like(images)
    for number in range(ANGLES):
        at = drawn == number
        kernel = _line(length, np.pi * number / ANGLES)
        moved[at] = ndimage.convolve(images[at], kernel[None], mode="nearest")
    return moved


def _line(length: float, angle: float) -> Floats:
    """A line through the middle of a square, as thick as a pixel; its sum is 1."""
    reach = int(np.ceil(length / 2)) + 1
    ways = np.linspace(-length / 2, length / 2, 8 * reach)
    line = np.zeros((2 * reach + 1, 2 * reach + 1))
    down, right = reach + ways * np.sin(angle), reach + ways * np.cos(angle)
    for i in (np.floor(down), np.floor(down) + 1):
        for j in (np.floor(right), np.floor(right) + 1):
            share = (1 - abs(down - i)) * (1 - abs(right - j))
            np.add.at(line, (i.astype(int), j.astype(int)), share)
    return line / line.sum()


def zoom(images: Floats, largest: float, rng: Rng) -> Floats:
    """Magnified from the centre, by PARTS factors from 1 to this one."""
    del rng
    sums = np.zeros_like(images)
    for factor in np.linspace(1, largest, PARTS):
        rows, columns = (_magnified(size, factor) for size in images.shape[1:])
        sums += rows @ images @ columns.T
    return sums / PARTS


def _magnified(size: int, factor: float) -> Floats:
    """Each of `[size]` pixels from its place before, between two others."""
    middle = (size - 1) / 2
    where = middle + (np.arange(size) - middle) / factor
    return np.maximum(0, 1 - abs(where[:, None] - np.arange(size)[None]))


def warp(images: Floats, down: Floats, right: Floats) -> Floats:
    """Each pixel from so far below and to the right, bilinearly."""
    at = np.meshgrid(*map(np.arange, images.shape), indexing="ij")
    where = [at[0], at[1] + down, at[2] + right]
    return ndimage.map_coordinates(images, where, order=1, mode="nearest")
