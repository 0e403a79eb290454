"""The stored pages beside the UI: /diger/reports lists the reports of the store, /diger/report/X shows the one that X leads to, /diger/compared/X
sets it beside its predecessor.

A page comes from the store, whose texts come from a shop. It is sandboxed: its scripts have an origin of their own, so they can ask nothing of the
GraphQL of the same server.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from diger_core.errors import DigerError
from diger_core.store.artefact import Artefact
from orchestration.on_dagster.sensors import default_store
from orchestration.verdict.report.identity import COMPARED, recorded, told_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestration.audit.index import Index
    from orchestration.verdict.report.found import Found

PREFIX = "/diger/report"
PAGE = "report.html"
_OTHERS = ("decay_search", "training_comparison")  # other stages with a page
_SANDBOX = {
    "content-security-policy": "sandbox allow-scripts allow-popups allow-popups-to-escape-sandbox",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
_NAME = re.compile(r"[0-9a-f]{6,64}|champion(?:~\d{1,6})?")  # never a path
_LISTED = 100
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color-scheme:light dark}"
    "td,th{padding:.2rem .8rem .2rem 0;text-align:left;vertical-align:top}"
)


def link(name: str) -> str:
    """Where the page is that belongs to an artefact, on the server of the UI."""
    return f"{PREFIX}/{name}"


def routes() -> list[Route]:
    return [Route("/diger/reports", _list), Route(PREFIX + "/{name:path}", _page), Route(COMPARED + "/{name:path}", _compared)]


async def _list(request: Request) -> Response:
    return HTMLResponse(await run_in_threadpool(listing), headers=_SANDBOX)


async def _page(request: Request) -> Response:
    return await _made(shown, request)


async def _compared(request: Request) -> Response:
    return await _made(compared, request)


async def _made(make: Callable[[str], str], request: Request) -> Response:
    try:
        html = await run_in_threadpool(make, request.path_params["name"])
    except DigerError as error:
        return PlainTextResponse(f"{error}\n", status_code=404)
    return HTMLResponse(html, headers=_SANDBOX)


def shown(name: str) -> str:
    """The page that a name leads to: an artefact with a page of its own, or the report that belongs to what the name is, with when, by which code and
    in which run it was made, and links to that run, to the report before and to both side by side. DigerError for none."""
    from orchestration.audit.index import Index

    index = Index(default_store())
    own = [hash_ for hash_, stage in index.present.items() if stage in _OTHERS and len(name) >= 6 and hash_.startswith(name)]
    if len(own) == 1:
        return _html(index, own[0])
    found = _report(index, name)
    before = link(found.previous.artefact) if found.previous is not None else None
    return told_in(_html(index, found.hash), recorded(found, before, ui=""))


def compared(name: str) -> str:
    """A report beside that of the champion that its run was compared with, made when it is asked for (seconds). DigerError for none."""
    from orchestration.audit.index import Index
    from orchestration.verdict.report.compare import compare_page
    from orchestration.verdict.report.found import find_report

    index = Index(default_store())
    found = _report(index, name)
    if found.previous is None:
        raise DigerError(f"{name}: its run was compared with no champion whose report is in {index.store.url}")
    return compare_page(find_report(index, found.previous.artefact), found)


def _report(index: Index, name: str) -> Found:
    from orchestration.verdict.report.found import find_report

    if not _NAME.fullmatch(name):
        raise DigerError(f"{name[:80]!r}: give the beginning of a hash, champion or champion~1")
    return find_report(index, name)


def _html(index: Index, hash_: str) -> str:
    artefact = index.artefact(hash_)
    if artefact is None or PAGE not in artefact.names:
        raise DigerError(f"{hash_[:12]}: its page is not in {index.store.url}: run report again")
    return Path(artefact.path(PAGE)).read_text(encoding="utf-8")


def listing() -> str:
    """The newest reports, newest first, with what each says."""
    from orchestration.audit.index import Index

    index = Index(default_store())
    rows = "".join(_row(index, artefact, at) for at, artefact in _newest(index))
    head = "<tr><th>made</th><th>snapshot</th><th>verdict</th><th>report</th></tr>"
    table = f"<table>{head}{rows}</table>" if rows else "<p>No report yet: run <code>diger run</code>, or job <code>retrain</code>.</p>"
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Reports</title>'
    return f'<!doctype html><html lang="en">{meta}<style>{_STYLE}</style><h1>Reports</h1>{table}</html>'


def _newest(index: Index) -> list[tuple[str, Artefact]]:
    made = [made for made in reversed(index.made) if made.stage in ("report", *_OTHERS) and made.artefact in index.present]
    seen = {each.artefact: each.at for each in made}
    return [(at, artefact) for hash_, at in list(seen.items())[:_LISTED] if (artefact := index.artefact(hash_)) is not None]


def _row(index: Index, artefact: Artefact, at: str) -> str:
    snapshot = next((str(made.snapshot) for made in index.makers[artefact.hash]), "")
    said = str(artefact.facts.get("verdict", artefact.stage.replace("_", " ")))
    where = f'<a href="{link(artefact.hash)}">{artefact.hash[:12]}</a>'
    return f"<tr><td>{escape(at[:16].replace('T', ' '))}</td><td>{escape(snapshot)}</td><td>{escape(said)}</td><td>{where}</td></tr>"
