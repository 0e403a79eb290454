"""Leases: what removes never meets what computes or releases, and a dead owner frees what it held, also while others wait."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest

from diger_core.errors import DigerError
from diger_core.store import lease
from diger_core.store.files import Root
from diger_core.store.owner import ended, identity, near

HOLD = """
import sys, time
from diger_core.store import lease
from diger_core.store.files import Root
with lease.hold(Root(sys.argv[1]), sys.argv[2], "the other one"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["disk", "objects"])
def root(request, tmp_path) -> Root:
    return Root(tmp_path / "store") if request.param == "disk" else Root(f"memory://lease-{uuid.uuid4().hex}")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lease, "POLL", 0.05)


def other(place: Path, kind: str) -> subprocess.Popen[str]:
    """Another process, once it holds a lease."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(place), kind], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def elsewhere(root: Root, kind: lease.Kind, renewed: int = 0, name: str = "") -> str:
    """A lease of a process on another machine."""
    owner = {**identity(), "host": "elsewhere", "boot": "another"}
    name = name or f"{kind}-{uuid.uuid4().hex}"
    value = {"kind": kind, "what": "work elsewhere", "owner": owner, "who": "ann", "since": "2026-01-01T00:00:00+00:00", "renewed": renewed}
    data = json.dumps(value).encode()
    if renewed:
        root.replace(data, "leases", f"{name}.json")
    else:
        root.create(data, "leases", f"{name}.json")
    return name


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("stage", "stage", True),
        ("stage", "champion", True),
        ("champion", "stage", True),
        ("champion", "champion", False),
        *((one, two, False) for one in ("gc", "forget") for two in ("stage", "champion", "gc", "forget")),
        *((one, two, False) for one in ("stage", "champion") for two in ("gc", "forget")),
    ],
)
def test_who_may_work_beside_whom(root, first, second, together):
    with lease.hold(root, first, "the first"):
        if together:
            with lease.hold(root, second, "the second", wait=0):
                assert len(lease.at_work(root)) == 2
        else:
            told = r"the second cannot start beside the first by .* \(process \d+\), for 0:0\d min: run it again"
            with pytest.raises(DigerError, match=told), lease.hold(root, second, "the second", wait=0):
                pass
    assert lease.at_work(root) == []
    with lease.hold(root, second, "the second", wait=0):
        pass


def test_a_waiting_one_is_told_for_whom_and_goes_on_when_that_is_done(root):
    said: list[str] = []
    started = threading.Event()

    def second() -> None:
        with lease.hold(root, "stage", "the second", tell=lambda text: (said.append(text), started.set())):
            pass

    thread = threading.Thread(target=second)
    with lease.hold(root, "gc", "the first"):
        thread.start()
        assert started.wait(10)
        assert thread.is_alive()
    thread.join(10)
    assert not thread.is_alive()
    assert said[0].startswith("the second waits for the first by ")


def test_one_that_is_killed_frees_its_lease_while_another_waits(tmp_path):
    process = other(tmp_path / "store", "forget")
    waiting = threading.Event()
    held = threading.Event()

    def wait() -> None:
        with lease.hold(Root(tmp_path / "store"), "champion", "the one that waits", tell=lambda text: waiting.set()):
            held.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(10)
    process.kill()  # and not yet waited for: a zombie holds nothing
    assert held.wait(10)
    thread.join(10)
    process.wait(10)
    assert lease.at_work(Root(tmp_path / "store")) == []


def test_one_that_is_stopped_here_is_alive_however_long(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "DEAD_AFTER", 0.2)
    process = other(tmp_path / "store", "stage")
    process.send_signal(19)
    try:
        with pytest.raises(DigerError, match="cannot start beside the other one"), lease.hold(Root(tmp_path / "store"), "gc", "gc", wait=1.0):
            pass
    finally:
        process.kill()
        process.wait(10)


def test_one_on_another_machine_is_dead_when_it_renews_nothing_whatever_the_clocks_say(root, monkeypatch):
    monkeypatch.setattr(lease, "DEAD_AFTER", 0.5)
    elsewhere(root, "gc")
    before = time.monotonic()
    with lease.hold(root, "stage", "here", wait=0):  # it gets the time to show that it lives, then is taken over
        assert time.monotonic() - before >= 0.5
    assert lease.at_work(root) == []


def test_one_on_another_machine_that_renews_is_alive(root, monkeypatch):
    monkeypatch.setattr(lease, "DEAD_AFTER", 1.0)
    name, over = elsewhere(root, "gc"), threading.Event()

    def renew() -> None:
        count = 0
        while not over.wait(0.2):
            count += 1
            elsewhere(root, "gc", count, name)

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with (
            pytest.raises(DigerError, match="here cannot start beside work elsewhere by ann on elsewhere"),
            lease.hold(root, "stage", "here", wait=0),
        ):
            pass
    finally:
        over.set()
        thread.join()


def test_a_lease_that_others_took_over_is_no_lease_any_more(root):
    with lease.hold(root, "stage", "the slow one") as held:
        held.confirm()
        root.remove("leases", f"{held.lease.name}.json")
        with pytest.raises(DigerError, match="the slow one: .* took it for dead"):
            held.confirm()


def test_a_lease_renews_itself_and_does_not_come_back_once_taken_over(root, monkeypatch):
    monkeypatch.setattr(lease, "RENEWED_EVERY", 0.05)
    with lease.hold(root, "stage", "work") as held:
        deadline = time.monotonic() + 10
        while lease.at_work(root)[0].renewed < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert lease.at_work(root)[0].renewed >= 2
        root.remove("leases", f"{held.lease.name}.json")
        time.sleep(0.3)
        assert lease.at_work(root) == []


def test_a_lease_cut_short_by_a_power_loss_holds_nothing(root):
    root.create(b"", "leases", "gc-0.json")
    root.create(b'{"kind": "gc"}', "leases", "gc-1.json")
    rest = b'"what": "gc", "who": "ann", "renewed": 0'
    for number, more in enumerate(
        (b'"owner": null, "since": "2026-01-01"', b'"owner": {}, "since": "2026-01-01"', b'"owner": {"pid": 1}, "since": ""')
    ):
        root.create(b'{"kind": "gc", ' + more + b", " + rest + b"}", "leases", f"gc-{number + 2}.json")
    with lease.hold(root, "stage", "work", wait=0) as held:
        assert [each.name for each in lease.at_work(root)] == [held.lease.name]
        assert root.list("leases") == [f"{held.lease.name}.json"], "what was cut short is removed"


@pytest.mark.slow
def test_of_many_that_come_together_one_at_a_time_works(root):
    inside, most, done = [0], [0], []

    def work(number: int) -> None:
        with lease.hold(root, "champion", f"number {number}"):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.02)
            inside[0] -= 1
        done.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(done) == list(range(6))
    assert most == [1]


def test_an_owner_is_gone_only_where_that_is_certain():
    mine = identity()
    assert near(mine)
    assert not ended(mine)
    for changed in ({"host": "elsewhere"}, {"namespace": "pid:[1]"}, {"boot": "before"}):
        assert not near({**mine, **changed})
    assert not ended({**mine, "host": "elsewhere", "pid": 1})
    assert not ended({**mine, "namespace": "pid:[1]", "pid": 1})
    assert ended({**mine, "started": "1"}), "its number was given to another process"
