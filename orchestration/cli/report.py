"""`diger report`: a stored report with what its run cost, and two reports side by side."""

from __future__ import annotations

import os
import shlex
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diger_core.errors import DigerError
from orchestration.cli.options import json_option, next_steps, open_store, store_option
from orchestration.engine.removal import PAGES

if TYPE_CHECKING:
    from diger_core.store.artefacts import Store
    from orchestration.audit.index import Made

_NAMES = (
    "the beginning of a hash (of the report, or of a model, bundle or anything else behind it), a snapshot, `champion`, `champion~1`, "
    "a path in the store, or `report` for the newest"
)


@click.group()
def report() -> None:
    """Show a stored report with what its run cost, or two side by side."""


@report.command("show", help=f"Write the page of report X, with time, memory and rows/s from the records.\n\nX: {_NAMES}.")
@click.argument("what", metavar="X", default="report")
@click.option("--out", metavar="FILE", help="Where to write the page [default: reports/report-SNAPSHOT-HASH.html in the store].")
@store_option
def show(what: str, out: str | None, store: str) -> None:
    from diger_core.store.canonical import jsonable
    from orchestration.audit.index import Index
    from orchestration.params.load import load_params
    from orchestration.params.verdict import ReportConfig
    from orchestration.verdict.gate.shown import flat
    from orchestration.verdict.report.found import find_report, overrides
    from orchestration.verdict.report.identity import recorded
    from orchestration.verdict.report.page import page

    opened = open_store(store)
    found = find_report(Index(opened), what)
    config = ReportConfig(**found.record["params"]["report"])
    sections = jsonable(asdict(load_params()))
    present = {key: leaf for name, section in sections.items() for key, leaf in flat(section, name).items()}
    place = _place(opened, out, f"report-{found.made.snapshot or 'unknown'}-{found.hash[:8]}.html")
    made = page(found.material, config, recorded(found, _beside(opened, place, found.previous)), found.costs, overrides(found.params, present))
    print(f"Report: {_write(opened, place, made)}")
    next_steps(store, (f"diger why {found.hash[:12]}", "what it was made from"), ("diger ui", "all reports, runs and stages in the browser"))


@report.command(
    "compare", help=f"Write one page with reports A and B side by side: metrics, curves, code usage, IDs, parameters.\n\nA and B: {_NAMES}."
)
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--out", metavar="FILE", help="Where to write the page [default: reports/compare-HASH-HASH.html in the store].")
@store_option
@json_option
def compare(a: str, b: str, out: str | None, store: str, as_json: bool) -> None:
    from orchestration.audit.index import Index
    from orchestration.engine.console import print_json
    from orchestration.verdict.report.compare import compare_page, summary
    from orchestration.verdict.report.found import find_report

    opened = open_store(store)
    index = Index(opened)
    left, right = find_report(index, a), find_report(index, b)
    if left.hash == right.hash:
        raise DigerError(f"{a!r} and {b!r} are the same report, {left.hash[:12]}: name two runs, for instance champion~1 and champion")
    place = _write(opened, _place(opened, out, f"compare-{left.hash[:8]}-{right.hash[:8]}.html"), compare_page(left, right))
    found = summary(left, right)
    if as_json:
        print_json({**found, "page": place})
        return
    _tell(found)
    print(f"Comparison: {place}")
    next_steps(store, (f"diger report show {right.hash[:12]}", "B alone"), (f"diger ids diff {shlex.quote(a)} {shlex.quote(b)}", "which IDs changed"))


def _tell(found: dict[str, Any]) -> None:
    from orchestration.engine.console import print_table

    if found["headline"] is None:
        rows = [[name, *(f"{value:.4f}" for value in values)] for name, values in found["metrics"].items()]
        print_table(f"Lists of A {found['a'][:12]} and B {found['b'][:12]}, each on its own users", ["", "A", "B"], rows)
        print("A and B are of different data" if found["other_data"] else "The ranks of a side were not stored, or the two share too few users")
    else:
        print(textwrap.fill(found["headline"], 80, break_long_words=False, break_on_hyphens=False))
        rows = [[row["name"], f"{row['users']:,}", _interval(row)] for row in found["where"]]
        print_table(f"Lists, B {found['b'][:12]} minus A {found['a'][:12]}", ["targets", "users", "NDCG@10 (95% interval)"], rows)
    named = ": " + ", ".join(key for key, *_ in found["params"][:6]) if found["params"] else ""
    print(textwrap.fill(f"{len(found['params'])} parameters differ{named}", 80, subsequent_indent="  ", break_long_words=False))


def _interval(row: dict[str, Any]) -> str:
    return "too few users" if row["mean"] is None else f"{row['mean']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f})"


def _place(store: Store, out: str | None, name: str) -> str:
    """Where a page goes: where the user says, or `reports/` in the store."""
    return out or store.root.at(PAGES, name)


def _beside(store: Store, place: str, report: Made | None) -> str | None:
    """The address of a stored page as a link in the page at `place`; None where a browser cannot follow it."""
    if report is None or not store.root.is_local:
        return None
    stored = store.root.at("artefacts", "report", report.artefact, "report.html")
    return Path(os.path.relpath(stored, Path(place).resolve().parent)).as_posix()


def _write(store: Store, place: str, html: str) -> str:
    from diger_core.store.faults import describe_os_error

    name = place.rpartition("/")[2]
    if place == store.root.at(PAGES, name):
        if not store.root.create(html.encode(), PAGES, name):
            store.root.replace(html.encode(), PAGES, name)
        return place if store.root.is_local else f"{store.url}/{PAGES}/{name}"
    try:
        Path(place).write_text(html, encoding="utf-8")
    except OSError as error:
        raise describe_os_error(error, place) from error
    return place
