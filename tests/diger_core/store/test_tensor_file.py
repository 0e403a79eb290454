"""Tensors written piece by piece are the library's file, byte for byte; mapped ones are those that were written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from diger_core.errors import Damaged, DigerError
from diger_core.store.content_hash import file_hash
from diger_core.store.tensor_file import TensorFile, mapped

ARRAYS = {
    "offsets": np.arange(5, dtype=np.int64),
    "events": np.arange(100, 107, dtype=np.int32),
    "weights": np.linspace(0, 1, 7, dtype=np.float32),
    "a.none": np.zeros(0, dtype=np.int32),
}


def test_pieces_in_any_order_give_the_library_s_bytes(tmp_path):
    save_file({name: torch.from_numpy(array) for name, array in ARRAYS.items()}, tmp_path / "whole", metadata={})
    with TensorFile(tmp_path / "pieces", {name: (array.dtype, array.shape) for name, array in ARRAYS.items()}) as file:
        for name, array in reversed(ARRAYS.items()):
            file.put(name, 3, array[3:])
            file.put(name, 0, array[:3])
    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()
    found = mapped(tmp_path / "pieces")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    with pytest.raises(ValueError, match="read-only"):
        found["events"][0] = 1


def test_a_file_that_is_cut_short_is_refused(tmp_path):
    save_file({"events": torch.zeros(50)}, tmp_path / "file")
    (tmp_path / "file").write_bytes((tmp_path / "file").read_bytes()[:-1])
    with pytest.raises(Damaged, match="cut short: tensor events"):
        mapped(tmp_path / "file")
    (tmp_path / "file").rename(tmp_path / "file.safetensors")
    with pytest.raises(DigerError, match="cut short: tensor events"):
        file_hash(tmp_path / "file.safetensors")
