"""Trees like those of NYUv2 and Cityscapes (MTAN), of pictures that can be learned.

A scene is a room of planes, seen through a pinhole, with three balls in it. Depth,
normals and classes follow from the geometry; the picture is the colour of the class,
shaded by the normal and dimmed by the depth. Examples are written one after another.
"""

from pathlib import Path
from typing import Any

import numpy as np

PLANES = 5  # floor, ceiling, left, right, back; classes 0 to 4, balls have the others
COLOURS = np.random.default_rng(13).uniform(0.2, 1, (19, 3)).astype(np.float32)
LIGHT = np.array([0.3, -0.8, -0.5], np.float32)  # y points down, z away
# Examples of each split that have nothing, or little, for one task
NO_DEPTH, ONE_CLASS, NO_LABEL = 1, 2, 3


def write_nyuv2(root: Any, *, train=4, val=4, height=24, width=32, seed=0) -> None:
    """`{train,val}/{image,label,depth,normal}`; full size is 795, 654, 288 x 384."""
    for split, count in (("train", train), ("val", val)):
        for number in range(count):
            image, label, depth, normal = scene(split, number, height, width, 13, seed)
            arrays = {"image": image, "label": label, "depth": depth, "normal": normal}
            _save(Path(root) / split, number, arrays)


def write_cityscapes(
    root: Any,
    *,
    train=4,
    val=4,
    height=24,
    width=32,
    seed=0,
    label="label_7",
    classes=7,
) -> None:
    """`{train,val}/{image,LABEL,depth}`; full size is 2975, 500, 128 x 256."""
    for split, count in (("train", train), ("val", val)):
        for number in range(count):
            image, labels, depth, _ = scene(split, number, height, width, classes, seed)
            disparity = np.where(depth > 0, 0.3 / np.maximum(depth, 0.61), 0)
            arrays = {"image": image, label: labels, "depth": disparity}
            _save(Path(root) / split, number, arrays)


def scene(
    split: str, number: int, height: int, width: int, classes: int, seed: int
) -> tuple[np.ndarray, ...]:
    """Image, label, depth and normal of a number, as they stand on disk."""
    rng = np.random.default_rng([seed, split == "val", number])
    rays = _rays(height, width, rng)
    depth, normal, kind = _room(rays, rng)
    for its_class in rng.integers(PLANES, classes, 3):
        _add_ball(rays, rng, depth, normal, kind, int(its_class))
    light = 0.6 + 0.4 * normal @ (LIGHT / np.linalg.norm(LIGHT))
    image = COLOURS[kind] * (light * np.exp(-depth / 8))[..., None]
    image += 0.02 * rng.standard_normal(image.shape, np.float32)
    label = kind.astype(np.float32)
    edge = max(1, height // 24)
    label[:edge] = -1
    depth[:, :edge], normal[:, -edge:] = 0, 0  # as beside pictures of a sensor
    if number == NO_DEPTH:
        depth[:] = 0
    elif number == ONE_CLASS:
        label[:] = 0
    elif number == NO_LABEL:
        label[:] = -1
    return np.clip(image, 0, 1), label, depth[..., None], normal


def _rays(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """`[H, W, 3]`: directions of pixels with z = 1, of a camera that turned a bit."""
    y, x = np.meshgrid(
        (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / width,
        (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / width,
        indexing="ij",
    )
    return np.stack(
        [x + np.float32(rng.uniform(-0.2, 0.2)), y, np.ones_like(x)], axis=-1
    )


def _room(
    rays: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth, normals and numbers of the walls that are seen from within a room."""
    turn = rng.uniform(-0.4, 0.4)
    cos, sin = np.cos(turn), np.sin(turn)
    # Towards the viewer
    normals = np.array(
        [[0, -1, 0], [0, 1, 0], [cos, 0, sin], [-cos, 0, -sin], [sin, 0, -cos]],
        np.float32,
    )
    distances = rng.uniform([1, 1, 1.5, 1.5, 3], [1.6, 1.6, 3, 3, 6]).astype(np.float32)
    towards = np.maximum(-rays @ normals.T, 1e-6)
    depths = distances / towards
    kind = depths.argmin(-1)
    return depths.min(-1), normals[kind], kind


def _add_ball(
    rays: np.ndarray,
    rng: np.random.Generator,
    depth: np.ndarray,
    normal: np.ndarray,
    kind: np.ndarray,
    number: int,
) -> None:
    """Where a ball stands before what is there, puts it there."""
    radius = rng.uniform(0.2, 0.7)
    z = rng.uniform(2, 4)
    centre = np.array([*rng.uniform(-0.4, 0.4, 2) * z, z], np.float32)
    # |t r - c| = radius: the nearer root
    square, middle = (rays**2).sum(-1), rays @ centre
    root = middle**2 - square * (centre @ centre - radius**2)
    t = (middle - np.sqrt(np.maximum(root, 0))) / square
    seen = (root > 0) & (t < depth)
    depth[seen], kind[seen] = t[seen], number
    normal[seen] = (t[..., None] * rays - centre)[seen] / np.float32(radius)


def _save(folder: Path, number: int, arrays: dict[str, np.ndarray]) -> None:
    for part, array in arrays.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        np.save(folder / part / f"{number}.npy", array.astype(np.float32))
