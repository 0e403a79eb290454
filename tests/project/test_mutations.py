"""`make mutations` takes minutes; that its list still fits the code is seen at once."""

from __future__ import annotations

import ast
import re

import pytest

from tests.mutations import MUTATIONS, REPOSITORY, broken


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.property)
def test_a_mutation_fits_the_code_and_names_a_test_that_exists(mutation):
    ast.parse(broken(mutation))  # fails on the changed meaning, not on a typing error
    file, _, name = mutation.test.partition("::")
    text = (REPOSITORY / "tests" / mutation.room / file).read_text(encoding="utf-8")
    assert re.search(rf"^def {re.escape(name.partition('[')[0])}\(", text, re.M), mutation.test
