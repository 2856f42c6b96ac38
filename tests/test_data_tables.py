"""Tables from disk: what a TOML says, what a user's files get wrong, clicks."""

import gzip
import pickle
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import table_files

from mtl_optax.data.aliexpress import open_aliexpress
from mtl_optax.data.faults import BadData, BadLayout
from mtl_optax.data.loading import Reading, evaluation
from mtl_optax.data.scan import BadDataSet, scan
from mtl_optax.data.table import open_table

SMALL = """\
file = "data.csv"
inputs.numeric = ["x"]
inputs.categorical = ["c"]
tasks.y.kind = "binary"
splits.val = 0.25
"""


def write(root, text, toml=SMALL, name="data.csv"):
    root.mkdir(exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")
    (root / "table.toml").write_text(toml, encoding="utf-8")
    return root


def rows(count=8, header="x,c,y\n", line="{i},{c},{y}\n"):
    return header + "".join(
        line.format(i=i, c="ab"[i % 2], y=i % 2) for i in range(count)
    )


def examples(dataset, split="train"):
    source = dataset.splits[split]
    return [source[index] for index in range(len(source))]


def targets(dataset, task, split="train"):
    return np.array([example["targets"][task] for example in examples(dataset, split)])


def everything(dataset):
    """Examples of all splits by the row that they stand at."""
    found = {}
    for source in dataset.splits.values():
        for index in range(len(source)):
            found[int(source.where(index).rpartition(" ")[2])] = source[index]
    return found


def faults(dataset):
    """Messages of all bad rows."""
    found = []
    for source in dataset.splits.values():
        for index in range(len(source)):
            try:
                source[index]
            except BadData as fault:
                found.append(str(fault))
    return found


@pytest.fixture
def visits(tmp_path):
    return table_files.write_visits(tmp_path / "visits")


def test_visits_have_the_form_that_their_kinds_ask_for(visits):
    dataset = open_table(visits)
    assert dataset.names == ("days", "died", "outcome", "pain")
    assert [task.kind for task in dataset.tasks] == [
        "regression",
        "binary",
        "class",
        "ordinal",
    ]
    assert [task.size for task in dataset.tasks] == [1, 2, 3, 3]
    assert dataset.inputs == (3, (3, 4))  # pressure is missing at times
    example = dataset.splits["train"][0]
    assert example["inputs"]["numbers"].dtype == np.float32
    assert example["inputs"]["categories"].dtype == np.int32
    assert example["targets"]["days"].dtype == np.float32
    assert example["targets"]["died"].dtype == np.int32
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 54,
        "val": 18,
        "test": 18,
    }


def test_numbers_are_standardised_by_training(visits):
    dataset = open_table(visits)
    numbers = np.array([each["inputs"]["numbers"] for each in examples(dataset)])
    np.testing.assert_allclose(numbers[:, 0].mean(), 0, atol=1e-6)
    np.testing.assert_allclose(numbers[:, 0].std(), 1, atol=1e-6)
    absent = numbers[:, 2] == 1
    assert absent.any()
    assert (numbers[absent, 1] == 0).all()
    np.testing.assert_allclose(numbers[~absent, 1].std(), 1, atol=1e-6)
    assert any("'pressure' is missing" in note for note in dataset.notes)


def test_labels_of_a_regression_come_back_in_their_unit(visits):
    dataset = open_table(visits)
    days = dataset.tasks[0]
    columns = table_files.visits(90)
    for row, example in everything(dataset).items():
        written = float(columns["days"][row - 2])
        got = example["targets"]["days"] * days.sd + days.mean
        if written == -1:
            assert np.isnan(got)
        else:
            np.testing.assert_allclose(got, written, rtol=1e-5)


def test_groups_stay_together_and_long_ids_keep_their_digits(visits):
    dataset = open_table(visits)
    patients = [
        {int(each) % 2**60 // 3 for each in split.ids}
        for split in dataset.splits.values()
    ]
    assert len(set.union(*patients)) == sum(map(len, patients)) == 30
    ids = np.concatenate([split.ids for split in dataset.splits.values()])
    assert sorted(map(int, ids)) == [2**60 + row for row in range(90)]


def test_the_same_seed_has_the_same_splits(visits):
    ids = [open_table(visits).splits["val"].ids.tolist() for _ in range(2)]
    assert ids[0] == ids[1]
    toml = table_files.VISITS_TOML + "seed = 1\n"
    (visits / "other.toml").write_text(toml)
    other = open_table(visits, description=visits / "other.toml")
    assert other.splits["val"].ids.tolist() != ids[0]
    assert open_table(visits / "other.toml").splits["val"].ids.tolist() != ids[0]


def test_parquet_is_read_as_csv_is(tmp_path):
    csv = write(tmp_path / "csv", rows())
    table = pa.table({"x": np.arange(8.0), "c": ["a", "b"] * 4, "y": [False, True] * 4})
    (tmp_path / "parquet").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "parquet" / "data.parquet")
    (tmp_path / "parquet" / "table.toml").write_text(SMALL.replace(".csv", ".parquet"))
    one, other = (
        everything(open_table(csv)),
        everything(open_table(tmp_path / "parquet")),
    )
    assert sorted(other) == list(range(1, 9))  # no header
    for row, example in other.items():
        np.testing.assert_equal(example, one[row + 1])


def test_packed_tabs_bom_crlf_and_spaces_are_no_obstacle(tmp_path):
    plain = everything(open_table(write(tmp_path / "a", rows())))
    text = "\ufeff" + rows().replace(",", "\t").replace("\n", "\r\n")
    write(tmp_path / "b", text, SMALL.replace(".csv", ".tsv"), "data.tsv")
    spaced = rows(line=" {i}.0 , {c} ,{y}.0\n")
    write(tmp_path / "c", spaced)
    write(tmp_path / "d", "", SMALL.replace(".csv", ".csv.gz"))
    (tmp_path / "d" / "data.csv.gz").write_bytes(gzip.compress(rows().encode()))
    for folder in "bcd":
        np.testing.assert_equal(everything(open_table(tmp_path / folder)), plain)


def test_rows_are_lines_of_the_file(tmp_path):
    text = 'x,c,y\n\n0,"two\nlines",0\n1,b,1\n\n2,a,0\n3,b,1\nfour,b,1\n'
    dataset = open_table(write(tmp_path, text))
    (fault,) = faults(dataset)
    assert fault == (
        f"{tmp_path / 'data.csv'}, row 9: column 'x' holds 'four', which is no finite "
        'number. Mend the cell, or declare it: missing = ["four"].'
    )
    where = [s.where(i) for s in dataset.splits.values() for i in range(len(s))]
    assert sorted(where) == [
        f"{tmp_path / 'data.csv'}, row {row}" for row in (3, 5, 7, 8, 9)
    ]


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ("forty", "row 5: column 'x' holds 'forty', which is no finite number"),
        ("1,5", None),
        ("", "row 5: column 'x' is empty"),
        ("inf", "row 5: column 'x' holds 'inf'"),
        ("nan", "row 5: column 'x' holds 'nan'"),
        ("1e999", "row 5: column 'x' holds 'inf'"),
        ("-1", "row 5: column 'x' holds '-1'"),
    ],
)
def test_a_bad_number_is_a_fault_of_its_row(tmp_path, cell, found):
    text = rows().replace("\n3,", f"\n{cell},")
    toml = "missing = []\n" + SMALL
    if cell == "1,5":
        with pytest.raises(BadData, match=r"row 5: 4 cells \('1,5,b,1'\), where .* 3"):
            open_table(write(tmp_path, text, toml))
        return
    dataset = open_table(write(tmp_path, text, toml))
    if cell == "-1":
        assert not faults(dataset)
    else:
        (fault,) = faults(dataset)
        assert found in fault
        assert pickle.loads(pickle.dumps(dataset.splits))  # to workers
    declared = f'missing = ["{cell}"]\n' + SMALL
    assert not faults(open_table(write(tmp_path, text, declared)))


def test_missing_numbers_are_missing_however_they_are_written(tmp_path):
    toml = "missing = [-1]\n" + SMALL
    for cell in "-1", "-1.0", "-1.00":
        text = rows().replace("\n3,", f"\n{cell},")
        found = everything(open_table(write(tmp_path, text, toml)))
        assert found[5]["inputs"]["numbers"][0] == 0
    labels = rows().replace("3,b,1", "3,b,-1")
    assert (
        everything(open_table(write(tmp_path, labels, toml)))[5]["targets"]["y"] == -1
    )


def test_a_column_of_strings_says_so(tmp_path):
    with pytest.raises(BadData, match=r"row \d: column 'c' holds '[ab]', which is no"):
        open_table(
            write(
                tmp_path,
                rows(),
                SMALL.replace('["x"]', '["c"]').replace(
                    'inputs.categorical = ["c"]\n', ""
                ),
            )
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("x,c,y\n", "no row"),
        ("x,c,y,x\n1,a,0,1\n", "row 1: columns of one name: x"),
        (rows() + "9,a\n", r"row 10: 2 cells .*, where the header has 3; 1 such row"),
        ("x,c,y\n\n1,a,0\n\n\n2,b,1,3\n", "row 6: 4 cells"),
        (rows() + '\n\n9,"a,1\n', "a quote that opens"),
        (rows(header="x;c;y\n"), "has no column 'x'. It has x;c;y"),
        (rows(header="X,c,y\n"), "has no column 'x'. It has X, c, y; did you mean 'X'"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, text, message):
    with pytest.raises((BadData, BadLayout), match=message):
        open_table(write(tmp_path, text))


def test_ragged_rows_far_into_a_file_have_their_number(tmp_path):
    text = rows(200_000) + "1\n" + rows(5, header="")
    with pytest.raises(BadData, match="row 200002: 1 cells"):
        open_table(write(tmp_path, text))


def test_a_file_that_is_not_utf_8_is_refused(tmp_path):
    write(tmp_path, "")
    (tmp_path / "data.csv").write_bytes(rows().replace("a", "é").encode("latin1"))
    with pytest.raises(BadData, match=r"UTF-?8"):
        open_table(tmp_path)
    (tmp_path / "data.csv").write_bytes(b"x,c,y,\xe9\n1,a,0,1\n")
    with pytest.raises(BadData, match=r"UTF-?8"):
        open_table(tmp_path)


def test_parquet_that_is_none_or_holds_no_numbers_is_refused(tmp_path):
    write(tmp_path, "no parquet", SMALL.replace(".csv", ".parquet"), "data.parquet")
    with pytest.raises(BadData, match="cannot be read as Parquet"):
        open_table(tmp_path)
    path = tmp_path / "data.parquet"
    table = {"x": np.arange(4.0), "c": ["a", "b"] * 2, "y": [0, 1] * 2}
    pyarrow.parquet.write_table(pa.table(table), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadData, match="cannot be read as Parquet"):
        open_table(tmp_path)
    dates = np.array(["2020-01-01"] * 4, "datetime64[s]")
    pyarrow.parquet.write_table(pa.table({**table, "x": dates}), path)
    with pytest.raises(BadData, match="'x' is of type timestamp"):
        open_table(tmp_path)
    pyarrow.parquet.write_table(pa.table({**table, "c": [[1]] * 4}), path)
    with pytest.raises(BadData, match="'c' is of type list"):
        open_table(tmp_path)
    (tmp_path / "table.toml").write_text(
        'id = "x"\n' + SMALL.replace(".csv", ".parquet")
    )
    pyarrow.parquet.write_table(pa.table({**table, "x": np.full(4, 2.0**60)}), path)
    with pytest.raises(BadData, match="lost their last digits"):
        open_table(tmp_path)


def test_nulls_of_parquet_are_empty_cells(tmp_path):
    toml = SMALL.replace(".csv", ".parquet")
    (tmp_path / "table.toml").write_text(toml)
    table = pa.table(
        {
            "x": pa.array([None, 1, 2, float("nan"), 4, 5, 6, 7], pa.float64()),
            "c": ["a", None] * 4,
            "y": pa.array([0, 1, None, 1, 0, 1, 0, 1], pa.int8()),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "data.parquet")
    dataset = open_table(tmp_path)
    assert [re.sub(".*row", "row", fault) for fault in faults(dataset)] == [
        "row 4: column 'x' holds 'nan', which is no finite number. Mend the cell, or "
        'declare it: missing = ["nan"].'
    ]
    (tmp_path / "table.toml").write_text('missing = ["", nan]\n' + toml)
    found = everything(open_table(tmp_path))
    assert found[3]["targets"]["y"] == -1
    assert found[2]["inputs"]["categories"] == 0
    assert found[1]["inputs"]["numbers"][0] == found[4]["inputs"]["numbers"][0] == 0
    (tmp_path / "table.toml").write_text("missing = []\n" + toml)
    assert len(faults(open_table(tmp_path))) == 6  # rows


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("file", "flie", "unknown key, 'flie'. Known are .*; did you mean 'file'"),
        ("numeric", "numerical", r"\[inputs\] has an unknown key.* mean 'numeric'"),
        ('["x"]', '["xx"]', "no column 'xx'. It has x, c, y; did you mean 'x'"),
        ('["x"]', '"x"', r"inputs.numeric is 'x'. It is a list"),
        ('["x"]', '["c"]', "names c twice"),
        ('["x"]', '["x", "y"]', "column 'y' is an input and the label of task 'y'"),
        ('"binary"', '"binery"', "kind 'binery'. A kind is one of .* mean 'binary'"),
        ('"binary"', '"class"\ntasks.y.levels = 2', "'levels'"),
        ('"binary"', '"binary"\ntasks.y.metric = "f2"', "accuracy, f1, auc"),
        ('"binary"', '"binary"\ntasks.y.classes = 3', "'class'|\"class\""),
        ('"binary"', '"class"\ntasks.y.classes = ["a", "a"]', "one twice"),
        ('tasks.y.kind = "binary"', "", "there is no task"),
        ('tasks.y.kind = "binary"', "tasks.y = 3", r"Write \[tasks.y\]"),
        ('tasks.y.kind = "binary"', "tasks.y.column = 'y'", "has no kind"),
        ("splits.val = 0.25", "", "says nothing of val"),
        ("splits.val = 0.25", "splits.val = 1", "between 0 and 1"),
        ("splits.val = 0.25", "splits.val = 0.5\nsplits.test = 0.5", "leave no row"),
        ("splits.val = 0.25", "splits.val = 0.1\nsplits.seed = -1", "integer from 0"),
        ("splits.val = 0.25", "splits.val = 'v.csv'", "no such file; beside it are"),
        ("splits.val = 0.25", "splits.val = 'data.csv'", "to train on and to measure"),
        ('file = "data.csv"', "", "none does"),
        ('file = "data.csv"', 'file = "dta.csv"', "did you mean 'data.csv'"),
        ('file = "data.csv"', 'file = "data.csv"\nid = 3', "id is 3"),
        ('file = "data.csv"', 'file = "data.csv"\nmissing = ""', "missing is ''"),
        ('file = "data.csv"', "file = data.csv", "this is no TOML"),
    ],
)
def test_a_wrong_description_says_what_to_mend(tmp_path, old, new, message):
    assert old in SMALL
    with pytest.raises(BadLayout, match=message):
        open_table(write(tmp_path, rows(), SMALL.replace(old, new, 1)))


def test_a_folder_without_description_says_where_it_looked(tmp_path):
    with pytest.raises(BadLayout, match=r"table\.toml: there is no such file"):
        open_table(tmp_path)


def task(kind, more=""):
    return SMALL.replace('"binary"', f'"{kind}"\n{more}')


def test_classes_are_those_of_training_in_order(tmp_path):
    text = rows(line="{i},{c},{i}\n")
    dataset = open_table(write(tmp_path, text, task("class", "tasks.y.classes = 8")))
    assert dataset.tasks[0].size == 8
    assert everything(dataset)[7]["targets"]["y"] == 5
    dataset = open_table(write(tmp_path, text, task("class")))  # val has others
    assert dataset.tasks[0].size == 6
    assert [re.sub(".*row.*: the", "the", fault)[:19] for fault in faults(dataset)] == [
        "the label of 'y' is"
    ] * 2
    text = rows(line="{i},{c},1{y}.0\n")
    dataset = open_table(write(tmp_path, text, task("class")))
    assert "Task 'y' has, numbered from 0: 10, 11." in dataset.notes
    assert set(targets(dataset, "y")) == {0, 1}


def test_ordinal_levels_are_integers_or_listed(tmp_path):
    text = rows(line="{i},{c},{y}\n").replace(",1\n", ",9\n").replace(",0\n", ",10\n")
    dataset = open_table(write(tmp_path, text, task("ordinal")))
    assert everything(dataset)[3]["targets"]["y"] == 0  # 9 is below 10
    text = rows(line="{i},{c},{c}\n")
    with pytest.raises(BadData, match="their order is not known"):
        open_table(write(tmp_path, text, task("ordinal")))
    levels = 'tasks.y.levels = ["b", "a", "c"]'
    dataset = open_table(write(tmp_path, text, task("ordinal", levels)))
    assert dataset.tasks[0].size == 3
    assert everything(dataset)[2]["targets"]["y"] == 1


@pytest.mark.parametrize(
    ("no", "yes", "more"),
    [
        ("0", "1", ""),
        ("False", "True", ""),
        ("-1", "1", "tasks.y.classes = [-1, 1]"),
        ("no", "yes", 'tasks.y.classes = ["no", "yes"]'),
        ("false", "true", "tasks.y.classes = [false, true]"),
    ],
)
def test_binary_labels_have_many_forms(tmp_path, no, yes, more):
    text = rows(line="{i},{c},{y}\n").replace(",1\n", f",{yes}\n")
    text = text.replace(",0\n", f",{no}\n")
    found = everything(open_table(write(tmp_path, text, task("binary", more))))
    assert [found[row]["targets"]["y"] for row in range(2, 10)] == [0, 1] * 4


def test_a_label_that_is_none_of_the_classes_is_a_fault(tmp_path):
    text = rows().replace("3,b,1", "3,b,2")
    (fault,) = faults(open_table(write(tmp_path, text)))
    assert "row 5: the label of 'y' is '2', none of 0, 1" in fault
    text = rows().replace("3,b,1", "3,b,x")
    (fault,) = faults(open_table(write(tmp_path, text, task("regression"))))
    assert "row 5: column 'y' holds 'x', which is no finite number" in fault


@pytest.mark.parametrize(
    ("kind", "label", "message"),
    [
        ("binary", "", "task 'y' has no label here, nor in all of training"),
        ("regression", "", "task 'y' has no label here"),
        ("regression", "0.1", "all labels of 'y' in training are 0.1"),
        ("class", "a", "all labels of 'y' in training are 'a'"),
    ],
)
def test_a_task_with_nothing_to_learn_is_refused(tmp_path, kind, label, message):
    text = rows(line="{i},{c}," + label + "\n")
    with pytest.raises(BadData, match=message):
        open_table(write(tmp_path, text, task(kind)))


def test_long_integers_of_parquet_are_numbers(tmp_path):
    table = {"x": 2**60 + np.arange(8), "c": ["a", "b"] * 4, "y": [0, 1] * 4}
    pyarrow.parquet.write_table(pa.table(table), tmp_path / "data.parquet")
    (tmp_path / "table.toml").write_text(SMALL.replace(".csv", ".parquet"))
    assert not faults(open_table(tmp_path))


def test_large_and_constant_numbers_stay_finite(tmp_path):
    text = rows(header="x,c,y,z\n", line="{i}e200,{c},{y},0.1\n")
    toml = SMALL.replace('["x"]', '["x", "z"]')
    dataset = open_table(write(tmp_path, text, toml))
    numbers = np.array([each["inputs"]["numbers"] for each in examples(dataset)])
    np.testing.assert_allclose(numbers.std(axis=0), [1, 0], atol=1e-6)
    assert "Column 'z' is 0.1 throughout training." in dataset.notes


FILES = """\
inputs.numeric = ["x"]
inputs.categorical = ["c"]
tasks.y.kind = "binary"
splits.train = "data.csv"
splits.val = "val.csv"
splits.test = "val.csv"
"""


def test_splits_by_files_number_categories_by_training(tmp_path):
    write(tmp_path, rows(), FILES)
    (tmp_path / "val.csv").write_text("y,c,x\n1,a,0\n0,new,1\n1,b,\n")
    dataset = open_table(tmp_path)
    assert {name: len(split) for name, split in dataset.splits.items()} == {
        "train": 8,
        "val": 3,
        "test": 3,
    }
    found = [each["inputs"]["categories"][0] for each in examples(dataset, "val")]
    assert found == [1, 0, 2]
    assert dataset.inputs == (1, (3,))  # training misses no number
    assert any("1 of 3 rows of val" in note for note in dataset.notes)
    assert dataset.splits["val"].where(1) == f"{tmp_path / 'val.csv'}, row 3"


def test_validation_may_be_a_fraction_of_the_training_file(tmp_path):
    write(
        tmp_path, rows(), FILES.replace('splits.val = "val.csv"', "splits.val = 0.25")
    )
    (tmp_path / "val.csv").write_text(rows(3))
    sizes = {name: len(s) for name, s in open_table(tmp_path).splits.items()}
    assert sizes == {"train": 6, "val": 2, "test": 3}


def test_splits_by_a_column(tmp_path):
    toml = SMALL.replace("val = 0.25", 'column = "s"')
    text = rows(header="x,c,y,s\n", line="{i},{c},{y},train\n")
    text += "8,a,0,Validation\n9,b,1,val\n10,a,0,test\n"
    dataset = open_table(write(tmp_path, text, toml))
    sizes = {name: len(split) for name, split in dataset.splits.items()}
    assert sizes == {"train": 8, "val": 2, "test": 1}
    with pytest.raises(BadData, match="row 13: column 's' holds 'trian'"):
        open_table(write(tmp_path, text + "11,a,0,trian\n", toml))
    with pytest.raises(BadLayout, match="has no row of val"):
        open_table(
            write(tmp_path, rows(header="x,c,y,s\n", line="1,a,{y},train\n"), toml)
        )


def test_a_group_in_two_files_is_a_leak(tmp_path):
    write(tmp_path, rows(), 'groups = "x"\n' + FILES)
    (tmp_path / "val.csv").write_text("x,c,y\n12,a,0\n3,b,1\n")
    with pytest.raises(
        BadData, match=r"val.csv, row 3: a row of val is of a group of t"
    ):
        open_table(tmp_path)


def test_too_few_groups_are_said(tmp_path):
    text = rows(header="x,c,y,g\n", line="{i},{c},{y},p\n")
    with pytest.raises(BadLayout, match="1 groups leave none for training"):
        open_table(write(tmp_path, text, 'groups = "g"\n' + SMALL))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_aliexpress_knows_conversions_of_clicked_rows_only(tmp_path, suffix):
    folder = table_files.write_aliexpress(tmp_path / "AliExpress_NL", suffix=suffix)
    dataset = open_aliexpress(tmp_path)
    assert dataset.names == ("click", "conversion")
    assert {task.metric for task in dataset.tasks} == {"auc"}
    assert dataset.inputs == (4, (6, 6, 6))
    assert {name: len(s) for name, s in dataset.splits.items()} == {
        "train": 180,
        "val": 20,
        "test": 40,
    }
    click, conversion = targets(dataset, "click"), targets(dataset, "conversion")
    assert set(click) == {0, 1}
    np.testing.assert_array_equal(conversion == -1, click == 0)
    assert set(conversion) == {-1, 0, 1}
    assert any("20 rows of train" in note for note in dataset.notes)
    again = open_aliexpress(folder)
    np.testing.assert_equal(examples(again, "val"), examples(dataset, "val"))


def test_aliexpress_with_a_bad_cell_has_a_cure_without_a_description(tmp_path):
    header = "numerical_1,click,conversion\n"
    (tmp_path / "train.csv").write_text(header + "1,1,0\n2,1,0\n3,1,1\nx,1,1\n5,2,0\n")
    assert [
        fault.rpartition("row ")[2] for fault in faults(open_aliexpress(tmp_path))
    ] == [
        "5: column 'numerical_1' holds 'x', which is no finite number. Mend the cell.",
        "6: the label of 'click' is '2', none of 0, 1, false, true. Mend it.",
    ]


def test_aliexpress_in_the_entire_space(tmp_path):
    table_files.write_aliexpress(tmp_path)
    dataset = open_aliexpress(tmp_path, entire_space=True)
    assert [task.given for task in dataset.tasks] == [None, "click"]
    click, conversion = targets(dataset, "click"), targets(dataset, "conversion")
    columns = table_files.aliexpress(200)
    assert set(conversion) == {0, 1}
    assert (conversion <= click).all()
    both = targets(dataset, "conversion", "val").sum() + conversion.sum()
    assert both == (columns["click"] * columns["conversion"]).sum()


def test_aliexpress_refuses_conversions_without_a_click(tmp_path):
    table_files.write_aliexpress(tmp_path)
    path = tmp_path / "train.csv"
    lines = path.read_text().splitlines()
    row = next(i for i, line in enumerate(lines) if line.endswith(",0,0"))
    lines[row] = lines[row][:-1] + "1"
    path.write_text("\n".join(lines))
    for entire_space in (False, True):
        (fault,) = faults(open_aliexpress(tmp_path, entire_space=entire_space))
        assert f"train.csv, row {row + 1}: conversion is 1 where click is 0" in fault


def test_aliexpress_takes_empty_conversions_and_a_file_for_validation(tmp_path):
    header = "categorical_10,categorical_9,click,conversion\n"
    (tmp_path / "train.csv").write_text(header + "x,1,0,\ny,2,1,0\ny,3,1,1\n")
    (tmp_path / "val.csv").write_text(header + "x,1,1,\n")
    for entire_space in (False, True):
        dataset = open_aliexpress(tmp_path, entire_space=entire_space)
        assert not faults(dataset)
        assert targets(dataset, "conversion").tolist() == [entire_space - 1, 0, 1]
        assert targets(dataset, "conversion", "val").tolist() == [-1]
    assert dataset.inputs == (0, (4, 3))  # 9 before 10
    assert dataset.splits["train"][0]["inputs"]["numbers"].shape == (0,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "0 folders with a train.csv"),
        ("a,click,conversion\n1,0,0\n", "no column is called categorical_"),
        ("numerical_1,click\n1,0\n", "no column 'conversion'"),
        (
            "numerical_1,click,conversion\n1,0,0\n2,0,0\n3,0,0\n",
            "'conversion' has no label here, nor in all of training",
        ),
    ],
)
def test_aliexpress_of_another_form_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "train.csv").write_text(text)
    with pytest.raises((BadData, BadLayout), match=message):
        open_aliexpress(tmp_path)


def test_sources_travel_to_workers(visits):
    source = open_table(visits).splits["train"]
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_equal(copy[3], source[3])
    assert copy.where(3) == source.where(3)


def test_the_scan_passes_good_tables_and_counts_bad_rows(visits, tmp_path):
    found = scan(open_table(visits))
    assert found.splits["train"].shapes["numbers"] == (3,)
    assert found.splits["train"].labels["days"].missing > 0
    path = visits / "visits.csv"
    lines = path.read_text().splitlines()
    lines[5] = lines[5].replace(lines[5].split(",")[0], lines[4].split(",")[0])
    lines[8] = lines[8].replace(lines[8].split(",")[2], "old")
    path.write_text("\n".join(lines))
    with pytest.raises(BadDataSet, match="2 examples do not fit") as error:
        scan(open_table(visits))
    assert "the id '1152921504606846979' is there twice" in str(error.value)
    assert "row 9: column 'age' holds 'old'" in str(error.value)
    skipped = scan(open_table(visits), skip_bad=True)
    assert sum(len(part.rows) for _, part in skipped.parts()) == 88


@pytest.mark.parametrize("cut", [0, 20])
def test_gzip_files_that_are_none_or_cut_short(tmp_path, cut):
    toml = SMALL.replace("data.csv", "data.csv.gz")
    write(tmp_path / "d", rows(), toml, "data.csv.gz")
    if cut:
        packed = gzip.compress(rows(count=9000).encode())[:-cut]
        (tmp_path / "d" / "data.csv.gz").write_bytes(packed)
    with pytest.raises(BadData, match=r"data\.csv\.gz: it cannot be unpacked"):
        open_table(tmp_path / "d")


def test_folders_in_place_of_files(tmp_path):
    root = write(tmp_path / "d", rows())
    (root / "data.csv").unlink()
    (root / "data.csv").mkdir()
    with pytest.raises(BadLayout, match="it is no file, but a folder"):
        open_table(root)
    clicks = table_files.write_aliexpress(tmp_path / "a", 40, 8)
    (clicks / "test.csv").unlink()
    (clicks / "test.csv").mkdir()
    with pytest.raises(BadLayout, match=r"test\.csv: it is no file, but a folder"):
        open_aliexpress(clicks)


def test_labels_beyond_float32(tmp_path):
    toml = SMALL.replace("binary", "regression")
    text = rows().replace("\n2,a,0", "\n2,a,1e300")
    (fault,) = faults(open_table(write(tmp_path / "d", text, toml)))
    assert "row 4: the label of 'y' is 1e+300, too large" in fault


def test_blank_rows_need_nothing_of_a_bad_row(tmp_path):
    """The first row of val is left out, and the last batch is filled."""
    toml = SMALL.replace("splits.val = 0.25", 'splits.column = "s"')
    line = "{i},{c},{y},{s}\n"
    text = "x,c,y,s\n" + "".join(
        line.format(
            i="?" if i == 6 else i, c="ab"[i % 2], y=i % 2, s="train val".split()[i > 5]
        )
        for i in range(11)
    )
    dataset = open_table(write(tmp_path / "d", text, toml))
    found = scan(dataset, skip_bad=True)
    good = found.good("val")
    assert good.tolist() == [1, 2, 3, 4]
    batches = list(evaluation(dataset, good, Reading(3), split="val"))
    known = [batch["targets"]["y"].tolist() for batch in batches]
    assert known == [[1, 0, 1], [0, -1, -1]]
