"""What YAML can say is taken exactly or refused by line, in bounded time and memory."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import yaml

from diger_core.errors import DigerError
from orchestration.params.load import load_params
from orchestration.params.plain_yaml import MAX_BYTES, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("# only a comment", None),
        ("a: {b: [1, -2, 0.5, 1e-4, .5, 3., true, False, null, ~]}", {"a": {"b": [1, -2, 0.5, 1e-4, 0.5, 3.0, True, False, None, None]}}),
        ("a: 2024-12-31", {"a": "2024-12-31"}),
        ("a: 2024-12-31T10:00:00Z", {"a": "2024-12-31T10:00:00Z"}),
        ("a: 'yes'\nb: \"010\"\nc: '.nan'", {"a": "yes", "b": "010", "c": ".nan"}),
        ("a: .inf\nb: -.inf", {"a": float("inf"), "b": float("-inf")}),
        ("a: 9223372036854775807", {"a": 2**63 - 1}),
        ("a: |\n  two\n  lines\n", {"a": "two\nlines\n"}),
        ("\ufeffa: 1", {"a": 1}),
        ("a: &named 1", {"a": 1}),
    ],
)
def test_what_means_one_thing_is_taken_exactly(text: str, value: object) -> None:
    found = parse(text.removeprefix("\ufeff"), "p.yaml")
    assert found == value
    assert repr(found) == repr(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "p.yaml, line 3: key 'a' stands twice"),
        ("a: {x: 1, x: 1}", "p.yaml, line 1: key 'x' stands twice"),
        ("a: &x [1]\nb: *x", "p.yaml, line 2: '*x' is an alias"),
        ("a: &x {b: 1}\nc:\n  <<: *x", "p.yaml, line 3: '<<' is a merge key"),
        ("a: 010", "'010' may be an octal number"),
        ("a: 0o10", "'0o10' is no decimal number"),
        ("a: 0x1F", "'0x1F' is no decimal number"),
        ("a: 0b1", "'0b1' is no decimal number"),
        ("a: 1_000", "'1_000' holds underscores"),
        ("a: 1:30", "'1:30' may be a number to the base 60"),
        ("a: 190:20:30.15", "'190:20:30.15' may be a number to the base 60"),
        ("a: yes", "'yes' may mean true, false or the word"),
        ("a: Off", "'Off' may mean"),
        ("a: .NaN", "'.NaN' is no number"),
        ("a: 1e999", "'1e999' is beyond what a number can hold"),
        ("a: " + "9" * 5000, "is beyond 64 bits"),
        ("a: 9223372036854775808", "is beyond 64 bits"),
        ("1: x", "a key is no text"),
        ("? [a]\n: 1", "a key is no text"),
        ("a: !!python/object/apply:os.system [x]", "is a tag"),
        ("a: !!set {x}", "is a tag"),
        ("a: 1\n---\nb: 2", "p.yaml, line 2: a second document begins"),
        ("a: " + "[" * 50 + "]" * 50, "nested more than 16 deep"),
        ("a: [" + "1," * 20_000 + "]", "more than 10,000 values"),
        ("a: [1", "p.yaml, line 1: not valid YAML"),
        ("a: \x07", "not valid YAML"),
        ("a: b: c", "p.yaml, line 1: not valid YAML"),
        ("#" * (MAX_BYTES + 1), "is longer than 262,144 bytes"),
    ],
)
def test_what_is_ambiguous_or_unbounded_is_refused_by_line(text: str, message: str) -> None:
    started = time.monotonic()
    with pytest.raises(DigerError) as error:
        parse(text, "p.yaml")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200
    assert time.monotonic() - started < 5


def test_a_file_that_is_none_of_ours_is_not_quoted(tmp_path: Path) -> None:
    for text in ("token: hunter2\ntoken: hunter3", "hunter2: yes", "key: !hunter2 x", "key: *hunter2", "hunter2: [", "- 'hunter2", "hunter2: 0x77"):
        (tmp_path / "other.yaml").write_text(text)
        with pytest.raises(DigerError) as error:
            load_params(tmp_path / "other.yaml")
        assert "hunter" not in str(error.value)


def test_a_thousand_million_laughs_stop_at_the_first() -> None:
    lines = ["a0: &a0 [lol]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with pytest.raises(DigerError, match="line 2: '.a0' is an alias; write the value out"):
        parse("\n".join(lines), "p.yaml")


def test_brackets_without_end_stop_at_the_first_too_deep() -> None:
    started = time.monotonic()
    with pytest.raises(DigerError, match="nested more than 16 deep"):
        parse("a: " + "[" * 100_000, "p.yaml")
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tokenizer.epochs=true", "tokenizer.epochs = True: input should be a valid integer"),
        ("tokenizer.epochs='3'", "tokenizer.epochs = '3': input should be a valid integer"),
        ("tokenizer.epochs=3.5", "tokenizer.epochs = 3.5: input should be a valid integer"),
        ("evaluation.remove_seen=1", "evaluation.remove_seen = 1: input should be a valid boolean"),
        ("training.learning_rate=.inf", "training.learning_rate = inf: must be a finite number"),
        ("tokenizer.beta=-.inf", "tokenizer.beta = -inf"),
        ("tokenizer.epochs=010", "--set tokenizer.epochs, line 1: '010' may be an octal number"),
        ("tokenizer.epochs=4611686018427387904", "tokenizer.epochs = 4611686018427387904: must be at most 2,147,483,647"),
        ("tokenizer.hidden=[2147483648]", "tokenizer.hidden[0] = 2147483648: must be at most"),
        ("training.seed=-1", "training.seed = -1: must be at least 0"),
        ("decay_search.seed=-1", "decay_search.seed = -1: must be at least 0"),
        ("evaluation.recall_at=[]", "evaluation.recall_at = (): must be a list of cut-offs, each at least 1"),
        ("evaluation.ndcg_at=[0, 5]", "evaluation.ndcg_at = (0, 5): must be a list of cut-offs"),
        ("evaluation.new_item_events=-1", "evaluation.new_item_events = -1: must be at least 0"),
        ("joint_model.codebook_weight_decay=-0.1", "joint_model.codebook_weight_decay = -0.1: must be at least 0"),
        ("recommender.relative_max_distance=-1", "recommender.relative_max_distance = -1: must be at least relative_buckets, 32"),
        ("arrival.timezone=Mars", "arrival.timezone = 'Mars': must be the name of a time zone"),
        ("arrival.notify.command=['']", "arrival.notify.command = ('',): must begin with a program"),
        ("snapshot=''", "snapshot = '': must be a directory or an s3:// address"),
        ('snapshot="\\ud800"', "--set snapshot, line 1: a text holds half of a surrogate pair"),
        ("tokenizer={epochs: 3, epochs: 4}", "--set tokenizer, line 1: key 'epochs' stands twice"),
    ],
)
def test_a_value_of_another_type_is_never_taken_for_the_keys_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DigerError) as error:
        load_params(None, (override,))
    assert message in str(error.value)


def test_dates_need_no_quotes_and_infinity_stays_where_it_means_something(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("sequences: {train_until: 2024-01-01, validate_until: 2024-02-01}\njoint_model: {schedule: {r: .inf}}\n")
    params = load_params(tmp_path / "p.yaml")
    assert params.sequences.train_until == "2024-01-01"
    assert params.joint_model.schedule.r == float("inf")


def test_what_the_command_prints_can_be_read_again() -> None:
    import dataclasses
    import json

    plain = json.loads(json.dumps(dataclasses.asdict(load_params(None, ("tokenizer.beta=0.00001",)))))
    assert parse(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), "p.yaml") == plain


def test_only_a_regular_file_of_text_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "utf16.yaml").write_bytes("tokenizer: {epochs: 3}".encode("utf-16"))
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbftokenizer: {epochs: 3}")
    (tmp_path / "huge.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    started = time.monotonic()
    for name, message in (
        (".", "is a directory"),
        ("pipe", "is a pipe"),
        ("/dev/zero", "is a device"),
        ("utf16.yaml", "is not UTF-8 text"),
        ("huge.yaml", "at most 262,144 are read"),
        ("x" * 300, "cannot be read"),
        ("a\0b", "cannot be read"),
    ):
        with pytest.raises(DigerError) as error:
            load_params(f"{tmp_path}/{name}" if name != "/dev/zero" else name)
        assert message in str(error.value)
        assert "\n" not in str(error.value)
    assert time.monotonic() - started < 5
    assert load_params(tmp_path / "bom.yaml").tokenizer.epochs == 3
