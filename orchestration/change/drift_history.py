"""The drift figures of a store's snapshots, as `catalogue_diff` has stored them, judged by the limits of now."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from diger_core.errors import DigerError
from orchestration.change.drift_figures import passed, told
from orchestration.engine.registry import registered

if TYPE_CHECKING:
    from diger_core.store.artefact import Artefact
    from diger_core.store.artefacts import Store
    from orchestration.change.drift_figures import Drift
    from orchestration.engine.registry import Registered
    from orchestration.params.data import DriftConfig

STAGE = "catalogue_diff"


class Row(TypedDict):
    """A snapshot beside the champion that it found. `said`: in one line, also why there are no figures; `passed`: figure -> which limit it passed."""

    snapshot: str
    url: str
    champion: str | None
    figures: Drift | None
    passed: dict[str, str]
    said: str


def rows(store: Store, config: DriftConfig, last: int) -> list[Row]:
    """The newest `last` snapshots, oldest first. DigerError, with what to do, where no snapshot of the store was ever set beside a champion."""
    known = registered(store)
    if not known:
        raise DigerError(f"{store.url}: no snapshot is registered: diger run --snapshot DIR_OR_URL trains a first champion")
    made = _newest(store)
    found = [_row(store, entry, made.get(entry.key), config) for entry in known]
    if not any(row["figures"] for row in found):
        raise DigerError(f"{store.url}: {_nothing(store, known)}")
    return found[-last:]


def _newest(store: Store) -> dict[str, str]:
    """Snapshot key -> hash of the comparison that was recorded last."""
    records = [record for key in store.root.list("records", STAGE) for record in store.records(STAGE, key)]
    return {record["snapshot"]: record["artefact"] for record in sorted(records, key=lambda record: record["started_at"])}


def _row(store: Store, entry: Registered, hash_: str | None, config: DriftConfig) -> Row:
    row: Row = {"snapshot": entry.key, "url": entry.url, "champion": None, "figures": None, "passed": {}, "said": ""}
    artefact = None if hash_ is None else store.find(STAGE, hash_)
    if artefact is None:
        gone = "not compared yet" if hash_ is None else "its comparison was removed"
        return {**row, "said": f"{gone}: diger run --snapshot {entry.url} --until {STAGE}"}
    return _measured(row, artefact, config)


def _measured(row: Row, artefact: Artefact, config: DriftConfig) -> Row:
    diff = artefact.json("diff.json")
    row["champion"] = diff["baseline"]
    if "drift" not in artefact.facts:
        return {**row, "said": f"compared before drift was measured: diger run --snapshot {row['url']} --until {STAGE}"}
    figures: Drift | None = diff["figures"]
    if figures is None:
        return {**row, "said": str(artefact.facts["drift"])}
    return {**row, "figures": figures, "passed": passed(figures, config), "said": told(figures, config)}  # by the limits of now


def _nothing(store: Store, known: list[Registered]) -> str:
    """Why no snapshot has figures, and what to do."""
    from orchestration.champion.log import current

    if current(store) is None:
        return "there is no champion yet: run the flow (diger run), whose last stage releases what the gate accepts; drift shows with the next one"
    if len(known) == 1:
        return f"{known[0].key} is the only snapshot, and the champion was made from it: drift shows with the next one (diger run --snapshot DIR)"
    return f"none of {len(known)} snapshots was compared with a champion: diger run --snapshot {known[-1].url} --until {STAGE}"
