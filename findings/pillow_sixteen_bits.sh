#!/usr/bin/env bash
# Pillow: a grey picture of 16 bits becomes white by convert("RGB"), without a word.
#
# Package: pillow 13.0.0.
# Expected: 65535 becomes 255 and the values between are scaled, or an error, for 8 bits do
#   not hold them.
# Seen: values are cut off at 255: of 0, 255, 256, 1000 and 65535 all but the first are
#   white. So with convert("L"), and so through torchvision's usual
#   Image.open(path).convert("RGB"): such pictures are trained on as nearly white squares.
# What it did here: read_picture of mtl_optax/data/pictures.py refuses the mode I;16.
#
# Fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 numpy==2.4.6
"$work/env/bin/python" - <<'EOF'
import io

import numpy as np
import PIL
from PIL import Image

file = io.BytesIO()
Image.fromarray(np.array([[0, 255, 256, 1000, 65535]], np.uint16)).save(file, "PNG")
picture = Image.open(file)
red = np.asarray(picture.convert("RGB"))[0, :, 0].tolist()
grey = np.asarray(picture.convert("L"))[0].tolist()
print("pillow", PIL.__version__, "mode", picture.mode, "RGB", red, "L", grey)
assert red == grey == [0, 255, 255, 255, 255], "changed: see above"
EOF
