"""`diger track`: each training as a run of an MLflow tracking server."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec

import click

from orchestration.cli.options import next_steps, open_store, store_option
from orchestration.cli.sending import address, chosen, never_in_clear, since_option


@click.command()
@click.option("--to", "url", metavar="URL", required=True, help="Send to this tracking server; a key is taken from MLFLOW_TRACKING_TOKEN.")
@click.option("--experiment", metavar="NAME", default="diger", show_default=True, help="Of the runs; made where there is none.")
@since_option
@click.option("--snapshot", metavar="KEY", help="Only what was trained for this snapshot.")
@store_option
def track(url: str, experiment: str, since: str | None, snapshot: str | None, store: str) -> None:
    """Send each training to an MLflow tracking server, as a run with its parameters, curves, hashes and inputs.

    Trainings are those of tokenizer, frozen_model, joint_model and refit. What is there already is not sent again.
    """
    from diger_core.errors import DigerError

    address(url, "https://mlflow.example.org", "MLFLOW_TRACKING_TOKEN")
    if find_spec("mlflow") is None:
        raise DigerError("diger track needs mlflow-skinny: pip install 'diger[tracking]'")
    from orchestration.audit.index import Index
    from orchestration.audit.mlflow_runs import TRAININGS, Tracking, key_given
    from orchestration.engine.console import console_progress, say

    index = Index(open_store(store))
    made = [one for one in chosen(index, since, snapshot) if one.stage in TRAININGS]
    if not made:
        raise DigerError(f"{store}: no {', '.join(TRAININGS)} ran: there is nothing to send")
    never_in_clear(url, key_given(url))
    outcomes = Counter[str]()
    with console_progress() as progress:
        server = Tracking.open(url, experiment)
        for number, one in enumerate(made, 1):
            outcomes[server.send(index, one)] += 1
            progress.update("trainings", number, len(made))
    told = [f"{outcomes['sent']:,} trainings sent, {outcomes['there']:,} were there"]
    told += [f"{outcomes['untrained']:,} trained nothing (taken over, or switched off)"] if outcomes["untrained"] else []
    told += [f"{outcomes['removed']:,} not sent: their artefacts, and so their curves, are no longer in the store"] if outcomes["removed"] else []
    say(f"{'; '.join(told)}: {server.page}")
    next_steps(store, ("diger why champion", "the same hashes here, as a tree"))
