"""`make faults` takes half an hour; that its list still names tests is seen at once."""

import re
from pathlib import Path

import pytest

from benchmarks.faults import BENCH

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("file", "words"), [pair for fault in BENCH for pair in fault.tests])
def test_every_word_of_a_fault_chooses_a_test_of_its_file(file: str, words: str):
    names = re.findall(r"^def (test_\w+)", (PROJECT / file).read_text(encoding="utf-8"), re.MULTILINE)
    assert names
    for word in words.split(" or "):
        assert any(word in name for name in names), word
