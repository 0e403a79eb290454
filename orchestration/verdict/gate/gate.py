"""Stage `gate`: may the candidate serve? Its verdict is an artefact, so that release can re-read it by hash (orchestration/verdict/gate/).

A crash leaves no verdict, and without one nothing is released. A refusal is a result, not an error: the report still tells why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diger_core.errors import DigerError
from diger_core.store.artefact import Artefact
from diger_core.store.artefacts import Store
from orchestration.verdict.gate.document import VERDICT, GateVerdict, Measured

if TYPE_CHECKING:
    from orchestration.engine.stage_run import StageRun
    from orchestration.params.sections import Params


def gate(run: StageRun) -> None:
    """Writes verdict.json, verdict.md, gate.png and, where there is a champion, its lists for a fixed sample of users (recommendations.parquet)."""
    from diger_core.data.sequences import Sequences
    from orchestration.champion.bundle import load_bundle
    from orchestration.features.neighbours import counts_to_the_test
    from orchestration.verdict.gate.measures import measures
    from orchestration.verdict.gate.ranked import Catalogue
    from orchestration.verdict.gate.rules import rules
    from orchestration.verdict.gate.servability import servability
    from orchestration.verdict.gate.shown import SHOWN
    from orchestration.verdict.report.gate import picture, verdict_markdown

    candidate = load_bundle(run.store, run.inputs["bundle"].hash)
    if candidate.components["sequences"] != run.inputs["sequences"].hash:
        raise DigerError("gate: the bundle was made from other sequences than these: run bundle again on this snapshot")
    champion, anchor = (load_bundle(run.store, run.inputs[name].hash) if name in run.inputs else None for name in ("champion", "anchor"))
    seq = Sequences.from_tensors(run.inputs["sequences"].tensors("sequences.safetensors"))
    counts = counts_to_the_test(run.inputs["neighbours"], seq)
    catalogue = Catalogue(seq, run.inputs["sequences"].table("items.parquet")["item_id"], counts)
    config = run.params.gate
    figures, shown = measures(candidate, champion, anchor, catalogue, run.params.evaluation, config, run.progress)
    if shown is not None:
        run.out.table(SHOWN, shown, sort_by=("user_index",))
    width = int(candidate.document["encoder_facts"]["width"])
    measured: Measured = {**figures, "servability": servability(run.store.url, candidate.hash, seq, config.servability_users, width)}
    judged = rules(measured, config)
    verdict: GateVerdict = {
        "format": 1,
        "verdict": "accept" if all(rule["passed"] for rule in judged) else "refuse",
        "candidate": candidate.hash,
        "champion": champion.hash if champion else None,
        "rules": judged,
        "metrics": measured,
    }
    run.out.json(VERDICT, verdict)
    run.out.bytes("verdict.md", verdict_markdown(verdict).encode())
    run.out.bytes("gate.png", picture(verdict))
    run.facts(verdict=verdict["verdict"], candidate=candidate.hash, champion=verdict["champion"] or "none", **_figures(measured))
    run.progress.message(f"gate: {summary(verdict)}")


def extra_inputs(params: Params, store: Store, inputs: Mapping[str, Artefact], fit: bool, **_: Any) -> dict[str, Artefact]:
    """The champion to compare with, if there is one, and the anchor where that is a third bundle.

    A candidate that was released before is compared with the one that its release replaced, so that a repeated run finds its verdict, and an old
    bundle that a later one has replaced is not judged again.
    """
    candidate = inputs["bundle"].hash
    hash_ = opponent(store, candidate)
    if hash_ is None:
        return {}
    found = {"champion": store.artefact("bundle", hash_)}
    fixed = anchor(store, params.gate.anchor)
    return found if fixed is None or fixed.hash in (candidate, hash_) else {**found, "anchor": fixed}


def anchor(store: Store, named: str) -> Artefact | None:
    """The bundle that `gate.anchor` names; `first`: the oldest release whose bundle is still in the store. None: there is none."""
    from orchestration.champion.baseline import find_bundle
    from orchestration.champion.log import history

    if named == "none":
        return None
    if named != "first":
        return find_bundle(store, named)
    kept = (store.find("bundle", entry.bundle) for entry in history(store) if entry.action == "release")
    return next((found for found in kept if found is not None), None)


def missing(store: Store, inputs: Mapping[str, Artefact]) -> str | None:
    """Where the bundle has a verdict against a champion that was replaced since: that, and who replaced it."""
    from orchestration.champion.log import current, outdated

    for hash_ in store.root.list("artefacts", "gate"):
        found = store.find("gate", hash_)
        if found is not None and found.facts["candidate"] == inputs["bundle"].hash:
            against = str(found.facts["champion"])
            told = outdated(None if against == "none" else against, current(store))
            if told is not None:
                return f"gate: {told}"
    return None


def opponent(store: Store, candidate: str) -> str | None:
    """The bundle that the gate sets beside `candidate`; None for a first release."""
    from orchestration.champion.log import current, origin

    champion, made = current(store), origin(store, candidate)
    if champion is not None and made is not None and (made.action == "release" or champion.bundle == candidate):
        return made.previous
    return champion.bundle if champion else None


def summary(verdict: GateVerdict) -> str:
    """The verdict in one line: accepted, or the rules that were not met with what was found."""
    failed = [rule for rule in verdict["rules"] if not rule["passed"]]
    if not failed:
        excused = [rule["name"] for rule in verdict["rules"] if rule.get("excused")]
        if excused:
            return f"accepted; not met, and the champion is no better: {', '.join(excused)}; the other rules are met"
        return f"accepted, all {len(verdict['rules'])} rules are met"
    return "refused: " + "; ".join(f"{rule['name']} ({rule['message']})" for rule in failed)


def _figures(measured: Measured) -> dict[str, float | str]:
    """Flat numbers, which the UI plots over time."""
    facts: dict[str, float | str] = {f"{name}_ndcg_10": values["ndcg@10"] for name, values in measured["models"].items()}
    facts |= {"baseline": measured["baseline"]["name"], "gain_over_baseline": measured["baseline"]["mean"]}
    facts |= {"coverage": measured["coverage"]["candidate"], "unique_prefix_share": measured["ids"]["unique_prefix_share"]}
    if "churn" in measured:
        facts |= {"churn_items": measured["churn"]["items"], "churn_events": measured["churn"]["events"]}
    return facts
