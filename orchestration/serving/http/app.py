"""The API: `/recommend`, `/similar`, `/health`, `/version`, `/metrics`, and its schema at `/openapi.json` (docs/serving.md)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Annotated, Any

import pyarrow as pa
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.middleware import Middleware

from diger_core.errors import DigerError
from orchestration.params.serve import ServeConfig
from orchestration.serving.given_ids import request_ids
from orchestration.serving.http import schemas
from orchestration.serving.http.batches import Batches, Busy, NoChampion
from orchestration.serving.http.hosts import Hosts
from orchestration.serving.http.metrics import Metrics
from orchestration.serving.http.middleware import Limited, Named, Observed
from orchestration.serving.online import query as online
from orchestration.serving.online.follow import Follower
from orchestration.serving.online.live import LiveChampion
from orchestration.serving.similar import Kind

SHORT = 12
LOCAL = Hosts()
REFUSALS: dict[int | str, dict[str, Any]] = {
    408: {"model": schemas.Refusal, "description": "The body took too long."},
    413: {"model": schemas.Refusal, "description": "The body is larger than serve.max_body_bytes."},
    429: {"model": schemas.Refusal, "description": "As many requests wait as may (serve.max_waiting): ask again in a second."},
    503: {"model": schemas.Refusal, "description": "Nothing serves yet."},
    504: {"model": schemas.Refusal, "description": "No answer within serve.timeout_seconds."},
}


def create_app(follower: Follower, config: ServeConfig, hosts: Hosts = LOCAL) -> FastAPI:
    """The application. `hosts`: the names under which it may be asked, so that no page of another site reaches it by a name that it made up."""
    metrics = Metrics(follower)
    batches = Batches(lambda: follower.live, config, metrics.passed)
    metrics.waiting.set_function(lambda: batches.waiting)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(batches.run())
        follower.start()
        yield
        running.cancel()
        await asyncio.to_thread(follower.stop)
        batches.close()

    around = [Middleware(Observed, metrics=metrics), Middleware(Named, hosts=hosts), Middleware(Limited, config=config)]
    told = "Lists by the present champion, as `diger recommend` writes them. Every answer names the bundle and the assignment that gave it."
    app = FastAPI(title="diger", version=version("diger"), description=told, lifespan=lifespan, middleware=around, docs_url=None, redoc_url=None)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        """What is wrong and where, without the values that were sent."""
        faults = [{"where": [str(part) for part in fault["loc"]], "what": fault["msg"]} for fault in error.errors()]
        if request.method == "POST" and not _says_json(request):
            faults = [{"where": ["header", "Content-Type"], "what": "the body was not read as JSON: send the header Content-Type: application/json"}]
        return JSONResponse({"detail": faults}, 422)

    @app.post("/recommend", responses=REFUSALS)
    async def recommend(asked: schemas.RecommendRequest) -> schemas.RecommendAnswer:
        history = None if asked.history is None else tuple(asked.history)
        try:
            live, answer = await batches.ask(online.Query(asked.user, history, asked.k, asked.seen))
        except DigerError as error:
            raise HTTPException(422, str(error)) from None
        except NoChampion:
            raise HTTPException(503, _starting(follower), {"Retry-After": "5"}) from None
        except Busy:
            raise HTTPException(429, f"{config.max_waiting} requests wait (serve.max_waiting): ask again", {"Retry-After": "1"}) from None
        except TimeoutError:
            raise HTTPException(504, f"no answer within {config.timeout_seconds:g} s (serve.timeout_seconds)", {"Retry-After": "1"}) from None
        metrics.answered(answer)
        return schemas.RecommendAnswer(
            champion=named(live),
            items=[schemas.Item(**item) for item in answer.items],
            events=answer.events,
            unknown_items=answer.unknown_items,
            known_user=answer.known_user,
            seen="remove" if answer.remove_seen else "keep",
            rules=[schemas.Rule(**rule) for rule in live.rules],
        )

    @app.get("/similar", responses={503: REFUSALS[503], 404: {"model": schemas.Refusal, "description": "The catalogue lacks the item."}})
    def similar(item: str, k: Annotated[int, Query(ge=1, le=1000)] = 10, kind: Kind = "both") -> schemas.SimilarAnswer:
        """Items like an item: what follows it in people's events, what reads like it, or both."""
        live = _live(follower)
        tables = live.similar
        try:
            found, unknown = tables.answers(pa.array(request_ids([item], tables.item_ids.type, "item"), tables.item_ids.type), k, kind)
        except DigerError as error:
            raise HTTPException(422, str(error)) from None
        if unknown is not None:
            raise HTTPException(404, f"item {item[:80]!r} is not in the catalogue that serves: check the spelling; /version names that catalogue")
        (answer,) = found
        neighbours = [schemas.SimilarItem(**each) for each in answer["neighbours"]]
        return schemas.SimilarAnswer(champion=named(live), item_id=answer["item_id"], title=answer["title"], neighbours=neighbours, why=answer["why"])

    @app.get("/health", responses={503: {"model": schemas.Health}})
    def health(response: Response) -> schemas.Health:
        live, problem = follower.live, follower.problem
        if live is None:
            response.status_code = 503
            return schemas.Health(status="starting", problem=problem, champion=None)
        return schemas.Health(status="degraded" if problem else "ok", problem=problem, champion=named(live))

    @app.get("/version")
    def versions() -> schemas.Version:
        live = follower.live
        if live is None:
            return schemas.Version(diger=version("diger"), champion=None, item_ids=None, sources={}, rules=[], seen=None)
        sources = {name: getattr(live.sources, name) for name in ("sequences", "neighbours", "validated_items", "cold_start")}
        return schemas.Version(
            diger=version("diger"),
            champion=named(live),
            item_ids="integer" if live.integer_ids else "string",
            sources=sources,
            rules=[schemas.Rule(**rule) for rule in live.rules],
            seen=live.why_seen,
        )

    @app.get("/metrics", response_class=Response)
    def prometheus() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return app


def named(live: LiveChampion) -> schemas.Champion:
    """The champion as every answer names it."""
    return schemas.Champion(
        entry=live.entry.number,
        bundle=live.bundle,
        bundle_short=live.bundle[:SHORT],
        assignment_hash=live.assignment_hash,
        assignment_short=live.assignment_hash[:SHORT],
    )


def _says_json(request: Request) -> bool:
    """Whether the request's Content-Type is one whose body is read as JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _starting(follower: Follower) -> str:
    return f"nothing serves yet: {follower.problem or 'the champion is being loaded'}"


def _live(follower: Follower) -> LiveChampion:
    if follower.live is None:
        raise HTTPException(503, _starting(follower), {"Retry-After": "5"})
    return follower.live
