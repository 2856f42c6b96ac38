"""Small data sets of pictures, in the published layouts; a net can learn them."""

import pickle

import numpy as np
from PIL import Image

ATTRIBUTES = (
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs "
    "Big_Lips Big_Nose Black_Hair Blond_Hair Blurry Brown_Hair Bushy_Eyebrows "
    "Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones "
    "Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin "
    "Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair "
    "Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace "
    "Wearing_Necktie Young "
).split()
DOMAINS = {
    "office-31": ("amazon/images", "dslr/images", "webcam/images"),
    "office-home": ("Art", "Clipart", "Product", "Real World"),
}


def pairs(count, side=36, seed=0):
    """Pictures `[count, side, side]` of two bars, and their heights `[count, 2]`."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 10, (count, 2))
    images = random.integers(0, 60, (count, side, side))
    for image, heights in zip(images, labels, strict=True):
        for half, height in enumerate(heights):
            across = slice(half * side // 2 + 1, (half + 1) * side // 2)
            down = slice(height * side // 10, (height + 1) * side // 10 + 1)
            image[down, across] = 255
    return images.astype(np.uint8), labels


def write_multimnist(
    folder, *, file="multi_mnist.pickle", rows=10, side=36, test_rows=4
):
    """A pickle of that many training and test rows."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = *pairs(rows, side), *pairs(test_rows, side, seed=1)
    (folder / file).write_bytes(pickle.dumps(parts))
    return folder


def faces(count):
    """Values 1 and -1 `[count, 40]`: each attribute about half of the time."""
    return np.random.default_rng(2).choice([-1, 1], (count, len(ATTRIBUTES)))


def face(values, size=(178, 218)):
    """A picture of eight by five squares, white where an attribute is 1."""
    squares = np.uint8(127 + 100 * values.reshape(8, 5))
    return (
        Image.fromarray(squares).convert("RGB").resize(size, Image.Resampling.NEAREST)
    )


def write_celeba(root, *, layout="original", parts=(0, 0, 0, 0, 1, 2), size=(178, 218)):
    """A picture for each of `parts`, and the two lists."""
    values = faces(len(parts))
    names = [f"{number:06}.jpg" for number in range(1, len(parts) + 1)]
    places = {
        "original": ("Img/img_align_celeba", "Anno/", "Eval/", "txt"),
        "kaggle": ("img_align_celeba/img_align_celeba", "", "", "csv"),
        "flat": ("img_align_celeba", "", "", "txt"),
    }
    folder, attributes, partition, ending = places[layout]
    for place in (folder, attributes, partition):
        (root / place).mkdir(parents=True, exist_ok=True)
    for name, row in zip(names, values, strict=True):
        face(row, size).save(root / folder / name, quality=95)
    comma = "," if ending == "csv" else " "
    rows = [
        comma.join([name, *(f"{v:2}" if comma == " " else str(v) for v in row)])
        for name, row in zip(names, values.tolist(), strict=True)
    ]
    heads = {
        "txt": ([str(len(rows)), " ".join(ATTRIBUTES) + " "], []),
        "csv": ([",".join(["image_id", *ATTRIBUTES])], ["image_id,partition"]),
    }
    told = [f"{name}{comma}{part}" for name, part in zip(names, parts, strict=True)]
    for path, lines in (
        (f"{attributes}list_attr_celeba.{ending}", heads[ending][0] + rows),
        (f"{partition}list_eval_partition.{ending}", heads[ending][1] + told),
    ):
        (root / path).write_text("\n".join(lines) + "\n")
    return root


def thing(label, number, domain, side=32):
    """A bar whose direction and place are the class, on a domain's grey."""
    random = np.random.default_rng([label, number, domain])
    picture = random.integers(0, 40, (side, side, 3)) + 40 * domain
    place = slice(label % 8 * side // 8, (label % 8 + 1) * side // 8)
    if label // 8 % 2:
        picture[:, place] = 255
    else:
        picture[place] = 255
    return Image.fromarray(picture.astype(np.uint8))


def write_office(root, *, data_set="office-31", classes=3, pictures=3, side=32):
    """That many pictures of each class in each domain."""
    for domain, place in enumerate(DOMAINS[data_set]):
        for label in range(classes):
            folder = root / place / f"class_{label:02}"
            folder.mkdir(parents=True)
            for number in range(1, pictures + 1):
                picture = thing(label, number, domain, side)
                picture.save(folder / f"{number:05}.jpg", quality=95)
    return root


def write_office_lists(root, folder, *, kind="libmtl"):
    """Lists of the pictures in `root`, with class numbers that count down."""
    for place in (x for names in DOMAINS.values() for x in names):
        files = sorted((root / place).glob("*/*.jpg"))
        if not files:
            continue
        task = place.removesuffix("/images").replace(" ", "_")
        prefix = {"libmtl": "", "vmtl": "/large/office-home/images/"}[kind]
        names = sorted({file.parent.name for file in files})
        lines = [
            f"{prefix}{task}{'/images' if '/' in place else ''}/{file.parent.name}/"
            f"{file.name} {len(names) - 1 - names.index(file.parent.name)}"
            for file in files
        ]
        splits = {
            "libmtl": {
                f"{task}_train.txt": lines[::3] + lines[1::3],
                f"{task}_val.txt": lines[2::6],
                f"{task}_test.txt": lines[5::6],
            },
            "vmtl": {
                f"{task}/train_5.txt": lines[::3],
                f"{task}/test_5.txt": lines[1::3] + lines[2::3],
            },
        }[kind]
        for name, chosen in splits.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("\n".join(chosen) + "\n")
    return folder
