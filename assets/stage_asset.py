"""One asset per stage: resolve the config, call the runner, return metadata. Nothing else happens in an asset."""

import dagster as dg

from diger_core.errors import DigerError, Refused
from orchestration.engine.runner import refuse_failed
from orchestration.on_dagster.checks import AFTER_REFUSAL, check_results, check_specs, remedies
from orchestration.on_dagster.partitions import SNAPSHOTS
from orchestration.on_dagster.presentation import described, group_label, shown
from orchestration.on_dagster.resources import Pipeline
from orchestration.stage import Stage

OWNERS = ["team:recommendations"]


def stage_asset(stage: Stage) -> dg.AssetsDefinition:
    """The Dagster asset of a stage; its data version is the artefact's content hash."""

    @dg.asset(
        name=stage.name,
        group_name=group_label(stage),
        deps=[*stage.inputs, *stage.after],
        partitions_def=SNAPSHOTS,
        check_specs=check_specs(stage),
        code_version=stage.version,
        kinds=set(stage.kinds),
        owners=OWNERS,
        description=described(stage),
        pool=stage.pool,
        # "Materialize all" has the report and the release first; a study takes long, and may be terminated.
        op_tags={"dagster/priority": "-1"} if stage.low_priority else None,
    )
    # Dagster reads this annotation and knows the bare class alone.
    def asset(context: dg.AssetExecutionContext, pipeline: Pipeline) -> dg.MaterializeResult:  # type: ignore[type-arg]
        try:
            result = pipeline.session(context).materialise(stage)
        except dg.DagsterExecutionInterruptedError:
            context.log.warning(f"{stage.name} was interrupted. What the run has finished is kept: Re-execute continues from there.")
            raise
        except Refused as refusal:
            context.log.warning(str(refusal))
            raise verdict_failure(refusal) from None
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
        return dg.MaterializeResult(data_version=dg.DataVersion(result.artefact.hash), metadata=shown(context, result), check_results=checks)

    return asset


def verdict_failure(refusal: Refused) -> dg.Failure:
    """A refusal as the UI shows it: the verdict and what to do, without the stack of a fault."""
    return dg.Failure(description=str(refusal), metadata={"verdict": "refused", "next": AFTER_REFUSAL}, allow_retries=False)
