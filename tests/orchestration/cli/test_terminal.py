"""What a terminal, a log and a script get to see: progress on standard error, colours on a terminal alone, JSON whole."""

import json
import os
import pty
import subprocess
import sys

import pytest

from diger_core.progress import Silent
from orchestration.cli import main
from orchestration.cli.demo import story
from orchestration.cli.options import Source, next_steps
from orchestration.cli.run import follow_up, show
from orchestration.engine.console import Lines, _is_number, _rate, console_progress, digits
from orchestration.verdict.models import NAMES, ordered
from orchestration.verdict.report.verdict import verdict
from tests.support.report_material import MODELS, fake_metrics, fake_verdict

TABLE = """
from orchestration.engine.console import console_progress, print_table
with console_progress() as progress:
    progress.update("training", 1, 2, loss=1.5)
    progress.message("done")
print_table("Title", ["a", "b"], [["x", "1"]])
"""
BAR = """
from orchestration.engine.console import console_progress
with console_progress() as progress:
    progress.update("joint_model", 1, 1580, loss_gen=1.25, sigma=0.5, perplexity="62/54/46", rows_per_second=928)
    progress.update("joint_model", 790, 1580, loss_gen=1.25, sigma=0.5, perplexity="62/54/46", rows_per_second=928)
"""
BEATEN = fake_metrics({**MODELS, "lists": 0.11}, beats=(-0.015, -0.02, -0.01))
SUMMARY = {
    "snapshot": "monday-1",
    "seconds": 3.2,
    "metrics": BEATEN,
    "verdict": verdict(BEATEN, fake_verdict((0.01, 0.002, 0.018))).plain(),
    "gate": "The gate accepts it.",
    "champion": None,
    "report": "/store/report.html",
}


def on_a_terminal(code: str = TABLE, **extra: str) -> str:
    """What the code prints where standard output and error are a terminal."""
    leader, follower = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")} | {"TERM": "xterm-256color", **extra}
    with subprocess.Popen([sys.executable, "-c", code], stdout=follower, stderr=follower, env=environment) as child:
        os.close(follower)
        written = b""
        while True:
            try:
                part = os.read(leader, 65536)
            except OSError:  # the child is gone, and with it the terminal's other side
                break
            if not part:
                break
            written += part
        assert child.wait() == 0
    os.close(leader)
    return written.decode()


def test_a_log_gets_no_escape_sequences():
    done = subprocess.run([sys.executable, "-c", TABLE], capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stdout + done.stderr
    assert "done" in done.stderr
    assert "done" not in done.stdout


def test_a_terminal_gets_styles_and_with_no_color_no_colours():
    assert "\x1b[" in on_a_terminal()
    plain = on_a_terminal(NO_COLOR="1")
    assert not any(f"\x1b[{code}m" in plain for code in range(30, 48))
    assert "38;5;" not in plain


def test_quiet_progress_says_nothing(capsys):
    with console_progress(quiet=True) as progress:
        assert isinstance(progress, Silent)
        progress.message("hello")
    assert capsys.readouterr() == ("", "")


def test_a_quiet_summary_is_the_verdict_and_the_report(capsys):
    show(SUMMARY, as_json=False, quiet=True)
    title = "Accepted, better than the champion; lists below item-item + text"
    assert capsys.readouterr().out.splitlines() == [f"Verdict: {title}", "Report: /store/report.html"]


def test_a_full_summary_has_metrics_champion_and_time(capsys):
    show(SUMMARY, as_json=False)
    told = capsys.readouterr().out
    assert all(word in told for word in ("0.0550 ±0.0028", "Champion: none", "Done in 3.2 s"))
    flat = " ".join(told.split())
    assert "On the same 900 users" in flat
    assert "Lists against counting: Lists below item-item + text: " in flat
    assert "-0.0150 (95% interval -0.0200 to -0.0100, 1,234 users)" in flat


def test_the_summary_has_every_model_in_order_and_fits_eighty_columns(capsys):
    show(SUMMARY, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if line.startswith("│")]
    assert [row.split("│")[1].strip() for row in rows] == [NAMES[name] for name in ordered(MODELS)]
    assert "recall@5" not in " ".join(lines)


def test_json_is_the_summary_and_nothing_else(capsys):
    show(SUMMARY, as_json=True, quiet=True)
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(SUMMARY))


def test_plain_progress_tells_rate_and_time_left():
    lines: list[str] = []
    progress = Lines(lines.append, every=0.0)
    progress.update("training", 0, 100)
    progress.update("training", 50, 100, loss=1.25, sigma=0.5)
    assert "50/100" in lines[-1]
    assert "left" in lines[-1]
    assert lines[-1].endswith("loss 1.25  sigma 0.5")
    progress.update("joint_model", 10, 100, loss_gen=1.25, sigma=0.5, perplexity="62/54/46", rows_per_second=928)
    assert lines[-1].endswith("928 rows/s  loss 1.25  sigma 0.5  perplexity 62/54/46")


def test_what_takes_longer_than_a_second_each_is_told_so():
    assert _rate(30, 10.0) == "  3/s"
    assert _rate(2, 31.0) == "  16 s each"


def test_the_bar_of_a_training_fits_eighty_columns():
    shown = on_a_terminal(BAR, COLUMNS="80")
    assert all(words in shown for words in ("928 rows/s", "loss 1.25", "sigma 0.5", "790/1580", "00:0"))


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["report", "--help"], ["report", "compare", "--help"], ["params", "--help"]])
def test_help_fits_eighty_columns(arguments):
    done = subprocess.run(
        [sys.executable, "-c", f"from orchestration.cli import main; main({arguments})"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("Usage: diger")
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_listing_is_grouped_by_what_people_do():
    done = subprocess.run([sys.executable, "-c", "from orchestration.cli import main; main(['--help'])"], capture_output=True, text=True, check=True)
    heads = [line for line in done.stdout.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert heads == ["Options:", "Run:", "Look:", "Serve:", "Audit:", "Keep house:"]


def test_questions_about_a_store_do_not_wait_for_torch(tmp_path):
    """Seconds of start-up: `champion` and `ids` read JSON and tables."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"item_id": ["a", "b"], "code_1": [1, 2], "suffix": [0, 0]}), tmp_path / "old.parquet")
    code = """
import sys
from orchestration.cli import main
for arguments in (["champion"], ["ids", "diff", "old.parquet", "old.parquet"], ["item", "a"], ["why", "champion"]):
    try:
        main(arguments)
    except SystemExit:
        pass
assert "torch" not in sys.modules and "ray" not in sys.modules and "dagster" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "whole ID kept" in done.stdout


def test_what_to_do_next_names_the_store_where_it_must_and_leaves_standard_output_alone(capsys, monkeypatch):
    monkeypatch.delenv("DIGER_STORE", raising=False)
    next_steps("store", ("diger ui", "look"), ("diger gc --delete", "remove it"))
    next_steps("my store", ("diger ui", "look"), ("page.html", "open it"))
    out, told = capsys.readouterr()
    assert out == ""
    assert told.splitlines() == [
        "Next: diger ui           # look",
        "      diger gc --delete  # remove it",
        "Next: diger ui --store 'my store'  # look",
        "      page.html                    # open it",
    ]


def test_of_a_key_that_is_set_twice_the_last_counts_and_a_line_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["params", "tokenizer", "--bare", "--set", "tokenizer.epochs=7", "--set", "tokenizer.epochs=8"])
    out, told = capsys.readouterr()
    assert "  epochs: 8\n" in out
    assert told == "--set tokenizer.epochs is given more than once: 8 counts, 7 does not\n"


@pytest.mark.parametrize(
    ("cell", "number"), [("0.0550 ±0.0028", True), ("17-203-88-0", True), ("1,234", True), ("", True), ("12 s", False), ("–", True)]
)
def test_numbers_stand_to_the_right_and_words_to_the_left(cell, number):
    assert _is_number(cell) is number


@pytest.mark.parametrize(("value", "written"), [(0.51, "0.510"), (12.34, "12.3"), (123.4, "123"), (4210.2, "4,210"), (0.00012345, "0.000123")])
def test_three_digits_count(value, written):
    assert digits(value) == written


def test_the_demo_ends_with_what_was_compared_what_won_and_what_to_open():
    cycle = {
        "decision": "retrain",
        "reason": "13.0% more events (retrain_events: 2.0%); 8.0% new items (retrain_added: 2.0%)",
        "cold_start_items": 256,
        "ids_kept": 0.992,
        "ids_kept_weighted": 0.99,
        "ndcg_10": {"candidate": 0.0845, "champion": 0.0767, "difference": {"mean": 0.0078, "low": 0.0039, "high": 0.012}},
        "fresh_targets": 1,
        "rules": 14,
        "rules_met": 14,
    }
    later = {**SUMMARY, "snapshot": "tuesday-2", "champion": {"number": 2, "bundle": "b" * 64}, "cycle": cycle}
    told = "\n".join(story({**SUMMARY, "second": later})).strip()
    lines = told.splitlines()
    assert len(lines) <= 10
    assert max(map(len, lines)) <= 80
    flat = " ".join(told.split())
    assert "Gate accepted, 14 of 14 rules met: released as champion #2" in flat
    assert "New lists 0.0845, before 0.0767: better, +0.0078 (+0.0039 to +0.0120)" in flat
    assert "Same lists 0.0550, counting 0.0700: worse, -0.0150 (-0.0200 to -0.0100)" in flat
    assert "Model alone" in flat
    assert "Changed 13.0% more events; 8.0% new items IDs" in flat, "without the thresholds"
    assert lines[-1] == "  Open         /store/report.html"
    assert "Gate refused, 14 of 14 rules met: the champion stays" in " ".join(story({**SUMMARY, "second": {**later, "refused": "so"}})[2].split())


def test_what_follows_a_run_names_its_snapshot_and_the_remedy_of_a_refusal():
    source = Source("monday", None, (), "store")
    later = {**SUMMARY, "champion": {"number": 2, "bundle": "b" * 64}, "artefacts": {"report": "r" * 64}}
    assert follow_up(later, None, source, "c7")[1] == ("diger recommend --snapshot monday --users c7", "a list")
    refused = {**later, "refused": "so"}
    assert follow_up(refused, None, source)[1] == ("diger run --snapshot monday --set retraining.epochs=N", "train longer")
    scratch = follow_up(refused, None, source.with_overrides("retraining.start=scratch"))[1]
    assert scratch == ("diger run --snapshot monday --set retraining.start=warm", "continue from the champion")


def test_a_long_command_does_not_push_what_follows_it_beyond_eighty_columns(capsys):
    next_steps("store", ("diger recommend --snapshot data/snapshots/demo-2 --users c00820", "a list"), ("diger ui", "the report in the browser"))
    assert [len(line) <= 80 for line in capsys.readouterr().err.splitlines()] == [True, True]
