"""The command line. Each subcommand lives in the module of its topic and is imported only when it is used."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from diger_core.errors import DigerError
from orchestration.engine.console import forgive_output, visible_lines
from orchestration.engine.threads import quiet

forgive_output()  # whatever is imported from here writes to a terminal

# By what people do: (command, module, its function, the line of help, which must not need the module).
_GROUPS: dict[str, tuple[tuple[str, str, str, str], ...]] = {
    "Run": (
        ("demo", "orchestration.cli.demo", "demo", "Try it on the embedded shop: train, release, retrain."),
        ("run", "orchestration.cli.run", "run", "Run the whole flow on a snapshot, to report and release."),
        ("ingest", "orchestration.snapshot.ingest.commands", "ingest", "Turn CSV, Parquet or a public format into a snapshot."),
        ("snapshot", "orchestration.cli.snapshot", "snapshot", "Register and list snapshots."),
        ("arrival", "orchestration.cli.arrival", "arrival", "Show what the arrival sensor would process now."),
        ("params", "orchestration.cli.params", "params", "Show parameters, their meanings, what is not default."),
        ("tune", "orchestration.cli.tune", "tune", "Search for a decay schedule: start, resume, promote."),
        ("compare-training", "orchestration.cli.compare_training", "compare_training", "Train variants on several seeds and compare them."),
        ("stage", "orchestration.cli.stage", "stage", "Run one stage (what dvc.yaml calls)."),
    ),
    "Look": (
        ("report", "orchestration.cli.report", "report", "Show a report with its costs, or compare two."),
        ("ui", "orchestration.cli.ui", "ui", "Open runs, results and reports in the browser."),
        ("drift", "orchestration.cli.drift", "drift", "Show what new events say of the champion, with limits."),
        ("lookup", "orchestration.cli.lookup", "lookup", "Find an item's semantic ID, or the item of an ID."),
        ("similar", "orchestration.cli.similar", "similar", "Show items like an item, or export them for all."),
        ("ids", "orchestration.cli.ids", "ids", "Compare tables of semantic IDs."),
    ),
    "Serve": (
        ("recommend", "orchestration.cli.recommend", "recommend", "Show a user's list, or write those of all users."),
        ("serve", "orchestration.cli.serve", "serve", "Serve the champion's lists over HTTP."),
        ("export", "orchestration.cli.export", "export", "Write the champion for another engine; check such files."),
        ("assign", "orchestration.cli.ids", "assign", "Give new items IDs under the champion, without training."),
        ("champion", "orchestration.cli.champion", "champion", "Show the bundle that serves, and its history."),
        ("promote", "orchestration.cli.champion", "promote", "Make a bundle the champion by hand."),
        ("rollback", "orchestration.cli.champion", "rollback", "Make an earlier champion serve again."),
    ),
    "Audit": (
        ("why", "orchestration.cli.why", "why", "Show what something was made from, and verify it."),
        ("where-used", "orchestration.cli.why", "where_used", "Show what was made with something."),
        ("item", "orchestration.cli.audit", "item", "Show an item's semantic ID, and every one it has had."),
        ("lineage", "orchestration.cli.lineage", "lineage", "Write or send what made what, as OpenLineage events."),
        ("track", "orchestration.cli.track", "track", "Send trainings to an MLflow server, as runs."),
        ("verify", "orchestration.cli.audit", "verify", "Verify the whole store."),
        ("reproduce", "orchestration.cli.upkeep", "reproduce", "Build a stored result again and compare."),
    ),
    "Keep house": (
        ("gc", "orchestration.cli.upkeep", "gc", "Remove what no release, report or pointer needs."),
        ("forget", "orchestration.cli.upkeep", "forget", "Remove one user's events from what is stored."),
    ),
}
_COMMANDS = {name: (module, function) for group in _GROUPS.values() for name, module, function, _ in group}
_HELP = {name: told for group in _GROUPS.values() for name, _, _, told in group}
_KEPT = {"recommend": "finished shards", "compare-training": "finished trainings"}  # by an interruption, where it is not stages


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[name]
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # The listing must not import every module.
        widest = max(map(len, _COMMANDS))
        for title, group in _GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:<{widest}}", told) for name, _, _, told in group])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="diger")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Retrain a generative recommender as data arrives: what changed, and whether it may serve."""
    ctx.obj = {"debug": debug}


def main(arguments: list[str] | None = None) -> None:
    """Entry point: 0 on success, 1 with one clear line on failure, 2 on wrong usage, 3 where the gate refuses a candidate, 130 on an interruption."""
    quiet()  # before anything imports torch
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    try:
        cli.main(args=[a for a in given if a != "--debug"] if debug else given, prog_name="diger", standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2 if isinstance(error, click.UsageError) else 1)
    except (click.Abort, KeyboardInterrupt):
        kept = next((what for command, what in _KEPT.items() if command in given), "finished stages")
        print(f"diger: interrupted; {kept} are kept, run the same command to continue", file=sys.stderr)
        sys.exit(130)
    except DigerError as error:
        if debug:
            raise
        print(f"diger: {visible_lines(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Exception as error:
        if debug:
            raise
        text = " ".join(str(error).split())[:300]
        print(f"diger: unexpected {type(error).__name__}: {visible_lines(text)} (run again with --debug for the traceback)", file=sys.stderr)
        sys.exit(1)
