"""The API: answers name what gave them, limits refuse, a release takes over without a mix, and nothing tells who asked."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import json
import logging
import re
import time

import httpx
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from orchestration.cli import main
from orchestration.params.rules import RulesConfig
from orchestration.serving.http.app import create_app
from orchestration.serving.http.logs import JsonLines
from tests.conftest import REPOSITORY
from tests.support.release_world import item_name
from tests.support.serving_world import LIMITS, ServingWorld, histories, same


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return ServingWorld(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def made(world):
    return world.candidate(seed=1)


@pytest.fixture(scope="module")
def follower(world, made):
    world.promote(made)
    follower = world.follower()
    follower.look()
    return follower


@pytest.fixture(scope="module")
def client(follower):
    with TestClient(create_app(follower, dataclasses.replace(LIMITS, max_body_bytes=2000)), base_url="http://localhost") as client:
        yield client


def test_a_users_list_is_the_batchs_and_names_bundle_and_assignment(world, made, follower, client, capsys):
    wanted = world.batch(made)
    answer = client.post("/recommend", json={"user": 3}).json()
    assert same(answer["items"], wanted[3])
    assert (answer["events"], answer["known_user"], answer["seen"]) == (len(histories(follower.live.ranker)[3]), True, "keep")
    named = answer["champion"]
    assert named["bundle"] == made["bundle"].hash
    assert (named["bundle_short"], named["assignment_short"]) == (named["bundle"][:12], named["assignment_hash"][:12])
    assert named["assignment_hash"] == made["bundle"].facts["assignment_hash"]
    with pytest.raises(SystemExit):  # nothing has records in this world
        main(["why", named["bundle_short"], "--store", world.store.url])
    assert "served as champion #1" in capsys.readouterr().out


def test_a_history_in_the_request_and_items_like_an_item(client, follower):
    answer = client.post("/recommend", json={"history": [item_name(1), "nowhere"], "k": 4, "seen": "remove"}).json()
    assert (len(answer["items"]), answer["events"], answer["unknown_items"], answer["seen"]) == (4, 1, 1, "remove")
    assert item_name(1) not in [item["item_id"] for item in answer["items"]]
    like = client.get("/similar", params={"item": item_name(1), "k": 3}).json()
    assert (like["item_id"], like["title"], len(like["neighbours"])) == (item_name(1), "thing 1", 3)
    assert like["champion"]["bundle"] == answer["champion"]["bundle"]
    missing = client.get("/similar", params={"item": "nowhere"})
    assert missing.status_code == 404
    assert missing.json()["detail"] == "item 'nowhere' is not in the catalogue that serves: check the spelling; /version names that catalogue"


def test_health_version_and_schema(client, made):
    health = client.get("/health").json()
    assert (health["status"], health["problem"], health["champion"]["entry"]) == ("ok", None, 1)
    version = client.get("/version").json()
    assert version["item_ids"] == "string"
    assert version["sources"]["sequences"] == made["sequences"].hash
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/recommend", "/similar", "/health", "/version", "/metrics"}
    assert {"413", "422", "429", "503", "504"} <= set(paths["/recommend"]["post"]["responses"])


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({}, 422, "give either user or history"),
        ({"user": 1, "history": []}, 422, "give either user or history"),
        ({"user": 1, "kk": 2}, 422, "Extra inputs are not permitted"),
        ({"user": True}, 422, "valid integer"),
        ({"user": "anna"}, 422, "not of the catalogue's type int64"),
        ({"user": 1, "k": 1001}, 422, "less than or equal to 1000"),
        ({"history": ["x" * 3000]}, 413, "more than 2000 bytes (serve.max_body_bytes)"),
        ({"user": 2**70}, 422, "64 bits"),
        ({"history": [7]}, 422, "a number was sent, the catalogue's ids are texts: send it in quotes"),
    ],
)
def test_wrong_requests_are_told_what_is_wrong(client, body, status, told):
    answer = client.post("/recommend", json=body)
    assert answer.status_code == status
    assert told in answer.text


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_is_not_called_json_is_told_the_header(client, kind):
    """So that a form or a script of another site cannot ask without the browser asking first (CORS)."""
    answer = client.post("/recommend", content=b'{"user": 3}', headers={} if kind is None else {"Content-Type": kind})
    assert answer.status_code == 422
    assert "send the header Content-Type: application/json" in answer.json()["detail"][0]["what"]
    whole = client.post("/recommend", content=b"[3]", headers={"Content-Type": "application/json; charset=utf-8"})
    assert "valid dictionary" in whole.json()["detail"][0]["what"], "the body itself is wrong"


def test_every_refusal_stands_on_the_page(client):
    assert [client.get(path).status_code for path in ("/nothing", "/recommend")] == [404, 405]
    limits = (REPOSITORY / "docs" / "serving.md").read_text(encoding="utf-8").split("## Limits")[1].split("## ")[0]
    assert {400, 404, 405, 408, 413, 422, 429, 500, 503, 504} == {int(found) for found in re.findall(r"^\| (\d{3}) \|", limits, re.MULTILINE)}


def test_an_item_of_another_type_is_no_missing_item(world, follower):
    other = world.follower()
    other._live = world.open(follower.live.entry)
    other._live.similar = dataclasses.replace(other._live.similar, item_ids=pa.chunked_array([range(40)]))
    with TestClient(create_app(other, LIMITS), base_url="http://localhost") as client:
        answer = client.get("/similar", params={"item": "anna"})
        assert (answer.status_code, "'anna' is no integer" in answer.json()["detail"]) == (422, True)
        assert client.get("/similar", params={"item": "99"}).status_code == 404


def test_an_answer_repeats_each_rule_with_its_items(world, made, follower):
    other = world.follower()
    other._live = world.open(follower.live.entry, RulesConfig(at_most=("1 per prefix 1",)))
    with TestClient(create_app(other, LIMITS), base_url="http://localhost") as client:
        answer = client.post("/recommend", json={"user": 3}).json()
        assert answer["rules"] == client.get("/version").json()["rules"] == [{"rule": "at most 1 per prefix 1", "items": 40}]


def test_a_body_of_untold_length_is_limited_too(client):
    parts = iter([b'{"history": ["', b"x" * 3000, b'"]}'])
    assert client.post("/recommend", content=parts).status_code == 413


def test_a_name_that_somebody_made_up_is_refused(client):
    refused = client.get("/health", headers={"Host": "evil.example"})
    assert refused.status_code == 400
    assert "--allow-host NAME" in refused.json()["detail"]


def test_metrics_count_and_neither_they_nor_the_logs_say_who_asked(client, made):
    heard = io.StringIO()
    handler = logging.StreamHandler(heard)
    handler.setFormatter(JsonLines())
    log = logging.getLogger("diger.serve")
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        client.post("/recommend", json={"user": "5317", "k": 7})
        client.post("/recommend", json={"user": "secret-person"})
        client.get("/similar", params={"item": item_name(33)})
        client.get("/who-is/secret-person")
    finally:
        log.removeHandler(handler)
    lines = [json.loads(line) for line in heard.getvalue().splitlines()]
    assert [(line["path"], line["status"]) for line in lines] == [("/recommend", 200), ("/recommend", 422), ("/similar", 200), ("other", 404)]
    text = client.get("/metrics").text
    assert 'diger_requests_total{path="/recommend",status="200"}' in text
    assert f'diger_champion_info{{assignment="{made["bundle"].facts["assignment_hash"]}",bundle="{made["bundle"].hash}"}} 1.0' in text
    assert 'diger_listed_items_total{source="mixture"}' in text
    for told in (heard.getvalue(), text):
        # as a word of its own: a measured time may hold the same four digits
        assert not [who for who in ("5317", "secret-person", item_name(33)) if re.search(rf"(?<![\w.]){re.escape(who)}(?!\w)", told)]


# Load: many at once


@contextlib.asynccontextmanager
async def asked(app):
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        yield client


def post(client, user):
    return client.post("/recommend", json={"user": user})


class Slow:
    """A champion whose passes take a while; it remembers their sizes."""

    def __init__(self, live, seconds):
        self._live, self._seconds, self.sizes = live, seconds, []

    def __getattr__(self, name):
        return getattr(self._live, name)

    def answers(self, queries):
        self.sizes.append(len(queries))
        time.sleep(self._seconds)
        return self._live.answers(queries)


def test_requests_gather_while_the_batch_before_is_answered(world, follower):
    slow = Slow(follower.live, 0.1)
    other = world.follower()
    other._live = slow

    async def scene():
        async with asked(create_app(other, dataclasses.replace(LIMITS, max_batch=8))) as client:
            first = asyncio.create_task(post(client, 0))
            await asyncio.sleep(0.05)
            return await asyncio.gather(first, *(post(client, user) for user in range(1, 12)))

    answers = asyncio.run(scene())
    assert slow.sizes == [1, 8, 3]
    assert [len(answer.json()["items"]) for answer in answers] == [10] * 12


def test_too_many_at_once_wait_for_nothing_and_late_answers_end_with_504(world, follower):
    other = world.follower()
    other._live = Slow(follower.live, 0.3)

    async def scene():
        async with asked(create_app(other, dataclasses.replace(LIMITS, max_waiting=2, timeout_seconds=0.1))) as client:
            return await asyncio.gather(*(post(client, user) for user in range(3)))

    statuses = [answer.status_code for answer in asyncio.run(scene())]
    assert statuses == [504, 504, 429]


def test_an_unexpected_error_is_500_for_its_batch_and_the_next_one_is_answered(world, follower):
    other = world.follower()

    class Fails(Slow):
        def answers(self, queries):
            if not self.sizes:
                self.sizes.append(0)
                raise RuntimeError("user 3 broke it")
            return super().answers(queries)

    other._live = Fails(follower.live, 0.0)

    async def scene():
        async with asked(create_app(other, LIMITS)) as client:
            return await post(client, 3), await post(client, 3)

    broken, whole = asyncio.run(scene())
    assert (broken.status_code, whole.status_code) == (500, 200)
    assert "user 3" not in broken.text


def test_before_anything_was_released_health_and_lists_are_503(tmp_path):
    with TestClient(create_app(ServingWorld(tmp_path / "store").follower(), LIMITS), base_url="http://localhost") as client:
        assert client.get("/health").json() == {"status": "starting", "problem": None, "champion": None}
        assert client.get("/health").status_code == 503
        assert client.post("/recommend", json={"user": 1}).status_code == 503
        assert client.get("/similar", params={"item": "a"}).status_code == 503


def test_releases_under_load_take_over_between_two_requests_and_never_mix(tmp_path):
    world = ServingWorld(tmp_path / "store")
    both = [world.candidate(seed=seed) for seed in (1, 2)]
    wanted = {made["bundle"].hash: world.batch(made) for made in both}
    world.promote(both[0])
    follower = world.follower()
    follower.look()

    async def scene():
        answers, over = [], False
        async with asked(create_app(follower, dataclasses.replace(LIMITS, max_batch=4))) as client:

            async def reader(first):
                user = first
                while not over or user < first + 5:
                    answers.append((user % 60, (await post(client, user % 60)).json()))
                    user += 1

            readers = [asyncio.create_task(reader(first)) for first in (0, 20, 40)]
            for made in (both[1], both[0], both[1]):
                await asyncio.to_thread(world.promote, made)
                assert await asyncio.to_thread(follower.look)
            over = True
            await asyncio.gather(*readers)
        return answers

    answers = asyncio.run(scene())
    assert {answer["champion"]["bundle"] for _, answer in answers} == set(wanted)
    for user, answer in answers:
        listed = [item["item_id"] for item in answer["items"]]
        assert listed == [item["item_id"] for item in wanted[answer["champion"]["bundle"]][user]], "bundle and list belong together"
