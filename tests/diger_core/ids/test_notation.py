"""One way to write an ID, which is read back exactly."""

import pyarrow as pa
import pytest

from diger_core.errors import DigerError
from diger_core.ids.notation import checked, id_of, read, written


@pytest.mark.parametrize("numbers", [(17, 203, 88, 0), (0,), (5, 1)])
def test_what_is_written_is_read(numbers):
    assert read(written(numbers)) == numbers


@pytest.mark.parametrize("text", ["", "17,203", "(17, 203)", "17-", "-17", "17--3", "a-1", "17-203-88-0 ", "1" * 10, "١٧"])
def test_what_is_no_id_is_not_taken_for_one(text):
    assert read(text) is None


def test_a_row_says_its_id_and_that_of_either_side_of_a_migration():
    row = {"item_id": "a", "code_1": 5, "code_2": 1, "suffix": 0}
    assert id_of(row) == "5-1-0"
    moved = {"item_id": "a", "old_code_1": 5, "old_suffix": 0, "new_code_1": None, "new_suffix": None}
    assert (id_of(moved, "old_"), id_of(moved, "new_")) == ("5-0", None)


@pytest.mark.parametrize("missing", ["item_id", "code_1", "suffix"])
def test_a_table_without_a_column_of_ids_is_named(missing):
    table = pa.table({"item_id": ["a"], "code_1": [1], "suffix": [0]})
    assert [part.tolist() for part in checked(table)[1:]] == [[[1]], [0]]
    with pytest.raises(DigerError, match="ID table: column"):
        checked(table.drop_columns([missing]))
