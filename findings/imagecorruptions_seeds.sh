#!/usr/bin/env bash
# imagecorruptions-imaug: two of its 19 corruptions ignore NumPy's seed, and small images
# get the strengths of large ones.
#
# Package: imagecorruptions-imaug 1.1.5, scikit-image 0.26.0, opencv-python 5.0.0.93,
#   numpy 2.4.6.
# Expected: after np.random.seed(0), the only seed there is (`corrupt` takes none), each
#   corruption gives the same image again. On 32 x 32 pixels, the least that it takes,
#   severity 5 leaves something to see.
# Seen: impulse_noise and glass_blur give another image each time: they draw from
#   generators of their own, which `corrupt` hands no seed. gaussian_blur at severity 5 has
#   a standard deviation of 6 pixels whatever the size of the image: of a checkerboard
#   of 4 x 4 pixels hardly anything is left (4 of 255).
# What it did here: the study of corruptions has functions of its own, with strengths for
#   32 x 32 pixels, each with a seed (`mtl_optax/study/data/corruptions/`).
#
# Fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check imagecorruptions-imaug==1.1.5 scikit-image==0.26.0 opencv-python==5.0.0.93 numpy==2.4.6
"$work/env/bin/python" - <<'EOF'
from importlib.metadata import version

import numpy as np
from imagecorruptions import corrupt, get_corruption_names

print("imagecorruptions-imaug", version("imagecorruptions-imaug"))
image = np.random.default_rng(0).integers(256, size=(32, 32, 3), dtype=np.uint8)


def made(name):
    np.random.seed(0)
    return np.asarray(corrupt(image, corruption_name=name, severity=3))


names = get_corruption_names("all")
made("defocus_blur")  # compiles
other = [name for name in names if (made(name) != made(name)).any()]
print("another image with the same seed:", *other)
square = np.arange(32) // 4 % 2
board = np.repeat(255 * (square[:, None] ^ square)[..., None], 3, axis=2).astype(np.uint8)
left = np.asarray(corrupt(board, corruption_name="gaussian_blur", severity=5))[8:-8, 8:-8]
print("contrast left of a checkerboard, of 255:", float(np.ptp(left)))
changed = "changed: see above"
assert len(names) == 19 and other == ["impulse_noise", "glass_blur"], changed
assert np.ptp(left) < 10, changed
EOF
