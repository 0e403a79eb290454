"""What a submitted job runs (`python -m orchestration.on_ray.stage_job`): one stage, on the cluster that the job is on."""

from __future__ import annotations

import json
import os
import sys

from diger_core.errors import DigerError
from diger_core.store.artefacts import Store
from orchestration.engine.console import Lines
from orchestration.engine.registry import lookup
from orchestration.engine.runner import Session
from orchestration.engine.threads import quiet
from orchestration.graph import BY_NAME
from orchestration.on_ray.jobs import VARIABLE
from orchestration.params.load import build_params


def main() -> None:
    """Materialises the stage that the job's environment names."""
    quiet()
    given = json.loads(os.environ[VARIABLE])
    try:
        store = Store(given["store"])
        params = build_params(given["params"], VARIABLE)
        session = Session(store, params, lookup(store, given["snapshot"]), Lines(lambda text: print(text, flush=True)))
        session.provenance = given["provenance"]
        session.materialise(BY_NAME[given["stage"]])
    except DigerError as error:
        print(f"diger: {error}", flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
