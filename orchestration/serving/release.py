"""Stage `release`: makes an accepted candidate the champion.

It re-reads the stored verdict and refuses by itself, however it was launched: a failed check stops only its own run. Two steps, each all or
nothing: the artefact `release.json`, then the log's entry. Killed before the entry, a run has released nothing, and the same run again goes
on; an entry of this very release is never made twice, so that repeating an old run does not undo a rollback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diger_core.errors import DigerError, Refused
from diger_core.store.artefacts import Store

if TYPE_CHECKING:
    from orchestration.champion.log import Entry
    from orchestration.engine.stage_run import StageRun

DOCUMENT = "release.json"


def release(run: StageRun) -> None:
    """Writes release.json: bundle, verdict and report by hash, the champion that it replaces, and the reason."""
    from orchestration.champion.log import current
    from orchestration.verdict.gate.document import VERDICT, GateVerdict
    from orchestration.verdict.gate.gate import summary

    bundle, judged = run.inputs["bundle"], run.inputs["gate"]
    verdict: GateVerdict = run.store.artefact("gate", judged.hash).json(VERDICT)  # from the store, not from what this process may remember
    if verdict["candidate"] != bundle.hash:
        raise DigerError(f"release: the verdict is about bundle {verdict['candidate'][:12]}, not {bundle.hash[:12]}: run gate again")
    if verdict["verdict"] != "accept":
        entry = current(run.store)
        stays = f"champion {entry.bundle[:12]} stays" if entry else "nothing serves yet"
        raise Refused(f"release: the gate did not accept bundle {bundle.hash[:12]}, {stays}: {summary(verdict)}")
    entry = current(run.store)
    if entry is None or entry.bundle != bundle.hash:
        refuse_replaced(run.store, bundle.hash, judged.hash)
        refuse_outdated(verdict["champion"], entry)
    document = {
        "format": 1,
        "bundle": bundle.hash,
        "verdict": judged.hash,
        "report": run.inputs["report"].hash,
        "champion": verdict["champion"],
        "reason": run.params.release.reason,
    }
    run.out.json(DOCUMENT, document)
    run.facts(bundle=bundle.hash, verdict=judged.hash, replaces=verdict["champion"] or "none", assignment_hash=bundle.facts["assignment_hash"])


def published(store: Store, key: str) -> None:
    """Enters the release into the champion log, unless it stands there already. The runner calls it for a new and for a reused artefact."""
    from orchestration.champion.log import append, current

    artefact = store.lookup("release", key)
    if artefact is None:
        raise DigerError("release: its artefact is gone from the store: run release again")
    document: dict[str, Any] = artefact.json(DOCUMENT)
    entry = current(store)
    if entry is not None and entry.bundle == document["bundle"]:
        return  # by this release, or by hand
    append(
        store,
        document["bundle"],
        "release",
        document["reason"],
        verdict=document["verdict"],
        release=artefact.hash,
        check=lambda entry: refuse_outdated(document["champion"], entry),
    )


def refuse_replaced(store: Store, bundle: str, verdict: str) -> None:
    """DigerError where the bundle was champion before, by another verdict, and was replaced: its run, given again, takes nothing back."""
    from orchestration.champion.log import origin

    before = origin(store, bundle)
    if before is not None and before.verdict != verdict:
        raise DigerError(
            f"release: bundle {bundle[:12]} was champion before (entry {before.number} of {before.at[:19]}) and was replaced; repeating its run "
            f"takes nothing back: `diger rollback --to {before.number}` does, with a reason"
        )


def refuse_outdated(wanted: str | None, entry: Entry | None) -> None:
    """DigerError where the verdict compared the candidate with another bundle than the one that it would replace."""
    from orchestration.champion.log import outdated

    told = outdated(wanted, entry)
    if told is not None:
        raise DigerError(f"release: {told}")
