"""One asset per stage: resolve the config, call the runner, return metadata. Nothing else happens in an asset."""

import dagster as dg

from assets.checks import check_results, check_specs
from assets.presentation import present
from diger_core.errors import DigerError
from orchestration.graph import Stage
from orchestration.resources import Pipeline
from orchestration.runner import refuse_failed

SNAPSHOTS = dg.DynamicPartitionsDefinition(name="snapshots")
OWNERS = ["team:recommendations"]


def stage_asset(stage: Stage) -> dg.AssetsDefinition:
    """The Dagster asset of a stage; its data version is the artefact's content hash."""

    @dg.asset(
        name=stage.name,
        group_name=stage.group,
        deps=list(stage.inputs),
        partitions_def=SNAPSHOTS,
        check_specs=check_specs(stage),
        code_version=stage.version,
        kinds=set(stage.kinds),
        owners=OWNERS,
        description=stage.description,
        pool="training" if stage.name in ("frozen_model", "joint_model", "decay_search", "tuned_model") else None,
    )
    def asset(context: dg.AssetExecutionContext, pipeline: Pipeline) -> dg.MaterializeResult:
        result = pipeline.session(context).materialise(stage)
        try:
            refuse_failed(result.artefact)
        except DigerError as error:
            context.log.error(str(error))  # the failed check stops the run, but its error in the UI names only the check, not the remedy
        return dg.MaterializeResult(
            data_version=dg.DataVersion(result.artefact.hash),
            metadata=present(result),
            check_results=check_results(stage, result.artefact),
        )

    return asset
