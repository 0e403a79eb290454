"""RESULTS.md is what the records say, short, with the conclusion first; the records behind it can be printed."""

import json

import pytest

from benchmarks import tables
from benchmarks.report import render
from benchmarks.rows import kinds, main


def test_the_page_is_current():
    assert (tables.FOLDER / "RESULTS.md").read_text(encoding="utf-8") == render(), "run: python -m benchmarks.report"


def test_the_page_fits_and_begins_with_its_weakness():
    lines = render().splitlines()
    assert len(lines) <= 150
    assert lines[:3] == ["# Results", "", lines[2]]
    assert "counting beats" in lines[2]
    assert "`python -m benchmarks.gpu" not in render()


def test_every_record_and_every_command_is_printed(capsys):
    main([])
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == sum(len(tables.lines(kind)) for kind in kinds())
    main(["quality", "--commands"])
    told = capsys.readouterr().out.splitlines()
    assert told == sorted({record["command"] for record in tables.lines("quality")})


def test_a_kind_without_records_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["nothing"])
    assert "invalid choice" in capsys.readouterr().err


def test_a_model_that_beats_the_frozen_one_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    (tmp_path / "results").mkdir()
    made = {"kind": "quality", "data": "beauty", "label": "", "alarm": None, "device": "x", "torch": "2", "commit": "c", "time": "2026-01-01T00:00"}
    figures = {("frozen", 0): 0.030, ("frozen", 1): 0.031, ("frqud", 0): 0.040, ("frqud", 1): 0.041}
    rows = [made | {"variant": variant, "seed": seed, "recall@10": 0.06, "ndcg@10": ndcg} for (variant, seed), ndcg in figures.items()]
    (tmp_path / "results" / "quality.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    from benchmarks.report_quality import quality

    (line,) = [line for line in quality().splitlines() if "| frqud |" in line]
    assert line.endswith("| +0.0100 | yes |")
