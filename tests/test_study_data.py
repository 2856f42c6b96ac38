"""The study's scans, and the images and labels composed of them."""

from itertools import combinations

import numpy as np
from sklearn.datasets import load_digits

from mtl_optax.study.data import digits as data


def test_scans_are_split_before_composing():
    members = data.split_scans(np.random.default_rng(0))
    assert {name: len(own) for name, own in members.items()} == data.NUM_SCANS
    for one, other in combinations(members.values(), 2):
        assert not set(one) & set(other)
    assert set(np.concatenate(list(members.values()))) == set(range(1797))


def test_images_hold_scans_of_their_own_split_only():
    scans = load_digits().data.reshape(-1, 8, 8).astype(np.float32) / 16
    members = data.split_scans(np.random.default_rng(0))
    for name, split in data.multi_digits(num_tasks=2).items():
        canvas = split.images.reshape(-1, 12, 12)
        assert len(canvas) == data.NUM_IMAGES[name]
        # Where the digits do not overlap the scan is seen as it is.
        for seen, own in [
            (canvas[:, :4, :8], scans[members[name], :4]),
            (canvas[:, 8:, 4:], scans[members[name], 4:]),
        ]:
            assert {x.tobytes() for x in seen} <= {x.tobytes() for x in own}


def test_composite_is_the_brighter_pixel_at_the_stated_places():
    rng = np.random.default_rng(1)
    left, right = rng.random((2, 5, 8, 8), dtype=np.float32)
    expected = np.zeros((5, 12, 12), np.float32)
    for n in range(5):
        for i in range(8):
            for j in range(8):
                expected[n, i, j] = max(expected[n, i, j], left[n, i, j])
                expected[n, i + 4, j + 4] = max(
                    expected[n, i + 4, j + 4], right[n, i, j]
                )
    np.testing.assert_array_equal(data.compose(left, right), expected)


def test_labels_answer_the_four_tasks():
    answers = data.labels(np.array([3, 4, 7]), np.array([5, 1, 7]))
    assert list(data.TASKS) == ["left", "right", "parity", "greater"]
    np.testing.assert_array_equal(answers, [[3, 5, 0, 0], [4, 1, 1, 1], [7, 7, 0, 0]])
