"""Files of weights in PyTorch's names and layout: read whole, or not at all."""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from mtl_optax.nn import ResNet, load_weights, save_weights

RNG = np.random.default_rng(0)


def normalisation(name, channels):
    """Entries of a batch normalisation."""
    positive = RNG.uniform(0.5, 1.5, (2, channels)).astype(np.float32)
    both = RNG.normal(size=(2, channels)).astype(np.float32)
    return {
        f"{name}.weight": positive[0],
        f"{name}.bias": both[0],
        f"{name}.running_mean": both[1],
        f"{name}.running_var": positive[1],
        f"{name}.num_batches_tracked": np.array(7),
    }


def convolution(name, after, before, size):
    scale = (2 / (before * size**2)) ** 0.5
    kernel = RNG.normal(size=(after, before, size, size)) * scale
    return {f"{name}.weight": kernel.astype(np.float32)}


def resnet18(width=64, classes=1000):
    """The keys and shapes of torchvision's file, and random values."""
    file = convolution("conv1", width, 3, 7) | normalisation("bn1", width)
    before = width
    for stage in range(4):
        after = width * 2**stage
        for block in range(2):
            name = f"layer{stage + 1}.{block}"
            file |= convolution(f"{name}.conv1", after, before, 3)
            file |= normalisation(f"{name}.bn1", after)
            file |= convolution(f"{name}.conv2", after, after, 3)
            file |= normalisation(f"{name}.bn2", after)
            if before != after:
                file |= convolution(f"{name}.downsample.0", after, before, 1)
                file |= normalisation(f"{name}.downsample.1", after)
            before = after
    rows = RNG.normal(size=(classes, before)).astype(np.float32)
    return file | {"fc.weight": rows, "fc.bias": rows[:, 0]}


SMALL = resnet18(width=2, classes=3)


def small_net(seed=0):
    return ResNet(width=2, rngs=nnx.Rngs(seed))


def values_of(net):
    return [np.asarray(x[...]) for _, x in nnx.to_flat_state(nnx.state(net))]


@pytest.fixture
def saved(tmp_path):
    """A function from entries to the file that has them."""

    def save(entries):
        save_file(entries, tmp_path / "weights.safetensors")
        return tmp_path / "weights.safetensors"

    return save


# --- What fits ------------------------------------------------------------------------


def test_torchvisions_resnet18_is_read_by_its_own_names(saved):
    file = resnet18()
    assert len(file) == 122  # as many as torchvision's has
    net = nnx.eval_shape(lambda: ResNet(rngs=nnx.Rngs(0)))
    zeros = nnx.state(net)
    nnx.update(net, nnx.map_state(lambda _, x: x.replace(jnp.zeros(x.shape)), zeros))
    loaded = load_weights(net, saved(file), skip=("fc.",))
    assert (len(loaded.loaded), loaded.left) == (100, ("fc.bias", "fc.weight"))
    assert (loaded.kept, loaded.converted) == ((), {})
    kernel = net.layer4[0].downsample[0].kernel[...]
    np.testing.assert_array_equal(
        kernel[0, 0].T, file["layer4.0.downsample.0.weight"][..., 0, 0]
    )
    np.testing.assert_array_equal(net.bn1.var[...], file["bn1.running_var"])
    assert type(net.bn1.var) is nnx.BatchStat


def in_numpy(x, file, name, strides=1):
    """A convolution of NCHW images with its padding, and a normalisation behind it."""
    conv, bn = name
    kernel = file[f"{conv}.weight"]
    size = kernel.shape[-1]
    x = np.pad(x, [(0, 0), (0, 0), *2 * [(size // 2, size // 2)]])
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (2, 3))
    y = np.einsum("bchwij,ocij->bohw", windows[:, :, ::strides, ::strides], kernel)

    def column(part):
        return file[f"{bn}.{part}"][:, None, None]

    y = (y - column("running_mean")) / np.sqrt(column("running_var") + 1e-5)
    return y * column("weight") + column("bias")


def test_a_block_computes_what_its_file_says(saved):
    net = small_net()
    load_weights(net, saved(SMALL), skip=("fc.",))
    net.eval()
    x = RNG.normal(size=(2, 4, 6, 2)).astype(np.float32)
    nchw = x.transpose(0, 3, 1, 2)
    name = "layer2.0"
    y = in_numpy(nchw, SMALL, (f"{name}.conv1", f"{name}.bn1"), strides=2)
    y = in_numpy(np.maximum(y, 0), SMALL, (f"{name}.conv2", f"{name}.bn2"))
    beside = in_numpy(
        nchw, SMALL, (f"{name}.downsample.0", f"{name}.downsample.1"), strides=2
    )
    wanted = np.maximum(y + beside, 0).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(net.layer2[0](x), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floats_are_converted_and_counted(saved, dtype):
    file = SMALL | {"conv1.weight": SMALL["conv1.weight"].astype(dtype)}
    net = small_net()
    loaded = load_weights(net, saved(file), skip=("fc.",))
    assert loaded.converted == {np.dtype(dtype).name: 1}
    assert f"1 of them from {np.dtype(dtype).name}" in str(loaded)
    wanted = file["conv1.weight"].astype(np.float32).transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(net.conv1.kernel[...], wanted)


def test_a_part_of_a_larger_file(saved):
    larger = {f"model.{name}": x for name, x in SMALL.items()}
    larger["head.weight"] = np.zeros(3, np.float32)
    net = small_net()
    loaded = load_weights(net, saved(larger), prefix="model.", skip=("fc.", "layer4."))
    assert loaded.left[0] == "head.weight"
    assert {name[:7] for name in loaded.kept} == {"layer4."}
    old, new = small_net(), small_net()
    path = saved({f"x{name}": x for name, x in SMALL.items()})
    load_weights(new, path, rename=lambda name: name[1:], skip=("fc.",))
    np.testing.assert_array_equal(new.bn1.bias[...], net.bn1.bias[...])
    assert np.all(net.layer4[0].conv1.kernel[...] == old.layer4[0].conv1.kernel[...])


def layers(seed):
    """One of each that PyTorch lays out otherwise."""
    rngs = nnx.Rngs(seed)
    return nnx.Dict(
        convolution=nnx.Conv(4, 6, (3, 1), feature_group_count=2, rngs=rngs),
        back=nnx.ConvTranspose(3, 5, (2, 3), rngs=rngs),
        rows=nnx.Linear(2, 3, rngs=rngs),
        table=nnx.Embed(7, 2, rngs=rngs),
        norms=nnx.List([nnx.BatchNorm(3, rngs=rngs), nnx.LayerNorm(4, rngs=rngs)]),
        dropout=nnx.Dropout(0.5, rngs=rngs),
    )


def test_what_was_saved_is_read_again(tmp_path):
    path = tmp_path / "layers.safetensors"
    save_weights(layers(0), path)
    shapes = {name: x.shape for name, x in load_file(path).items()}
    assert shapes == {  # PyTorch's
        "back.bias": (5,),
        "back.weight": (3, 5, 2, 3),
        "convolution.bias": (6,),
        "convolution.weight": (6, 2, 3, 1),
        "norms.0.bias": (3,),
        "norms.0.running_mean": (3,),
        "norms.0.running_var": (3,),
        "norms.0.weight": (3,),
        "norms.1.bias": (4,),
        "norms.1.weight": (4,),
        "rows.bias": (3,),
        "rows.weight": (3, 2),
        "table.weight": (7, 2),
    }
    assert [file.name for file in tmp_path.iterdir()] == ["layers.safetensors"]
    read = layers(1)
    load_weights(read, path)
    kinds = nnx.Any(nnx.Param, nnx.BatchStat)
    mine, theirs = (values_of(nnx.state(net, kinds)) for net in (read, layers(0)))
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


# --- What does not --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv1.weight": None}, "the file has no conv1.weight"),
        ({"layer9.weight": np.zeros(2)}, "the module has no layer9.weight"),
        (
            {"bn1.bias": np.zeros(3, np.float32)},
            r"bn1.bias has shape \(3,\), and the module asks for \(2,\)",
        ),
        (
            {"conv1.weight": SMALL["conv1.weight"].transpose(2, 3, 1, 0).copy()},
            r"shape \(7, 7, 3, 2\), and the module asks for \(2, 3, 7, 7\)",
        ),
        ({"bn1.bias": np.zeros(2, int)}, "bn1.bias has dtype int64"),
        ({"bn1.bias": np.float32([1, np.nan])}, "bn1.bias has values that are not"),
        ({"bn1.bias": np.float64([1, 1e300])}, "bn1.bias has values that are not"),
    ],
)
def test_nothing_is_loaded_where_something_does_not_fit(saved, change, message):
    file = {name: x for name, x in (SMALL | change).items() if x is not None}
    net = small_net()
    with pytest.raises(ValueError, match=f"nothing was loaded: .*{message}"):
        load_weights(net, saved(file), skip=("fc.",))
    for mine, before in zip(values_of(net), values_of(small_net()), strict=True):
        np.testing.assert_array_equal(mine, before)


def test_two_names_that_become_one(saved):
    file = SMALL | {"bn1.gain": SMALL["bn1.weight"]}
    with pytest.raises(ValueError, match=r"bn1\.weight comes twice"):
        load_weights(
            small_net(),
            saved(file),
            rename=lambda name: name.replace("gain", "weight"),
            skip=("fc.",),
        )


def test_a_name_without_the_prefix_stands_in_for_none(saved):
    file = {f"model.{name}": x for name, x in SMALL.items() if name != "bn1.bias"}
    with pytest.raises(ValueError, match=r"the file has no model\.bn1\.bias"):
        load_weights(
            small_net(),
            saved(file | {"bn1.bias": SMALL["bn1.bias"]}),
            prefix="model.",
            skip=("fc.",),
        )


def test_all_faults_are_counted_and_the_first_are_named(saved):
    with pytest.raises(ValueError, match=r"and \d+ more\. Where the file"):
        load_weights(small_net(), saved({"a.weight": np.zeros(2, np.float32)}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda good: good[:-5], "is no complete safetensors file"),
        (lambda good: good[:30], "is no complete safetensors file"),
        (lambda good: b"", "Its size is 0 bytes"),
        (lambda good: b"PK\x03\x04" + good, "is a PyTorch pickle"),
        (lambda good: b"\x80\x02}q" + good, "save_file"),
    ],
)
def test_files_that_are_none(saved, content, message):
    path = saved(SMALL)
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        load_weights(small_net(), path)


def test_nothing_is_downloaded(tmp_path):
    with pytest.raises(FileNotFoundError, match="Nothing is downloaded"):
        load_weights(small_net(), tmp_path / "resnet50")
