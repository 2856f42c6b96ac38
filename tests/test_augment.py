"""Scale, crop and flip, against results worked out by hand and what they must keep."""

import copy

import numpy as np
import pytest

from benchmarks.dense_files import scene
from mtl_optax.data.augment import SCALES, scale_crop_flip


class Draws:
    """In the place of a generator: what is drawn, in order."""

    def __init__(self, scale, top=0, left=0, flip=False):
        self.whole = [SCALES.index(scale), top, left]
        self.flip = flip
        self.bounds = []

    def integers(self, bound):
        self.bounds.append(bound)
        value = self.whole[len(self.bounds) - 1]
        assert 0 <= value < bound
        return value

    def random(self):
        return 0.25 if self.flip else 0.75


def grid(height=4, width=4):
    """The pixel (row, column) has the number 10 row + column."""
    rows, columns = np.mgrid[:height, :width]
    return (10 * rows + columns).astype(np.float32)


def example(height=4, width=4):
    numbers = grid(height, width)
    return {
        "inputs": np.stack([numbers, -numbers, 1 + 0 * numbers], axis=-1),
        "targets": {
            "depth": numbers[..., None],
            "normals": np.stack([numbers, 2 * numbers, 3 * numbers], axis=-1),
            "segmentation": numbers.astype(np.int32),
        },
    }


def made(seed=0, height=24, width=32):
    image, label, depth, normal = scene("train", 0, height, width, 13, seed)
    targets = {"depth": depth, "normals": normal, "segmentation": label.astype("i4")}
    return {"inputs": image.astype(np.float32), "targets": targets}


def equal(one, other):
    np.testing.assert_array_equal(one["inputs"], other["inputs"])
    assert one["targets"].keys() == other["targets"].keys()
    for name, target in one["targets"].items():
        assert target.dtype == other["targets"][name].dtype
        np.testing.assert_array_equal(target, other["targets"][name])


def test_scale_one_is_the_example_itself():
    rng = Draws(1.0)
    equal(scale_crop_flip(example(), rng), example())
    assert rng.bounds == [3, 1, 1]


def test_a_part_of_two_by_two_pixels_of_four_by_four():
    # int(4 / 1.5) = 2: rows 1 and 2, columns 2 and 3, which are 12, 13 / 22, 23
    rng = Draws(1.5, top=1, left=2)
    result = scale_crop_flip(example(), rng)
    assert rng.bounds == [3, 3, 3]
    # Nearest: each pixel twice, in both directions
    nearest = [[12, 12, 13, 13], [12, 12, 13, 13], [22, 22, 23, 23], [22, 22, 23, 23]]
    np.testing.assert_array_equal(result["targets"]["segmentation"], nearest)
    depth = result["targets"]["depth"]
    np.testing.assert_array_equal(depth[..., 0], np.float32(nearest) / np.float32(1.5))
    # Bilinear with corners aligned: steps of 1/3 of a pixel
    bilinear = [
        [12 + 10 * row / 3 + column / 3 for column in range(4)] for row in range(4)
    ]
    for channel, factor in ((0, 1), (1, -1)):
        np.testing.assert_allclose(
            result["inputs"][..., channel], factor * np.array(bilinear), rtol=1e-6
        )
    np.testing.assert_array_equal(result["inputs"][..., 2], 1)
    for channel in range(3):
        np.testing.assert_allclose(
            result["targets"]["normals"][..., channel],
            (channel + 1) * np.array(bilinear),
            rtol=1e-6,
        )


def test_a_part_of_three_by_three_pixels_of_four_by_four():
    # int(4 / 1.2) = 3; nearest takes floor(i 3 / 4) = 0, 0, 1, 2
    result = scale_crop_flip(example(), Draws(1.2, top=1))
    nearest = [[10, 10, 11, 12], [10, 10, 11, 12], [20, 20, 21, 22], [30, 30, 31, 32]]
    np.testing.assert_array_equal(result["targets"]["segmentation"], nearest)
    # Bilinear: steps of 2/3 of a pixel
    first = result["inputs"][0, :, 0]
    np.testing.assert_allclose(first, [10, 10 + 2 / 3, 11 + 1 / 3, 12], rtol=1e-6)


def test_a_flip_by_hand():
    result = scale_crop_flip(example(), Draws(1.0, flip=True))
    np.testing.assert_array_equal(result["inputs"][1, :, 0], [13, 12, 11, 10])
    targets = result["targets"]
    np.testing.assert_array_equal(targets["depth"][1, :, 0], [13, 12, 11, 10])
    np.testing.assert_array_equal(targets["segmentation"][2], [23, 22, 21, 20])
    np.testing.assert_array_equal(
        targets["normals"][1],
        [[-13, 26, 39], [-12, 24, 36], [-11, 22, 33], [-10, 20, 30]],
    )


@pytest.mark.parametrize("scale", SCALES)
def test_a_flip_comes_after_the_scale_and_two_are_none(scale):
    start = (3, 2) if scale > 1 else (0, 0)
    once = scale_crop_flip(made(), Draws(scale, *start))
    flipped = scale_crop_flip(made(), Draws(scale, *start, flip=True))
    equal(scale_crop_flip(flipped, Draws(1.0, flip=True)), once)


def test_an_enlarged_plane_facing_the_camera_is_a_nearer_plane():
    example = {
        "inputs": np.full((12, 16, 3), 0.3, np.float32),
        "targets": {
            "depth": np.full((12, 16, 1), 3, np.float32),
            "normals": np.tile(np.array([0.6, 0, -0.8], np.float32), (12, 16, 1)),
        },
    }
    for flip in (False, True):
        result = scale_crop_flip(example, Draws(1.5, 2, 1, flip))
        np.testing.assert_array_equal(result["targets"]["depth"], 2)
        normal = [-0.6 if flip else 0.6, 0, -0.8]
        np.testing.assert_allclose(
            result["targets"]["normals"], np.tile(normal, (12, 16, 1)), rtol=1e-6
        )
        np.testing.assert_array_equal(result["inputs"], np.float32(0.3))


def normals_of(depth):
    """Of a surface, from its points: the camera's rays are (x, y, 1)."""
    height, width = depth.shape
    y, x = np.mgrid[:height, :width].astype(np.float64)
    x, y = (x + 0.5 - width / 2) / width, (y + 0.5 - height / 2) / width
    points = np.stack([x * depth, y * depth, depth], axis=-1)
    down, right = np.gradient(points, axis=(0, 1))
    normal = np.cross(right, down)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    return np.where(normal[..., 2:] > 0, -normal, normal)  # towards the camera


def test_normals_of_a_flipped_surface_are_the_flipped_normals():
    y, x = np.mgrid[:24, :32] / 32.0
    depth = 2 + x + 0.5 * y + 0.3 * x * y
    example = {
        "inputs": np.zeros((24, 32, 3), np.float32),
        "targets": {"depth": depth[..., None], "normals": normals_of(depth)},
    }
    targets = scale_crop_flip(example, Draws(1.0, flip=True))["targets"]
    expected = normals_of(targets["depth"][..., 0])
    assert np.abs(expected[..., 0]).min() > 0.1
    np.testing.assert_allclose(targets["normals"], expected, atol=1e-9)


def test_missing_labels_stay_missing():
    example = made()
    example["targets"]["normals"][5:14, 8:20] = 0
    example["targets"]["depth"][5:14, 8:20] = 0
    example["targets"]["segmentation"][5:14, 8:20] = -1
    targets = scale_crop_flip(example, Draws(1.5, 2, 4))["targets"]
    # Columns 8 to 19 of 4 to 24 are 6 to 23 of 32; rows 5 to 13 of 2 to 17, 5 to 17.
    assert not targets["depth"][5:18, 7:24].any()
    assert (targets["segmentation"][5:18, 7:24] == -1).all()
    # A normal between missing ones is missing; one beside them is shorter, not made up.
    assert not targets["normals"][5:17, 7:23].any()
    lengths = np.linalg.norm(targets["normals"], axis=-1)
    assert lengths.max() < 1.0001
    assert (lengths[3:19, 4:26] < 0.999).any()


def test_all_missing_stays_all_missing():
    example = made()
    empty = {name: np.zeros_like(y) for name, y in example["targets"].items()}
    empty["segmentation"] -= 1
    result = scale_crop_flip({**example, "targets": empty}, np.random.default_rng(1))
    for name, target in empty.items():
        np.testing.assert_array_equal(result["targets"][name], target)


def test_the_example_is_left_as_it_is_and_the_result_follows_from_the_seed():
    example = made()
    before = copy.deepcopy(example)
    drawn = set()
    for seed in range(40):
        one = scale_crop_flip(example, np.random.default_rng(seed))
        equal(example, before)
        equal(one, scale_crop_flip(example, np.random.default_rng(seed)))
        assert one["inputs"].shape == example["inputs"].shape
        drawn.add(one["inputs"].tobytes())
    assert len(drawn) > 20


def test_all_scales_places_and_flips_are_drawn():
    numbers = grid(6, 6)[..., None]
    seen = set()
    rng = np.random.default_rng(0)
    for _ in range(600):
        depth = scale_crop_flip({"inputs": numbers, "targets": {"depth": numbers}}, rng)
        depth = depth["targets"]["depth"][..., 0]
        scale = {5: 1.0, 4: 1.2, 3: 1.5}[len(np.unique(depth[0])) - 1]
        corner = round(float(min(depth[0, 0], depth[0, -1])) * scale)
        seen.add((scale, corner, depth[0, 0] > depth[0, -1]))
    # Places: 1 of 6, 2 x 2 of 5, 3 x 3 of 4 pixels; each flipped or not
    assert len(seen) == 2 * (1 + 4 + 9)


def test_a_target_of_another_name_is_an_error():
    with pytest.raises(KeyError, match="edges"):
        scale_crop_flip(
            {"inputs": grid()[..., None], "targets": {"edges": grid()}}, Draws(1.0)
        )
