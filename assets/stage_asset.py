"""One asset per stage: resolve the config, call the runner, return metadata. Nothing else happens in an asset."""

import dagster as dg

from assets.checks import check_results, check_specs, remedies
from assets.presentation import described, present
from diger_core.errors import DigerError
from orchestration.graph import Stage
from orchestration.resources import Pipeline
from orchestration.runner import refuse_failed

SNAPSHOTS = dg.DynamicPartitionsDefinition(name="snapshots")
OWNERS = ["team:recommendations"]
TRAINING = ("frozen_model", "joint_model", "decay_search", "tuned_model")


def stage_asset(stage: Stage) -> dg.AssetsDefinition:
    """The Dagster asset of a stage; its data version is the artefact's content hash."""

    @dg.asset(
        name=stage.name,
        group_name=stage.group,
        deps=[*stage.inputs, *stage.after],
        partitions_def=SNAPSHOTS,
        check_specs=check_specs(stage),
        code_version=stage.version,
        kinds=set(stage.kinds),
        owners=OWNERS,
        description=described(stage),
        pool="training" if stage.name in TRAINING else None,
        # "Materialize all" has the report and the release first; a study goes on for long, and may be terminated.
        op_tags={"dagster/priority": "-1"} if stage.group == "search" else None,
    )
    def asset(context: dg.AssetExecutionContext, pipeline: Pipeline) -> dg.MaterializeResult:
        try:
            result = pipeline.session(context).materialise(stage)
        except dg.DagsterExecutionInterruptedError:
            context.log.warning(f"{stage.name} was interrupted. What the run has finished is kept: Re-execute goes on from there.")
            raise
        except DigerError as error:
            context.log.error(str(error))  # the line that says what to do; Dagster's failure has it behind a stack trace
            raise
        try:
            refuse_failed(result.artefact)
        except DigerError as error:
            context.log.error(str(error))  # the failed check stops the run, but its error in the UI names only the check, not the remedy
        checks = check_results(stage, result.artefact)
        for line in remedies(stage, checks):
            context.log.error(line)
        return dg.MaterializeResult(data_version=dg.DataVersion(result.artefact.hash), metadata=present(result), check_results=checks)

    return asset
