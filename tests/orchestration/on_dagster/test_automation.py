"""Arrival, decision, release and failures without a daemon: each sensor on snapshots and runs that are good, odd or broken."""

from __future__ import annotations

import contextlib
import http.server
import json
import logging
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
import yaml

from diger_core.errors import DigerError
from diger_core.store.artefacts import Store
from orchestration.engine.registry import registered
from orchestration.on_dagster.notify import Trouble, notify
from orchestration.on_dagster.sensors import next_step
from orchestration.params.arrival import ArrivalConfig, NotifyConfig
from orchestration.params.load import build_params, load_params
from orchestration.snapshot.arrival import CONTENTS, accepted, look, newest_event, scan
from orchestration.snapshot.files import describe
from tests.support.at_once import at_once
from tests.support.retraining_world import FIRST, RENAMED, SECOND, SMALL, RetrainingWorld, shop
from tests.support.snapshot_material import START, interactions, items, write

pytestmark = pytest.mark.usefixtures("no_pictures")

TROUBLE = Trouble("retrain", "snap-1", "joint_model", "the loss is not finite: lower training.learning_rate", "run-1")
CONFIG = ArrivalConfig(watch="incoming")


def drop(name: str, events: pa.Table | None = None, catalogue: pa.Table | None = None, marker: str | None = "_SUCCESS") -> Path:
    directory = write(Path("incoming") / name, events or interactions(), catalogue or items())
    if marker:
        (directory / marker).touch()
    return directory


def at(day: int, users: int = 25) -> pa.Table:
    """Events that end at a day."""
    events = interactions(users)
    return events.set_column(2, "timestamp", pa.array([START + 86_400 * day - row for row in range(events.num_rows)]))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory whose params.yaml watches `incoming`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIGER_STORE", "store")
    (tmp_path / "incoming").mkdir()
    configure()
    return tmp_path


def configure(**arrival: Any) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(SMALL | {"arrival": {"watch": "incoming", **arrival}}), encoding="utf-8")


@dataclass
class Dagster:
    """An instance, and what the daemon would ask of the definitions."""

    instance: dg.DagsterInstance
    cursor: str | None = None

    def tick(self) -> dg.SensorResult:
        """One tick of the arrival sensor; partitions are added and the cursor kept as the daemon does."""
        from orchestration.definitions import defs, sensors

        result = sensors[0](dg.build_sensor_context(instance=self.instance, cursor=self.cursor, definitions=defs))
        assert isinstance(result, dg.SensorResult)
        for request in result.dynamic_partitions_requests or []:
            self.instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
        self.cursor = result.cursor
        return result

    def ran(self, request: dg.RunRequest, job: str = "arrival", status: dg.DagsterRunStatus = dg.DagsterRunStatus.FAILURE) -> None:
        """Puts a run of the request on record, ended or not."""
        tags = {**request.tags, "dagster/partition": request.partition_key}
        self.instance.add_run(dg.DagsterRun(job_name=job, run_id=str(uuid.uuid4()), tags=tags, status=status))

    def run(self, job: str, key: str) -> dg.ExecuteInProcessResult:
        from orchestration.definitions import defs

        self.instance.add_dynamic_partitions("snapshots", [key])
        return defs.resolve_job_def(job).execute_in_process(partition_key=key, instance=self.instance, raise_on_error=False)

    def after(self, result: dg.ExecuteInProcessResult) -> dg.RunRequest | dg.SkipReason:
        return next_step(self._context("next_step", result, dg.DagsterEventType.RUN_SUCCESS))

    def told(self, result: dg.ExecuteInProcessResult) -> Trouble:
        from orchestration.on_dagster.sensors import trouble

        return trouble(self._context("failure", result, dg.DagsterEventType.RUN_FAILURE).for_run_failure())

    def _context(self, sensor: str, result: dg.ExecuteInProcessResult, kind: dg.DagsterEventType) -> Any:
        event = next(event for event in result.all_events if event.event_type == kind)
        return dg.build_run_status_sensor_context(sensor, event, self.instance, result.dagster_run)


@pytest.fixture
def dagster(place: Path) -> Iterator[Dagster]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Dagster(instance)


def keys(result: dg.SensorResult) -> list[str]:
    return [request.partition_key for request in result.run_requests or []]


def said(result: dg.SensorResult) -> str:
    reason = result.skip_reason
    return str(reason.skip_message if isinstance(reason, dg.SkipReason) else reason)


# Arrival


def test_a_snapshot_is_registered_and_launched_under_its_content(dagster):
    drop("monday")
    result = dagster.tick()
    (entry,) = registered(Store("store"))
    assert keys(result) == [entry.key]
    assert result.run_requests[0].run_key == entry.content_hash
    assert dagster.instance.get_dynamic_partitions("snapshots") == [entry.key]


@pytest.mark.parametrize("marker", ["_SUCCESS", "manifest.json"])
def test_a_half_uploaded_snapshot_is_left_alone_and_said_so(dagster, marker):
    directory = drop("monday", marker=None)
    result = dagster.tick()
    assert keys(result) == []
    assert "monday: not complete yet" in said(result)
    assert registered(Store("store")) == []
    (directory / marker).touch()
    assert len(keys(dagster.tick())) == 1


def test_a_marker_that_came_before_its_files_is_told_and_the_snapshot_taken_up_when_it_is_whole(dagster):
    directory = drop("monday")
    whole = (directory / "items.parquet").read_bytes()
    (directory / "items.parquet").write_bytes(whole[:100])
    assert "not a complete Parquet file" in said(dagster.tick())
    assert registered(Store("store")) == []
    (directory / "items.parquet").write_bytes(whole)
    assert len(keys(dagster.tick())) == 1


def test_nothing_is_launched_twice_by_later_ticks_a_lost_cursor_or_a_renamed_copy(dagster):
    drop("monday")
    (request,) = dagster.tick().run_requests
    dagster.ran(request)
    assert keys(dagster.tick()) == []
    dagster.cursor = None  # another daemon, or one whose memory was lost
    assert keys(dagster.tick()) == []
    drop("monday-copy")
    assert keys(dagster.tick()) == []
    assert len(registered(Store("store"))) == 1


def test_a_tick_that_was_lost_before_its_run_is_made_good(dagster):
    drop("monday")
    first = dagster.tick()
    assert keys(dagster.tick()) == keys(first)


def test_quiet_ticks_read_no_file_and_keep_a_short_cursor(dagster, monkeypatch):
    drop("monday")
    dagster.ran(dagster.tick().run_requests[0])
    dagster.tick()
    assert len(dagster.cursor) == 64

    def read(*_: Any) -> None:
        raise AssertionError("a quiet tick read a file")

    monkeypatch.setattr("orchestration.snapshot.arrival.describe", read)
    monkeypatch.setattr("orchestration.snapshot.arrival.registered", read)
    assert "nothing has changed" in said(dagster.tick())


def validated(key: str) -> None:
    """What a snapshot's run leaves behind as far as validation, good or bad."""
    from orchestration.engine.registry import lookup
    from orchestration.engine.runner import Session
    from orchestration.graph import STAGES, upstream
    from orchestration.params.load import build_params

    session = Session(Store("store"), build_params({}), lookup(Store("store"), key))
    for stage in STAGES:
        if stage.name in upstream({"validated_interactions"}):
            session.materialise(stage)


def test_a_snapshot_older_than_an_accepted_one_is_said_and_not_launched_unless_allowed(dagster):
    drop("tuesday", at(20))
    (request,) = dagster.tick().run_requests
    dagster.ran(request)
    validated(request.partition_key)
    drop("monday", at(10))
    result = dagster.tick()
    assert keys(result) == []
    assert "monday-" in said(result)
    assert f"older than {request.partition_key}" in said(result)
    configure(allow_older=True)
    assert [key.rsplit("-", 1)[0] for key in keys(dagster.tick())] == ["monday"]


def test_only_what_validation_accepted_says_how_new_a_snapshot_is(place):
    """One event in the year 2100, which validation puts aside, and times in milliseconds, which it refuses, hold nothing back."""
    future = at(10).to_pydict()
    future["timestamp"][5] = 4_102_444_800
    millis = at(11).set_column(2, "timestamp", pa.array([time * 1000 for time in at(11)["timestamp"].to_pylist()]))
    done: set[str] = set()
    for name, events in (("monday", pa.table(future)), ("tuesday", millis), ("wednesday", at(12))):
        drop(name, events)
        found = look(Store("store"), CONFIG, lambda key: key in done)
        assert found.launch is not None, found.said
        assert found.launch.key.startswith(name)
        if name == "monday":
            validated(found.launch.key)
            assert list(accepted(Store("store")).values()) == [START + 10 * 86_400]
        else:
            with contextlib.suppress(DigerError):
                validated(found.launch.key)
        done.add(found.launch.key)
    assert len(accepted(Store("store"))) == 2


def test_of_a_backlog_the_newest_alone_is_launched_or_all_in_order_one_by_one(place):
    for name, day in (("b", 20), ("a", 30), ("c", 10)):
        drop(name, at(day))
    newest = look(Store("store"), CONFIG, lambda key: False)
    assert newest.launch.key.startswith("a-")
    done: set[str] = set()
    order = []
    for _ in range(3):
        found = look(Store("store"), ArrivalConfig(watch="incoming", allow_older=True), lambda key: key in done)
        order.append(found.launch.key[0])
        done.add(found.launch.key)
    assert order == ["c", "b", "a"]


def test_a_look_reads_a_bounded_number_of_new_snapshots(place):
    for number in range(4):
        drop(f"s{number}", at(number + 1))
    found = look(Store("store"), ArrivalConfig(watch="incoming", at_most=3), lambda key: True)
    assert len(registered(Store("store"))) == 3
    assert "waits for the next look" in " ".join(found.said)
    assert not found.quiet
    assert len(scan(ArrivalConfig(watch="incoming", look_at=2))[0]) == 2


def test_a_snapshot_waits_while_the_cycle_of_another_runs(dagster):
    drop("monday", at(10))
    (request,) = dagster.tick().run_requests
    dagster.ran(request)
    dagster.ran(request, "retrain", dg.DagsterRunStatus.STARTED)
    drop("tuesday", at(20))
    result = dagster.tick()
    assert keys(result) == []
    assert "of retrain is under way" in said(result)
    (running,) = dagster.instance.get_runs(dg.RunsFilter(job_name="retrain"))
    dagster.instance.report_run_failed(running)
    assert [key.rsplit("-", 1)[0] for key in keys(dagster.tick())] == ["tuesday"]


def test_a_dry_look_changes_nothing(place):
    drop("monday")
    assert look(Store("store"), CONFIG, lambda key: False, dry=True).launch.key.startswith("monday-")
    assert not Path("store").exists()


def test_the_newest_event_is_read_from_the_footer(place):
    assert newest_event(str(drop("timed", at(12)))) == START + 12 * 86_400
    assert newest_event(str(drop("untimed", interactions().drop_columns("timestamp")))) is None
    nested = at(12).add_column(0, "context", pa.array([{"timestamp": 7}] * 200))
    assert newest_event(str(drop("nested", nested))) == START + 12 * 86_400
    assert newest_event(str(drop("nested-alone", nested.drop_columns("timestamp")))) is None
    times = at(12).set_column(2, "timestamp", at(12)["timestamp"].cast(pa.timestamp("s")))
    assert newest_event(str(drop("typed", times))) == START + 12 * 86_400


def test_a_missing_watched_directory_is_one_clear_line(place):
    with pytest.raises(DigerError, match="elsewhere: does not exist"):
        scan(ArrivalConfig(watch="elsewhere"))


@pytest.mark.slow
def test_a_watched_prefix_on_s3(s3_bucket, tmp_path, monkeypatch):
    import s3fs

    monkeypatch.chdir(tmp_path)
    fs, local = s3fs.S3FileSystem(), drop("monday", at(10))
    target = f"{s3_bucket.removeprefix('s3://')}/incoming/monday"
    for name in ("interactions.parquet", "items.parquet"):
        fs.put_file(str(local / name), f"{target}/{name}")
    store, config = Store(f"{s3_bucket}/store"), ArrivalConfig(watch=f"{s3_bucket}/incoming")
    half = look(store, config, lambda key: False)
    assert half.launch is None
    assert "monday: not complete yet" in half.said[0]
    fs.pipe_file(f"{target}/_SUCCESS", b"done")
    found = look(store, config, lambda key: False)
    assert found.launch.newest == START + 10 * 86_400
    assert registered(store)[0].url == f"{s3_bucket}/incoming/monday"
    assert look(store, config, lambda key: False) == found


def _look(folder: Path) -> str:
    import os

    os.chdir(folder)
    found = look(Store("store"), CONFIG, lambda key: False)
    assert found.launch is not None
    return found.launch.key


def test_two_sensors_at_once_agree_on_one_registration_of_equal_bytes_under_two_names(place):
    for name in ("left", "right"):
        drop(name)
    with at_once(__name__).Pool(2) as pool:
        found = pool.map(_look, [place, place])
    (entry,) = registered(Store("store"))
    assert set(found) == {entry.key}


def test_bytes_that_were_registered_by_hand_keep_that_name(place):
    from orchestration.engine.registry import register

    by_hand = register(Store("store"), str(write(Path("elsewhere"), interactions(), items())))
    drop("monday")
    assert _look(place) == by_hand.key
    assert registered(Store("store")) == [by_hand]


def test_a_place_whose_bytes_another_watcher_has_just_claimed_takes_that_name(place):
    left, _ = drop("left"), drop("right")
    (Path("incoming") / "left" / "_SUCCESS").unlink()  # this watcher sees the copy only
    Store("store").create_pointer(CONTENTS, describe(str(left)).content_hash, {"url": "incoming/left"})
    assert _look(place).startswith("left-")
    assert [entry.url for entry in registered(Store("store"))] == ["incoming/left"]


# The schedule


def test_the_schedule_asks_for_the_newest_registered_snapshot_once_whatever_the_cron_says(place):
    from orchestration.engine.registry import register
    from orchestration.on_dagster.sensors import automation

    dagster = Dagster(dg.DagsterInstance.local_temp(str(place)))
    register(Store("store"), str(write(Path("by-hand"), at(10), items())))
    for cron in ("0 3 * * *", "*/5 * * * *"):
        _, (schedule,) = automation(ArrivalConfig(cron=cron))
        assert schedule.cron_schedule == cron
        found = schedule(dg.build_schedule_context(instance=dagster.instance))
        if cron == "0 3 * * *":
            assert found.partition_key.startswith("by-hand-")
            dagster.ran(found)
        else:
            assert isinstance(found, dg.SkipReason)


def test_nothing_starts_by_itself_unless_params_say_so():
    from orchestration.on_dagster.sensors import automation

    sensors, schedules = automation(build_params({}).arrival)
    assert schedules == []
    assert {sensor.default_status for sensor in sensors} == {dg.DefaultSensorStatus.STOPPED}
    sensors, schedules = automation(ArrivalConfig(enabled=True, cron="0 3 * * *"))
    assert {sensor.default_status for sensor in sensors} == {dg.DefaultSensorStatus.RUNNING}
    assert schedules[0].default_status == dg.DefaultScheduleStatus.RUNNING


def test_a_tick_imports_no_torch(place):
    drop("monday")
    code = """import sys, dagster as dg
from orchestration.definitions import defs, sensors
with dg.DagsterInstance.ephemeral() as instance:
    result = sensors[0](dg.build_sensor_context(instance=instance, definitions=defs))
assert result.run_requests
sys.exit("torch" in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, done.stderr


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}


def test_freshness_stands_on_the_release_alone(place):
    configure(freshness_hours=48)
    code = """from orchestration.definitions import defs
import dagster as dg
print([key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys() if defs.resolve_asset_graph().get(key).freshness_policy])"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=_environment())
    assert done.stdout.strip() == "['release']", done.stderr


# The decision, the release, and failures


def test_a_first_snapshot_is_retrained_and_the_same_decision_has_one_key(dagster):
    drop("first", *shop(FIRST, 60))
    key = keys(dagster.tick())[0]
    requests = [dagster.after(dagster.run("arrival", key)) for _ in range(2)]
    assert requests[0].job_name == "retrain"
    assert requests[0].partition_key == key
    assert requests[0].run_key == requests[1].run_key
    assert requests[0].tags["diger/decided_by"] in requests[0].run_key


@pytest.fixture
def released(place: Path) -> RetrainingWorld:
    """A champion from the first snapshot of the shop."""
    world = RetrainingWorld(place)
    first = world.first()
    world.release(world.run(first))
    return world


def test_the_diff_decides_between_retraining_cold_start_and_nothing_and_refuses_other_meanings(released, dagster, monkeypatch):
    events, catalogue = shop(FIRST, 60)
    cases = {
        "more": shop(SECOND, 70, 9, RENAMED),
        "one-item": shop([*FIRST, 60], 60),
        "same": (events.append_column("note", pa.nulls(len(events))), catalogue),  # the very same bytes would be the first snapshot itself
        "remapped": shop(FIRST, 60, ids=lambda i: (i * 7 + 1) % 60),
    }
    sent: list[Trouble] = []
    monkeypatch.setattr("orchestration.on_dagster.sensors.notify", lambda trouble, *_: sent.append(trouble))
    found = {name: dagster.after(dagster.run("arrival", released.snapshot(name, *tables).key)) for name, tables in cases.items()}
    assert found["more"].job_name == "retrain"
    assert found["one-item"].job_name == "assign_new_items"
    assert "nothing to do: no item is new" in found["same"].skip_message
    assert "refused: catalogue_diff: " in found["remapped"].skip_message
    assert [(told.snapshot.rsplit("-", 1)[0], told.stage) for told in sent] == [("remapped", "catalogue_diff")]
    assert "catalogue_diff.allow_remap=true" in sent[0].message
    assert "31.2% more events" in found["more"].tags["diger/reason"]


@pytest.mark.parametrize(
    ("decision", "warnings", "job", "tags"),
    [
        ("retrain", 1, "retrain", {"diger/reason": "coverage fell", "diger/drift": "drift: coverage fell"}),
        ("cold_start", 0, "assign_new_items", {"diger/reason": "coverage fell"}),
        ("nothing", 1, None, "s: nothing to do: coverage fell; drift: coverage fell"),
        ("nothing", 0, None, "s: nothing to do: coverage fell"),
    ],
)
def test_a_run_that_the_sensor_asks_for_says_why_and_passed_limits_are_logged(monkeypatch, decision, warnings, job, tags):
    facts = {"decision": decision, "reason": "coverage fell", "refused": False, "drift_warnings": warnings, "drift": "coverage fell"}
    diff = SimpleNamespace(facts=facts, hash="d" * 64, stage="catalogue_diff")
    monkeypatch.setattr("orchestration.on_dagster.sensors.made", lambda *_: diff)
    said: list[str] = []
    run = dg.DagsterRun(job_name="arrival", run_id=str(uuid.uuid4()), tags={"dagster/partition": "s"})
    log = SimpleNamespace(info=lambda _: None, warning=said.append)
    asked = next_step(SimpleNamespace(dagster_run=run, log=log))
    assert said == (["s: drift: coverage fell"] if warnings else [])
    if job is None:
        assert asked.skip_message == tags
    else:
        assert asked.job_name == job
        assert tags.items() <= asked.tags.items()
        assert ("diger/drift" in asked.tags) == bool(warnings)


def test_a_catalogue_that_lost_30_percent_of_its_items_is_refused_and_the_failure_names_it(dagster, place):
    project = load_params(Path(__file__).resolve().parents[3] / "params.yaml")
    volume = {"min_volume_ratio": project.validated_items.min_volume_ratio}
    Path("params.yaml").write_text(yaml.safe_dump(SMALL | {"validated_items": volume}))
    world = RetrainingWorld(place)
    assert dagster.run("arrival", world.first().key).success
    (place / "store" / "champion").mkdir()
    (place / "store" / "champion" / "000001.json").touch()  # as if something had been released: then snapshots have a measure
    fewer = world.snapshot("fewer", *shop(range(42), 60))
    result = dagster.run("arrival", fewer.key)
    assert not result.success
    told = dagster.told(result)
    assert (told.job, told.snapshot, told.stage) == ("arrival", fewer.key, "validated_items")
    assert "42 rows of items.parquet, 0.70 times the 60 of snapshot first-" in told.message


def test_an_error_inside_a_stage_is_told_by_its_own_line(dagster, place):
    entry = RetrainingWorld(place).first()
    write(place / "first", *shop(range(50), 60))  # other bytes than were registered
    told = dagster.told(dagster.run("arrival", entry.key))
    assert told.stage.startswith("raw_")
    assert "its bytes changed since the snapshot was registered: register the directory again" in told.message


@dataclass
class Judged:
    """A finished run of retrain whose gate left a verdict."""

    instance: Any
    dagster_run: dg.DagsterRun
    log: Any = logging.getLogger("test")


RULE = {"name": "coverage", "passed": False, "observed": 0.01, "wanted": 0.05, "message": "1.0% of the catalogue"}


@pytest.mark.parametrize(("verdict", "release", "launched"), [("accept", True, True), ("refuse", True, False), ("accept", False, False)])
def test_release_is_launched_for_an_accepting_verdict_alone(place, monkeypatch, verdict, release, launched):
    from orchestration.on_dagster import sensors

    configure(release=release)
    store, told = Store("store"), []
    monkeypatch.setattr(sensors, "notify", lambda trouble, *_: told.append(trouble))
    with store.writer("gate") as out:
        out.json("verdict.json", {"verdict": verdict, "candidate": "c" * 64, "champion": None, "rules": [RULE], "metrics": {"users": 9}})
        judged = store.publish(out)
    monkeypatch.setattr(sensors, "_versions", lambda *_: {"gate": judged.hash})
    run = dg.DagsterRun(job_name="retrain", run_id=str(uuid.uuid4()), tags={"dagster/partition": "snap-00000000"})
    found = sensors.next_step(Judged(None, run))
    assert isinstance(found, dg.RunRequest) is launched
    assert [(trouble.stage, RULE["message"] in trouble.message) for trouble in told] == ([("gate", True)] if verdict == "refuse" else [])
    assert isinstance(sensors.next_step(Judged(None, run.with_tags({**run.tags, "diger/launched_by": "diger run"}))), dg.SkipReason)
    if launched:
        assert (found.job_name, found.run_key) == ("gate_and_release", f"gate_and_release:snap-00000000:{judged.hash}")


@pytest.mark.parametrize(("job", "stage"), [("gate_and_release", "release"), ("assign_new_items", "cold_start")])
def test_recommendations_follow_a_release_or_a_cold_start_where_params_ask_for_them(place, monkeypatch, job, stage):
    from orchestration.on_dagster import sensors

    with Store("store").writer(stage) as out:
        out.json("made.json", {})
        artefact = Store("store").publish(out)
    monkeypatch.setattr(sensors, "_versions", lambda *_: {stage: artefact.hash})
    given = {"resources": {"pipeline": {"config": {"store": "store", "overrides": ["arrival.recommend=true"]}}}}
    run = dg.DagsterRun(job_name=job, run_id=str(uuid.uuid4()), tags={"dagster/partition": "snap-00000000"}, run_config=given)
    found = sensors.next_step(Judged(None, run))
    assert (found.job_name, found.run_key) == ("recommend", f"recommend:snap-00000000:{artefact.hash}")
    assert found.run_config == given  # the parameters of the run that asked for it
    assert isinstance(sensors.next_step(Judged(None, run.with_tags({}))), dg.SkipReason)
    configure()
    assert isinstance(sensors.next_step(Judged(None, dg.DagsterRun(job_name=job, run_id="r", tags=run.tags))), dg.SkipReason)


# Notifications


class _Listener(http.server.BaseHTTPRequestHandler):
    received: list[dict[str, Any]] = []
    answer = 200

    def do_POST(self) -> None:
        self.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(type(self).answer)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Listener]]:
    _Listener.received, _Listener.answer = [], 200
    server = http.server.HTTPServer(("127.0.0.1", 0), _Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("DIGER_WEBHOOK", f"http://127.0.0.1:{server.server_port}/hook?token=geheim")
    yield _Listener
    server.shutdown()
    server.server_close()


def test_every_channel_gets_the_line_with_job_snapshot_stage_and_remedy(listener, tmp_path):
    lines: list[str] = []
    argv = (sys.executable, "-c", f"import sys; open({str(tmp_path / 'told')!r}, 'w').write(sys.stdin.read())")
    assert notify(TROUBLE, NotifyConfig(webhook="DIGER_WEBHOOK", command=argv), lines.append) == []
    wanted = "retrain failed for snapshot snap-1 at joint_model: the loss is not finite: lower training.learning_rate (run run-1)"
    assert lines == [wanted]
    assert (tmp_path / "told").read_text().strip() == wanted
    assert [entry["text"] for entry in listener.received] == [wanted]
    assert listener.received[0]["stage"] == "joint_model"


def test_a_broken_channel_is_told_without_its_address_and_keeps_no_other_from_being_tried(listener, tmp_path, monkeypatch):
    listener.answer = 500
    lines: list[str] = []
    argv = (sys.executable, "-c", "import time; time.sleep(30)")
    failed = notify(TROUBLE, NotifyConfig(webhook="DIGER_WEBHOOK", command=argv, timeout_seconds=0.5), lines.append)
    assert failed == ["webhook: the server answered 500", "command: no answer in time"]
    monkeypatch.setenv("DIGER_WEBHOOK", "http://127.0.0.1:9/hook?token=geheim")
    failed = notify(TROUBLE, NotifyConfig(webhook="DIGER_WEBHOOK", command=("/no/such/program",)), lines.append)
    assert failed == ["webhook: URLError", "command: FileNotFoundError"]
    monkeypatch.delenv("DIGER_WEBHOOK")
    assert "environment variable DIGER_WEBHOOK holds no http(s) URL" in notify(TROUBLE, NotifyConfig(webhook="DIGER_WEBHOOK"), lines.append)[0]
    assert "geheim" not in "".join(lines)


def test_a_url_in_params_and_a_cron_that_is_none_are_refused():
    for section, told in (({"notify": {"webhook": "https://hook/token"}}, "name of an environment variable"), ({"cron": "daily"}, "five fields")):
        with pytest.raises(DigerError, match=told):
            build_params({"arrival": section})


def test_the_command_tells_what_would_be_processed_and_registers_nothing(place, monkeypatch, capsys):
    from orchestration.cli import main

    monkeypatch.setenv("DAGSTER_HOME", str(place / "home"))
    drop("monday")
    drop("tuesday", marker=None)
    main(["arrival"])
    told = capsys.readouterr().out
    assert "tuesday: not complete yet" in told
    assert "next: monday-" in told
    assert not (place / "store").exists()


def test_a_second_training_waits_for_the_one_slot_of_the_pool(tmp_path, monkeypatch):
    from orchestration.on_dagster.instance import dagster_home

    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    dagster_home()
    with dg.DagsterInstance.get() as instance:
        storage = instance.event_log_storage
        storage.initialize_concurrency_limit_to_default("training")
        first, second = (storage.claim_concurrency_slot("training", run, "joint_model") for run in ("run-1", "run-2"))
    assert first.is_claimed
    assert not second.is_claimed


def test_a_run_whose_server_is_gone_is_failed_and_one_whose_server_answers_goes_on(tmp_path, monkeypatch):
    from orchestration.on_dagster.instance import dagster_home
    from orchestration.on_dagster.lost_runs import fail_lost_runs

    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    dagster_home()
    with socket.socket(socket.AF_UNIX) as server, dg.DagsterInstance.get() as instance:
        server.bind(str(tmp_path / "alive"))
        server.listen()
        servers = {name: {"host": "localhost", "socket": str(tmp_path / name)} for name in ("alive", "gone")}
        for name, at in (servers | {"elsewhere": {"host": "another-machine.invalid", "port": 4000}}).items():
            tags = {".dagster/grpc_info": json.dumps(at)}
            instance.add_run(dg.DagsterRun(job_name=name, run_id=str(uuid.uuid4()), tags=tags, status=dg.DagsterRunStatus.STARTED))
        assert [lost.split()[0] for lost in fail_lost_runs()] == ["gone"]
        statuses = {run.job_name: run.status for run in instance.get_runs()}
    assert statuses == {"alive": dg.DagsterRunStatus.STARTED, "gone": dg.DagsterRunStatus.FAILURE, "elsewhere": dg.DagsterRunStatus.STARTED}
