"""QM9 as npz: both layouts, units, splits, and files that are wrong."""

import pickle
import zipfile

import numpy as np
import pytest
import table_files

from mtl_optax.data.faults import BadData, BadLayout
from mtl_optax.data.qm9 import UNITS, open_qm9

ATOMS = "G_atom", "H_atom", "U0_atom", "U_atom"


def saved(root, **changes):
    """A file with some arrays changed, or left out where None."""
    arrays = {**table_files.qm9(60), **changes}
    np.savez(
        root / "qm9.npz",
        **{name: array for name, array in arrays.items() if array is not None},
    )
    return root


def everything(dataset):
    """Examples of all splits by their place in the file."""
    return {
        int(source.row[i]): source[i]
        for source in dataset.splits.values()
        for i in range(len(source))
    }


def faults(dataset):
    found = []
    for source in dataset.splits.values():
        for index in range(len(source)):
            try:
                source[index]
            except BadData as fault:
                found.append(str(fault))
    return found


def test_eleven_tasks_with_units(tmp_path):
    dataset = open_qm9(table_files.write_qm9(tmp_path))
    assert dataset.names == ("Cv", *ATOMS, "alpha", "homo", "lumo", "mu", "r2", "zpve")
    assert len(dataset.tasks) == len(UNITS) == 11
    assert {task.kind for task in dataset.tasks} == {"regression"}
    units = {task.name: task.unit for task in dataset.tasks}
    assert (units["U0_atom"], units["homo"], units["mu"]) == ("meV", "meV", "D")


def test_targets_are_standardised_in_milli_electronvolts(tmp_path):
    dataset = open_qm9(table_files.write_qm9(tmp_path))
    arrays = table_files.qm9(60)
    homo = next(task for task in dataset.tasks if task.name == "homo")
    for row, example in everything(dataset).items():
        got = example["targets"]["homo"] * homo.sd + homo.mean
        np.testing.assert_allclose(got, 1000 * arrays["homo"][row], rtol=1e-5)
    source = dataset.splits["train"]
    train = np.array([source[i]["targets"]["homo"] for i in range(len(source))])
    np.testing.assert_allclose([train.mean(), train.std()], [0, 1], atol=1e-5)


def test_both_layouts_are_one(tmp_path):
    flat = open_qm9(table_files.write_qm9(tmp_path / "flat"))
    form = table_files.padded
    padded = open_qm9(table_files.write_qm9(tmp_path / "padded", form=form))
    arrays = form(table_files.qm9(60))
    other = {
        "charges": np.pad(arrays.pop("Z"), ((0, 0), (0, 4))),
        "positions": np.pad(arrays.pop("R"), ((0, 0), (0, 4), (0, 0))),
    }
    del arrays["N"]
    np.savez(tmp_path / "other.npz", **arrays, **other)
    renamed = open_qm9(tmp_path / "other.npz")
    assert flat.inputs == padded.inputs == renamed.inputs == (9, 10)
    first = everything(flat)
    np.testing.assert_equal(everything(padded), first)
    np.testing.assert_equal(everything(renamed), first)


def test_molecules_have_zeros_behind_their_atoms(tmp_path):
    arrays = table_files.qm9(60)
    ends = np.cumsum(arrays["N"])
    for row, example in everything(open_qm9(table_files.write_qm9(tmp_path))).items():
        atoms, positions = example["inputs"]["atoms"], example["inputs"]["positions"]
        count, part = arrays["N"][row], slice(ends[row] - arrays["N"][row], ends[row])
        assert (atoms.dtype, positions.dtype) == (np.int32, np.float32)
        np.testing.assert_array_equal(atoms[:count], arrays["Z"][part])
        np.testing.assert_allclose(positions[:count], arrays["R"][part], rtol=1e-6)
        assert not atoms[count:].any()
        assert not positions[count:].any()


def test_splits_are_the_published_sizes_in_proportion(tmp_path):
    count = 1308
    dataset = open_qm9(table_files.write_qm9(tmp_path, count))
    sizes = {name: len(source) for name, source in dataset.splits.items()}
    assert sizes == {"train": 1108, "val": 100, "test": 100}
    assert any("where QM9 has 130831" in note for note in dataset.notes)
    rows = np.concatenate([source.row for source in dataset.splits.values()])
    assert sorted(rows) == list(range(count))
    again = open_qm9(tmp_path).splits["val"].row
    np.testing.assert_array_equal(again, dataset.splits["val"].row)


def test_a_full_sized_file_holds_ten_thousand_out(tmp_path):
    count = 130_831
    np.savez(
        tmp_path / "qm9_eV.npz",
        N=np.ones(count, np.int8),
        Z=np.ones(count, np.int8),
        R=np.zeros((count, 3), np.float32),
        mu=np.arange(count),
    )
    dataset = open_qm9(tmp_path)
    sizes = {name: len(source) for name, source in dataset.splits.items()}
    assert sizes == {"train": 110_831, "val": 10_000, "test": 10_000}
    assert not any("where QM9 has" in note for note in dataset.notes)


def test_missing_properties_are_said_and_total_energies_too(tmp_path):
    total = 1000 * table_files.qm9(60)["U0"] - 11_000
    dataset = open_qm9(saved(tmp_path, U0_atom=None, U0=total, Cv=None))
    assert "U0" in dataset.names
    assert "Cv" not in dataset.names
    assert any("has no Cv" in note for note in dataset.notes)
    assert any("U0 are total energies" in note for note in dataset.notes)


def test_nan_labels_are_missing_and_infinite_ones_faults(tmp_path):
    mu, r2 = (table_files.qm9(60)[name] for name in ("mu", "r2"))
    mu[3], r2[4] = np.nan, np.inf
    dataset = open_qm9(saved(tmp_path, mu=mu, r2=r2[:, None]))
    (fault,) = faults(dataset)
    assert "qm9.npz, row 4: r2 is inf" in fault
    assert all(np.isfinite([task.mean, task.sd]).all() for task in dataset.tasks)
    for source in dataset.splits.values():
        for index in np.flatnonzero(source.row == 3):
            assert np.isnan(source[index]["targets"]["mu"])


@pytest.mark.parametrize("form", [lambda arrays: arrays, table_files.padded])
def test_bad_molecules_are_faults_of_their_rows(tmp_path, form):
    arrays = table_files.qm9(60)
    starts = np.cumsum(arrays["N"]) - arrays["N"]
    arrays["Z"][starts[7]] = 17
    arrays["R"][starts[8] + 1, 2] = np.nan
    np.savez(tmp_path / "qm9.npz", **form(arrays))
    found = sorted(faults(open_qm9(tmp_path)))
    assert len(found) == 2
    assert "row 7: an atom of element 17. QM9 has 1, 6, 7, 8, 9" in found[0]
    assert "row 8: a position that is no finite number" in found[1]
    source = open_qm9(tmp_path).splits["train"]
    assert pickle.loads(pickle.dumps(source)).faults == source.faults


def test_atoms_behind_the_number_of_atoms_are_a_fault(tmp_path):
    arrays = table_files.padded(table_files.qm9(60))
    row = int(np.argmax(arrays["N"]))
    arrays["N"][row] -= 1
    np.savez(tmp_path / "qm9.npz", **arrays)
    (fault,) = faults(open_qm9(tmp_path))
    assert f"row {row}: there are atoms behind the 8 that N says" in fault


ARRAYS = table_files.qm9(60)
PADDED = table_files.padded(ARRAYS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"N": ARRAYS["N"] + 1}, "N sums to .* atoms, and Z has"),
        ({"N": None}, "there is no array N"),
        ({"N": np.zeros(60)}, "has no atom"),
        ({"N": ARRAYS["N"] + 0.5}, "N holds fractions"),
        ({"Z": None}, "no array Z or charges; it has N, R, mu"),
        ({"R": ARRAYS["R"][:, :2]}, r"R \(.*, 2\)"),
        ({"Z": PADDED["Z"][:-1], "R": PADDED["R"][:-1]}, r"N has 60 entries up to 9"),
        ({"Z": PADDED["Z"][:, :4], "R": PADDED["R"][:, :4]}, "padded to the largest"),
        ({"mu": ARRAYS["mu"][:-1]}, r"mu has shape \(59,\), and there are 60 mol"),
        ({"mu": np.array(["much"] * 60)}, "mu is of type <U4"),
        ({"mu": np.array([{}] * 60)}, "without running pickled code"),
        ({"mu": np.full(60, np.nan)}, "mu has no value in training"),
        ({"mu": np.ones(60)}, "mu has one value in training"),
        ({"homo": ARRAYS["homo"] / 27.2114}, "homo is about 0.2.* not in eV"),
        (dict.fromkeys(table_files.QM9_COLUMNS), "holds no property of QM9"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, changes, message):
    with pytest.raises((BadData, BadLayout), match=message):
        open_qm9(saved(tmp_path, **changes))


@pytest.mark.parametrize("left", [0, 10, 1000, -10, -2000])
def test_a_torn_file_is_refused(tmp_path, left):
    path = saved(tmp_path) / "qm9.npz"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(BadData, match=r"qm9\.npz: it cannot be read as npz"):
        open_qm9(path)


def test_a_damaged_file_is_refused(tmp_path):
    path = saved(tmp_path) / "qm9.npz"
    content = bytearray(path.read_bytes())
    content[3000:3100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(BadData, match="it cannot be read as npz"):
        open_qm9(path)


def test_an_absent_file_and_a_single_array_are_refused(tmp_path):
    with pytest.raises(BadLayout, match="there is no such file; beside it are none"):
        open_qm9(tmp_path)
    with open(tmp_path / "qm9.npz", "wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(BadData, match="it cannot be read as npz"):
        open_qm9(tmp_path)


def test_ids_are_passed_on(tmp_path):
    dataset = open_qm9(saved(tmp_path, id=np.arange(60) + 1))
    source = dataset.splits["test"]
    np.testing.assert_array_equal(source.ids, source.row + 1)


def test_numbers_that_would_take_all_memory_or_the_unit_away(tmp_path):
    mu, counts = (table_files.qm9(60)[name].astype(float) for name in ("mu", "N"))
    mu[3], counts[3] = 1e300, 1e12
    dataset = open_qm9(saved(tmp_path, mu=mu))
    assert "row 3: mu is 1e+300" in faults(dataset)[0]
    with pytest.raises(BadData, match="a molecule has 1000000000000"):
        open_qm9(saved(tmp_path, N=counts))
    counts[3] = np.inf
    with pytest.raises(BadData, match="a molecule has inf atoms"):
        open_qm9(saved(tmp_path, N=counts))


def test_a_header_that_asks_for_terabytes(tmp_path):
    head = {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}
    with (
        zipfile.ZipFile(tmp_path / "qm9.npz", "w") as file,
        file.open("Z.npy", "w") as z,
    ):
        np.lib.format.write_array_header_1_0(z, head)
    with pytest.raises(BadData, match="it cannot be read as npz"):
        open_qm9(tmp_path)


def test_ids_of_other_molecules(tmp_path):
    with pytest.raises(BadData, match=r"the ids have shape \(3,\)"):
        open_qm9(saved(tmp_path, id=np.arange(3)))
