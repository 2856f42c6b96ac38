"""Picture files: decoded, made RGB and resized, or an error that names the file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtl_optax.data.dataset import Example
from mtl_optax.data.faults import BadData

ENDINGS = {".jpg", ".jpeg", ".png"}
MOST_PIXELS = 89_478_485  # as Pillow's own limit: 256 MB of RGB
IMAGENET = (
    np.array([0.485, 0.456, 0.406], np.float32),
    np.array([0.229, 0.224, 0.225], np.float32),
)
CONVERTED = "Grey, palette, RGBA and CMYK pictures are converted to RGB"
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}


def read_picture(path: Path, size: int) -> np.ndarray:
    """A picture as RGB, resized to a square by bilinear interpolation.

    As `torchvision.transforms.Resize((size, size))` and `ToTensor`: the whole picture
    is squeezed, nothing is cut off, and shrinking averages over all pixels.

    Args:
      path: of a JPEG or PNG file of 8 bits a channel.
      size: of the square, in pixels.

    Returns:
      `[size, size, 3]`, float32 in [0, 1].

    Raises:
      BadData: if the file is missing, empty, cut off, no picture, of 16 bits a channel,
        or of more than `MOST_PIXELS` pixels, which are then not decoded.

    Cost: decoding the whole picture.

    When not to use it: for labels, which must not be interpolated.

    Example:
      >>> import tempfile
      >>> from pathlib import Path
      >>> from PIL import Image
      >>> from mtl_optax.data.pictures import read_picture
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = Path(folder, "red.png")
      ...     Image.new("RGB", (178, 218), "red").save(path)
      ...     read_picture(path, 2)[0, 0]
      array([1., 0., 0.], dtype=float32)
    """
    from PIL import Image

    again = "Get the file again"
    try:
        with Image.open(path) as picture:
            pixels = picture.width * picture.height
            if pixels > MOST_PIXELS:
                raise Image.DecompressionBombError(f"{pixels} pixels")
            if picture.mode not in _MODES:
                cure = "Convert it to RGB of 8 bits a channel"
                raise BadData(path, f"a picture of mode {picture.mode}", cure)
            if picture.mode == "P":  # whose transparent colours RGB cannot have
                rgb = picture.convert("RGBA").convert("RGB")
            else:
                rgb = picture.convert("RGB")
            small = rgb.resize((size, size), Image.Resampling.BILINEAR)
    except BadData:
        raise
    except FileNotFoundError:
        raise BadData(
            path, "no such file", "Get it, or strike it off the list"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        cure = f"Make it smaller: at most {MOST_PIXELS} pixels are decoded"
        raise BadData(path, f"a very large picture: {error}", cure) from error
    except Exception as error:  # of damaged pictures, decoders raise many
        empty = path.is_file() and path.stat().st_size == 0
        found = (
            "the file is empty" if empty else f"cannot be read as a picture: {error}"
        )
        raise BadData(path, found, again) from error
    return np.asarray(small, np.float32) / np.float32(255)


class Fault(NamedTuple):
    """The arguments of a `BadData`."""

    path: Path
    found: str
    cure: str
    row: int


@dataclass(frozen=True)
class Pictures:
    """A `Source` of picture files, each with a label for each task.

    Attributes:
      folder: of the pictures.
      ids: the files in it.
      tasks: names.
      labels: `[N, T]`, whole numbers, -1 for missing.
      size: of the square that they are resized to, in pixels.
      normalised: whether by ImageNet's mean and sd.
      listed_in: the file that names them, or None.
      rows: the line of each in it, counted from 1.
      faults: by number of the example, what is wrong with what lists say of it: the
        arguments of the `BadData` that reading it raises.
    """

    folder: Path
    ids: list[str]
    tasks: tuple[str, ...]
    labels: np.ndarray
    size: int
    normalised: bool = False
    listed_in: Path | None = None
    rows: Sequence[int] = ()
    faults: Mapping[int, Fault] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.ids)

    def where(self, index: int) -> str:
        """The file, and the list that names it."""
        path = f"{self.folder / self.ids[index]}"
        if self.listed_in is None:
            return path
        return f"{path} ({self.listed_in.name}, row {self.rows[index]})"

    def __getitem__(self, index: int) -> Example:
        """One picture and its labels."""
        if index in self.faults:
            raise BadData(*self.faults[index])
        picture = read_picture(self.folder / self.ids[index], self.size)
        if self.normalised:
            mean, sd = IMAGENET
            picture = (picture - mean) / sd
        labels = self.labels[index].astype(np.int32)
        targets = dict(zip(self.tasks, labels, strict=True))
        return {"inputs": picture, "targets": targets}
