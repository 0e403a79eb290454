"""The command line: exit codes, one clear line for each fault, help for everything."""

import io
import json
import os
import stat
from types import SimpleNamespace

import pytest

from orchestration.cli import _COMMANDS, _HELP, main
from tests.support.snapshot_material import interactions, items, write


def call(*arguments):
    """Runs `diger` in this process and returns its exit code."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return stop.code
    return 0


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.delenv("DIGER_STORE", raising=False)
    write(tmp_path / "snap", interactions(), items())
    return tmp_path


def one_line(capsys):
    """The single line on standard error."""
    text = capsys.readouterr().err.strip().splitlines()
    lines = [line for line in text if line.startswith("diger: ")]
    assert len(lines) == 1
    assert "Traceback" not in "\n".join(text)
    return lines[0]


@pytest.mark.parametrize("command", sorted(_COMMANDS))
def test_every_subcommand_has_help(command, capsys):
    assert call(command, "--help") == 0
    assert "Usage: diger" in capsys.readouterr().out


def test_the_listing_names_every_subcommand(capsys):
    assert set(_HELP) == set(_COMMANDS)
    assert call("--help") == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in _COMMANDS)


WRONG = [["nonsense"], ["run", "--nonsense"], ["lookup"], ["run", "--until", "nowhere"], ["stage", "nowhere"], ["ingest", "nowhere"]]


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_usage_exits_with_2(here, arguments, capsys):
    assert call(*arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_run_until_a_stage_leaves_its_artefacts_and_a_second_run_reuses_them(here, capsys):
    assert call("run", "--snapshot", "snap", "--until", "sequences", "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert set(first["artefacts"]) == {"raw_items", "raw_interactions", "validated_items", "validated_interactions", "sequences"}
    before = sorted(p for p in (here / "store").rglob("*") if p.is_file())
    assert call("run", "--snapshot", "snap", "--until", "sequences", "--json") == 0
    assert json.loads(capsys.readouterr().out)["artefacts"] == first["artefacts"]
    assert sorted(p for p in (here / "store").rglob("*") if p.is_file()) == before


def test_snapshots_are_registered_and_listed(here, capsys):
    assert call("snapshot", "add", "snap") == 0
    key = capsys.readouterr().out.split()[0]
    assert call("snapshot", "list", "--json") == 0
    entries = json.loads(capsys.readouterr().out)
    assert [e["key"] for e in entries] == [key]


def test_a_missing_snapshot_is_one_line(here, capsys):
    assert call("run", "--snapshot", "nowhere") == 1
    assert "nowhere" in one_line(capsys)
    assert not (here / "store" / "artefacts").exists()


def test_an_unknown_key_stops_before_anything_is_stored(here, capsys):
    assert call("run", "--snapshot", "snap", "--set", "tokenizer.epoch=3") == 1
    assert "tokenizer.epoch: unknown key (did you mean epochs?)" in one_line(capsys)
    assert not (here / "store" / "artefacts").exists()


def test_a_lookup_before_any_run_says_what_to_do(here, capsys):
    assert call("lookup", "--snapshot", "snap", "--item", "1") == 1
    assert "materialise" in one_line(capsys)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_store_is_one_line(here, capsys):
    (here / "store").mkdir()
    (here / "store").chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert call("run", "--snapshot", "snap") == 1
    assert "read-only" in one_line(capsys)


def test_a_store_that_cannot_be_a_directory_is_one_line(here, capsys):
    (here / "file").write_text("")
    assert call("run", "--snapshot", "snap", "--store", "file/store") == 1
    assert "file/store" in one_line(capsys)
    assert call("run", "--snapshot", "snap", "--store", "file") == 1
    assert "a file stands where a directory is wanted" in one_line(capsys)


@pytest.mark.parametrize("option", ["--snapshot", "--params", "--store"])
def test_an_option_that_is_given_empty_does_not_stand_for_its_default(here, capsys, option):
    given = ("--store", "store", "--snapshot", "snap") if option == "--params" else ("--snapshot", "snap")
    assert call("run", "--until", "raw_items", *given, option, "") in (1, 2)
    told = capsys.readouterr().err
    assert "is empty; leave the option out for its default" in told or "'': not a usable location" in told


def test_a_full_disk_is_one_line_and_keeps_what_was_there(here, capsys, monkeypatch):
    assert call("run", "--snapshot", "snap", "--until", "validated_items", "--json") == 0
    before = {p: p.read_bytes() for p in (here / "store" / "artefacts").rglob("*") if p.is_file()}
    capsys.readouterr()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.write_table", full)
    assert call("run", "--snapshot", "snap", "--until", "sequences") == 1
    assert "disk is full" in one_line(capsys)
    assert {p: p.read_bytes() for p in before} == before
    assert list((here / "store" / "tmp").iterdir()) == []


def test_debug_shows_the_traceback():
    with pytest.raises(Exception, match="nowhere"):
        main(["--debug", "run", "--snapshot", "nowhere"])


def test_params_prints_what_a_run_would_use(here, capsys):
    assert call("params", "--set", "tokenizer.epochs=7") == 0
    printed = capsys.readouterr().out
    assert "epochs: 7" in printed
    (here / "again.yaml").write_text(printed)
    assert call("params", "--params", "again.yaml") == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(("arguments", "kept"), [(["recommend", "--out", "x"], "finished shards are kept"), (["run"], "finished stages are kept")])
def test_an_interruption_tells_what_is_kept(here, capsys, monkeypatch, arguments, kept):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("orchestration.params.load.load_params", interrupted)
    monkeypatch.setattr("orchestration.engine.registry.register", interrupted)  # what `run` asks for first, whatever was imported before
    assert call(*arguments, "--snapshot", "snap") == 130
    assert kept in one_line(capsys)


@pytest.mark.parametrize("answer", ["", "n\n"])
def test_forget_without_an_answer_changes_nothing_and_names_the_option(here, capsys, monkeypatch, answer):
    monkeypatch.setattr("orchestration.audit.forget.find", lambda *_: SimpleNamespace(holders=["some"], pages=[]))
    monkeypatch.setattr("orchestration.cli.upkeep._print_findings", lambda *_: None)
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    assert call("forget", "7") == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("diger: not confirmed, so nothing was changed; where nobody can be asked, give --yes")


def test_one_user_is_no_users():
    from orchestration.serving.shards import counted

    assert [counted(number, "user") for number in (0, 1, 1000)] == ["0 users", "1 user", "1,000 users"]
