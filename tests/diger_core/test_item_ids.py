"""One rule decides which ids of two tables are the same, whatever Arrow types hold them."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diger_core.errors import DigerError
from diger_core.item_ids import as_type, index_of, one_type, plain, require_all, require_unique

HUGE = 2**63 + 5
CLASH = "the one holds {0}, the other {1}: keep one type"
INTEGERS = (pa.int8(), pa.int32(), pa.int64(), pa.uint8(), pa.uint64())
STRINGS = (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()), pa.run_end_encoded(pa.int32(), pa.string()))


def encoded(values: list[str], kind: pa.DataType) -> pa.Array:
    if pa.types.is_run_end_encoded(kind):
        return pa.RunEndEncodedArray.from_arrays(pa.array(range(1, len(values) + 1), pa.int32()), pa.array(values))
    return pa.array(values, kind)


@pytest.mark.parametrize("left", INTEGERS)
@pytest.mark.parametrize("right", INTEGERS)
def test_integers_are_compared_by_value_whatever_their_width(left, right):
    assert index_of(pa.array([3, 7, 1], left), pa.array([1, 2, 3], right)).tolist() == [2, -1, 0]


@pytest.mark.parametrize("left", STRINGS)
@pytest.mark.parametrize("right", STRINGS)
def test_strings_are_compared_whatever_holds_them(left, right):
    found = index_of(encoded(["b", "?", "a"], left), encoded(["a", "b"], right))
    assert found.tolist() == [1, -1, 0]
    assert found.dtype == np.int64


def test_numbers_that_only_one_integer_type_holds_are_nowhere_in_the_other():
    assert index_of(pa.array([-1, 2], pa.int64()), pa.array([HUGE, 2], pa.uint64())).tolist() == [-1, 1]
    assert index_of(pa.array([HUGE, 2], pa.uint64()), pa.array([-1, 2], pa.int64())).tolist() == [-1, 1]
    assert index_of(pa.array([HUGE - 2**64], pa.int64()), pa.array([HUGE], pa.uint64())).tolist() == [-1]


@given(st.lists(st.integers(-(2**63), 2**63 - 1)), st.lists(st.integers(0, 2**64 - 1), unique=True))
def test_the_join_equals_pythons(left, right):
    place = {value: index for index, value in enumerate(right)}
    assert index_of(pa.array(left, pa.int64()), pa.array(right, pa.uint64())).tolist() == [place.get(value, -1) for value in left]


def test_a_null_is_no_id_and_columns_in_pieces_are_one():
    ids = pa.chunked_array([[None, 5], [], [9]], pa.int64())
    assert index_of(ids, pa.chunked_array([[9, None], [5]], pa.int64())).tolist() == [-1, 2, 0]
    assert index_of(pa.array([None]), pa.array(["a"])).tolist() == [-1]
    assert index_of(pa.chunked_array([], pa.string()), pa.array(["a"])).tolist() == []


def test_a_number_is_never_a_text():
    numbers, texts = pa.array([1, 2]), pa.array(["1", "2"])
    assert index_of(numbers, texts).tolist() == [-1, -1]
    with pytest.raises(DigerError, match="^the one holds integers, the other text: keep one type$"):
        index_of(numbers, texts, clash=CLASH)
    with pytest.raises(DigerError, match="the one holds text, the other integers"):
        one_type(texts, numbers, clash=CLASH)
    with pytest.raises(DigerError, match="the one holds text, the other integers"):
        as_type(texts, pa.int64(), clash=CLASH)
    assert index_of(numbers, texts[:0], clash=CLASH).tolist() == [-1, -1]


def test_what_is_no_id_is_refused():
    for column in (pa.array([1.0]), pa.array([b"a"]), pa.array([True])):
        with pytest.raises(DigerError, match="ids are integers or strings: convert the column"):
            plain(column)


def test_two_columns_get_the_narrowest_type_that_holds_both():
    kinds = [column.type for column in one_type(pa.array([1], pa.uint64()), pa.array([2], pa.int8()), clash=CLASH)]
    assert kinds == [pa.int64(), pa.int64()]
    a, b = one_type(pa.array([HUGE], pa.uint64()), pa.array([2], pa.int8()), clash=CLASH)
    assert a.type == b.type == pa.uint64()
    assert a[0].as_py() == HUGE
    a, b = one_type(pa.array(["a"]), pa.array([], pa.int64()), clash=CLASH)
    assert a.type == b.type == pa.large_string()
    assert len(b) == 0
    with pytest.raises(DigerError, match="store the ids as strings in both"):
        one_type(pa.array([HUGE], pa.uint64()), pa.array([-2]), clash=CLASH)
    with pytest.raises(DigerError, match="does not fit the other table's type int64"):
        as_type(pa.array([HUGE], pa.uint64()), pa.int64(), clash=CLASH)


def test_a_missing_id_is_named_with_its_row_and_the_remedy():
    told = r"^events: item_id 'x' \(row 1\) is not in the catalogue \(2 such rows\): add the item$"
    with pytest.raises(DigerError, match=told):
        require_all(pa.array(["a", "x", "y"]), pa.array(["a"]), what="events", table="the catalogue", remedy="add the item")
    assert require_all(pa.array(["a", "a"]), pa.array(["b", "a"]), what="", table="", remedy="").tolist() == [1, 1]
    with pytest.raises(DigerError, match="item_id is integers in events and text in the catalogue"):
        require_all(pa.array([1]), pa.array(["1"]), what="events", table="the catalogue", remedy="add the item")


def test_a_repeated_id_is_named():
    require_unique(pa.array([1, 2]), what="ID table", remedy="make it again")
    with pytest.raises(DigerError, match="^ID table: item_id 2 occurs more than once: make it again$"):
        require_unique(pa.array([1, 2, 2, 3]), what="ID table", remedy="make it again")
