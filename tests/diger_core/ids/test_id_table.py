"""The ID table: the suffix rule against a plain reference, its stability, overflow, formats and hash."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diger_core.config import TableConfig, TokenizerConfig
from diger_core.errors import DigerError
from diger_core.ids.id_table import (
    IdTable,
    argmin_codes,
    assignment_hash,
    from_arrow,
    item_hash_order,
    refresh,
    sinkhorn_codes,
    stable_suffixes,
    to_arrow,
)
from diger_core.tokenizer.rqvae import Tokenizer
from diger_core.training.monitors import table_monitors

LEVELS = 2


def reference(codes, ids, previous, reserved, suffixes):
    """The rule of docs/method.md, section 5, one item at a time. `previous`: id -> (codes, suffix)."""
    order = sorted(ids, key=lambda i: hashlib.sha256(f"i:{i}".encode()).digest())
    prefix = {i: tuple(codes[n]) for n, i in enumerate(ids)}
    used = {}
    for *c, s in reserved:
        used.setdefault(tuple(c), set()).add(s)
    held, result = set(), {}
    for i in order:
        if i in previous and previous[i][0] == prefix[i] and (prefix[i], previous[i][1]) not in held:
            result[i] = previous[i][1]
            held.add((prefix[i], result[i]))
    taken = {p: set(s) for p, s in used.items()}
    for p, s in held:
        taken.setdefault(p, set()).add(s)
    for i in order:
        if i not in result:
            group = taken.setdefault(prefix[i], set())
            result[i] = next(s for s in range(suffixes) if s not in group)
            group.add(result[i])
    return [result[i] for i in ids]


def vectorised(codes, ids, previous, reserved, suffixes=1000):
    blank = ((-1,) * LEVELS, -1)
    old = [previous.get(i, blank) for i in ids]
    before = (torch.tensor([list(c) for c, _ in old], dtype=torch.int32), torch.tensor([s for _, s in old], dtype=torch.int32))
    released = torch.tensor(reserved, dtype=torch.int32).reshape(-1, LEVELS + 1)
    got, overflow = stable_suffixes(torch.tensor(codes, dtype=torch.int32), item_hash_order(ids), before, released, suffixes=suffixes)
    assert overflow == 0
    return got.tolist()


code = st.integers(0, 2)
catalogues = st.lists(st.integers(0, 60), min_size=1, max_size=40, unique=True)


@st.composite
def situations(draw):
    ids = draw(catalogues)
    codes = [draw(st.lists(code, min_size=LEVELS, max_size=LEVELS)) for _ in ids]
    previous = {}
    for n, i in enumerate(ids):
        kind = draw(st.sampled_from(["new", "same", "moved"]))
        if kind != "new":
            old = codes[n] if kind == "same" else draw(st.lists(code, min_size=LEVELS, max_size=LEVELS))
            previous[i] = (tuple(old), draw(st.integers(0, 6)))
    reserved = draw(st.lists(st.tuples(code, code, st.integers(0, 8)), max_size=20))
    return ids, codes, previous, reserved


@settings(max_examples=150, deadline=None)
@given(situations())
def test_suffixes_follow_the_rule_item_by_item(situation):
    ids, codes, previous, reserved = situation
    assert vectorised(codes, ids, previous, reserved) == reference(codes, ids, previous, reserved, 1000)


@settings(max_examples=80, deadline=None)
@given(situations(), st.randoms(use_true_random=False))
def test_full_tuples_are_unique_and_row_order_does_not_matter(situation, random):
    ids, codes, previous, reserved = situation
    suffix = vectorised(codes, ids, previous, reserved)
    assert len({(*c, s) for c, s in zip(codes, suffix, strict=True)}) == len(ids)
    rows = list(range(len(ids)))
    random.shuffle(rows)
    shuffled = vectorised([codes[r] for r in rows], [ids[r] for r in rows], previous, reserved[::-1])
    assert [suffix[r] for r in rows] == shuffled


@settings(max_examples=80, deadline=None)
@given(situations(), st.randoms(use_true_random=False))
def test_removing_and_adding_items_moves_no_other_item(situation, random):
    ids, codes, _, reserved = situation
    first = vectorised(codes, ids, {}, reserved)
    table = {i: (tuple(c), s) for i, c, s in zip(ids, codes, first, strict=True)}
    stay = [n for n in range(len(ids)) if random.random() < 0.6]
    new_ids = [ids[n] for n in stay] + [100 + k for k in range(7)]
    new_codes = [codes[n] for n in stay] + [[random.randrange(3) for _ in range(LEVELS)] for _ in range(7)]
    random.shuffle(order := list(range(len(new_ids))))
    ids_2, codes_2 = [new_ids[o] for o in order], [new_codes[o] for o in order]
    second = dict(zip(ids_2, vectorised(codes_2, ids_2, table, [(*c, s) for c, s in table.values()]), strict=True))
    assert all(second[ids[n]] == first[n] for n in stay)
    # nothing new sits on a tuple that the released table gave to another item
    released = {(*c, s) for c, s in table.values()}
    assert not {(*c, second[i]) for i, c in zip(ids_2, codes_2, strict=True) if i >= 100} & released


@settings(max_examples=50, deadline=None)
@given(situations())
def test_a_second_refresh_changes_nothing(situation):
    ids, codes, previous, reserved = situation
    once = vectorised(codes, ids, previous, reserved)
    table = {i: (tuple(c), s) for i, c, s in zip(ids, codes, once, strict=True)}
    assert vectorised(codes, ids, table, reserved) == once


def test_repeated_tuples_of_an_overflown_table_are_told_apart_again():
    ids, codes = [1, 2, 3], [[0, 0]] * 3
    assert sorted(vectorised(codes, ids, {i: ((0, 0), 1) for i in ids}, [])) == [0, 1, 2]


def test_prefixes_stay_apart_where_packed_digits_would_overflow():
    codes = torch.zeros(3, 8, dtype=torch.int32)
    codes[1, 0] = 65_535
    codes[2, 7] = 65_535
    got, overflow = stable_suffixes(codes, torch.arange(3), suffixes=4)
    assert (got.tolist(), overflow) == ([0, 0, 0], 0)


def test_more_items_than_suffixes_is_counted_in_training_and_refused_at_release():
    codes = torch.tensor([[1, 2]] * 7 + [[0, 0]] * 2)
    order = item_hash_order(list(range(9)))
    suffix, overflow = stable_suffixes(codes, order, suffixes=4)
    assert overflow == 3
    assert int(suffix.max()) < 4
    again, _ = stable_suffixes(codes, order, (codes, suffix), suffixes=4)
    assert torch.equal(again, suffix)
    assert IdTable(codes.int(), suffix).duplicates() == 3
    with pytest.raises(DigerError, match=r"7 items share the prefix \(1, 2\).* 4 suffixes"):
        stable_suffixes(codes, order, suffixes=4, on_overflow="error")


def test_reserved_suffixes_count_towards_the_overflow():
    codes = torch.tensor([[1, 2]] * 2)
    reserved = torch.tensor([[1, 2, 0], [1, 2, 1], [1, 2, 1]])
    with pytest.raises(DigerError, match="2 items share the prefix .* reserve 2 tuples .* 3 suffixes"):
        stable_suffixes(codes, torch.arange(2), None, reserved, suffixes=3, on_overflow="error")


def test_ten_thousand_identical_items_get_ten_thousand_suffixes():
    suffix, overflow = stable_suffixes(torch.zeros(10_000, 3, dtype=torch.int32), torch.arange(10_000).flip(0), suffixes=10_000)
    assert overflow == 0
    assert torch.equal(suffix, torch.arange(10_000).flip(0).int())


def test_the_order_of_items_is_that_of_sha256_of_the_typed_id():
    numbers, words = [5, 2**63, 0, 17], ["5", "007", "\u00e9", "e\u0301"]
    assert item_hash_order(pa.array(numbers, pa.uint64())).tolist() == sorted(
        range(4), key=lambda n: hashlib.sha256(f"i:{numbers[n]}".encode()).digest()
    )
    assert item_hash_order(words).tolist() == sorted(range(4), key=lambda n: hashlib.sha256(f"s:{words[n]}".encode()).digest())
    with pytest.raises(DigerError, match="integers or strings"):
        item_hash_order([1.5])


def made(codes: int = 16, dim: int = 12) -> tuple[Tokenizer, torch.Tensor]:
    torch.manual_seed(0)
    return Tokenizer(dim, codes, TokenizerConfig(levels=LEVELS, code_dim=8, hidden=(16,))).eval(), torch.randn(500, dim)


def test_argmin_codes_do_not_depend_on_chunks_or_on_other_items():
    tok, x = made()
    codes = argmin_codes(tok, x)
    assert (codes.dtype, codes.shape) == (torch.int32, (500, LEVELS))
    assert torch.equal(argmin_codes(tok, x, chunk=7), codes)
    assert torch.equal(argmin_codes(tok, tok.encode(x).detach(), encoded=True), codes)
    rows = torch.randperm(500)[:200]
    assert torch.equal(argmin_codes(tok, x[rows]), codes[rows])
    with pytest.raises(DigerError, match="width 5"):
        argmin_codes(tok, torch.zeros(2, 5))


def test_sinkhorn_balances_usage_whatever_the_chunk():
    tok, x = made()
    codes = sinkhorn_codes(tok, x, epsilon=0.02, iterations=80)
    plain, balanced = (table_monitors(c, 16)["perplexity"][0] for c in (argmin_codes(tok, x), codes))
    assert balanced > 15
    assert plain < 14
    assert (sinkhorn_codes(tok, x, epsilon=0.02, iterations=80, chunk=64) == codes).float().mean() > 0.99


def test_sinkhorn_equals_the_textbook_iteration_in_float64():
    tok, x = made()
    z = tok.encode(x).detach()
    d = torch.cdist(z.double(), tok.codebooks[0].detach().double()).square()
    d = (d - (d.max() + d.min()) / 2) / ((d.max() - d.min()) / 2)
    plan = torch.exp(-d / 0.05)
    for _ in range(50):
        plan = plan / plan.sum(1, keepdim=True) / len(z)
        plan = plan / plan.sum(0, keepdim=True) / 16
    assert (sinkhorn_codes(tok, x, epsilon=0.05)[:, 0] == plan.argmax(1)).float().mean() > 0.995


def test_sinkhorn_stands_the_papers_small_epsilon_and_identical_items():
    tok, x = made()
    for rows in (x, x[:1].expand(300, -1)):
        codes = sinkhorn_codes(tok, rows)
        assert bool(((codes >= 0) & (codes < 16)).all())


def test_refresh_is_idempotent_unique_and_independent_of_row_order():
    tok, x = made(codes=4)
    ids = list(range(500))
    table, overflow = refresh(tok, x, item_hash_order(ids), suffixes=512)
    assert (overflow, table.duplicates()) == (0, 0)
    again, _ = refresh(tok, x, item_hash_order(ids), suffixes=512, previous=(table.codes_NM, table.suffix_N))
    assert torch.equal(again.tuples, table.tuples)
    rows = torch.randperm(500).tolist()
    shuffled, _ = refresh(tok, x[rows], item_hash_order(rows), suffixes=512)
    assert torch.equal(shuffled.tuples, table.tuples[rows])
    assert assignment_hash(rows, shuffled) == assignment_hash(ids, table)
    balanced, _ = refresh(tok, x, item_hash_order(ids), suffixes=512, config=TableConfig(method="sinkhorn"))
    assert not torch.equal(balanced.codes_NM, table.codes_NM)


def test_the_assignment_hash_sees_every_code_suffix_and_id():
    table = IdTable(torch.tensor([[1, 2], [3, 4]], dtype=torch.int32), torch.tensor([0, 1], dtype=torch.int32))
    base = assignment_hash([7, 8], table)
    assert base != assignment_hash([7, 9], table)
    assert base != assignment_hash(["7", "8"], table)
    for row, column in ((0, 1), (1, 0)):
        codes = table.codes_NM.clone()
        codes[row, column] += 1
        assert base != assignment_hash([7, 8], IdTable(codes, table.suffix_N))
    assert base != assignment_hash([7, 8], IdTable(table.codes_NM, table.suffix_N.flip(0)))


def test_a_table_survives_arrow_and_a_broken_one_is_refused():
    table = IdTable(torch.tensor([[1, 2], [3, 4]], dtype=torch.int32), torch.tensor([0, 1], dtype=torch.int32))
    arrow = to_arrow(["00a", "0a"], table)
    assert arrow.column_names == ["item_id", "code_1", "code_2", "suffix"]
    ids, back = from_arrow(arrow)
    assert ids.to_pylist() == ["00a", "0a"]
    assert torch.equal(back.tuples, table.tuples)
    with pytest.raises(DigerError, match="code_1"):
        from_arrow(arrow.drop_columns(["code_1"]))
    with pytest.raises(DigerError, match="2 rows for 1"):
        to_arrow(["a"], table)
