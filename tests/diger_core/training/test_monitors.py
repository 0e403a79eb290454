"""Monitors of the codebooks and the collapse alarm."""

from __future__ import annotations

import math

import pytest
import torch

from diger_core.config import JointModelConfig
from diger_core.errors import DigerError
from diger_core.training.monitors import CollapseAlarm, prefix_counts, table_monitors

CODES = 8


def uniform_table() -> torch.Tensor:
    return torch.cartesian_prod(torch.arange(CODES), torch.arange(CODES)).int()


def test_a_uniform_table_has_full_perplexity_and_no_dead_codes():
    figures = table_monitors(uniform_table(), CODES)
    assert figures["entropy"] == pytest.approx([math.log(CODES)] * 2)
    assert figures["perplexity"] == pytest.approx([CODES] * 2)
    assert (figures["dead_codes"], figures["unique_prefixes"], figures["largest_group"], figures["flipped"]) == ([0, 0], 64, 1, 0.0)


def test_figures_of_a_small_table_by_hand():
    figures = table_monitors(torch.tensor([[0, 1], [0, 1], [0, 2], [3, 1]]), 4)
    assert figures["entropy"] == pytest.approx([-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))] * 2)
    assert figures["dead_codes"] == [2, 2]
    assert (figures["unique_prefixes"], figures["largest_group"]) == (3, 2)


def test_flipped_is_the_share_of_known_items_with_another_prefix():
    now, before = torch.tensor([[0, 1], [0, 1], [2, 2], [3, 3]]), torch.tensor([[0, 1], [0, 2], [2, 2], [-1, -1]])
    assert table_monitors(now, 4, before)["flipped"] == pytest.approx(1 / 3)
    assert table_monitors(now, 4, torch.full_like(now, -1))["flipped"] == 0.0


def test_prefixes_are_told_apart_where_packed_digits_would_overflow():
    codes = torch.zeros(4, 8, dtype=torch.int32)
    codes[1, 0], codes[2, 7] = 60_000, 60_000
    assert sorted(prefix_counts(codes, 65_536).tolist()) == [1, 1, 2]


def test_the_alarm_is_silent_on_a_sound_table_and_names_what_collapsed():
    start = table_monitors(uniform_table(), CODES)
    alarm = CollapseAlarm(JointModelConfig(collapse_unique_prefixes=0.5, collapse_perplexity=0.25), start)
    assert alarm.check(start) is None
    assert alarm.check({**start, "unique_prefixes": 32}) is None
    assert "31 unique prefixes, 64 after" in (alarm.check({**start, "unique_prefixes": 31}) or "")
    assert "level 2 has perplexity 1.9, 8.0 after" in (alarm.check({**start, "perplexity": [8.0, 1.9]}) or "")
    assert "5 items" in (alarm.check({**start, "overflow": 5}) or "")


def test_a_threshold_of_zero_switches_the_alarm_off():
    alarm = CollapseAlarm(JointModelConfig(collapse_unique_prefixes=0.0, collapse_perplexity=0.0), table_monitors(uniform_table(), CODES))
    assert alarm.check(table_monitors(torch.zeros(64, 2, dtype=torch.int32), CODES)) is None


def test_the_alarm_refuses_figures_it_cannot_compare():
    with pytest.raises(DigerError, match="unique_prefixes"):
        CollapseAlarm(JointModelConfig(), {"perplexity": [1.0]})
