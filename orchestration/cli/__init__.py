"""The command line. Each subcommand lives in the module of its topic and is imported only when it is used."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from diger_core.errors import DigerError
from orchestration.engine.console import forgive_output, visible_lines
from orchestration.engine.threads import quiet

forgive_output()  # whatever is imported from here writes to a terminal

_COMMANDS = {
    "run": ("orchestration.cli.run", "run"),
    "demo": ("orchestration.cli.demo", "demo"),
    "ui": ("orchestration.cli.ui", "ui"),
    "ingest": ("orchestration.snapshot.ingest.commands", "ingest"),
    "snapshot": ("orchestration.cli.snapshot", "snapshot"),
    "arrival": ("orchestration.cli.arrival", "arrival"),
    "stage": ("orchestration.cli.stage", "stage"),
    "lookup": ("orchestration.cli.lookup", "lookup"),
    "similar": ("orchestration.cli.similar", "similar"),
    "assign": ("orchestration.cli.ids", "assign"),
    "ids": ("orchestration.cli.ids", "ids"),
    "tune": ("orchestration.cli.tune", "tune"),
    "compare-training": ("orchestration.cli.compare_training", "compare_training"),
    "params": ("orchestration.cli.params", "params"),
    "recommend": ("orchestration.cli.recommend", "recommend"),
    "serve": ("orchestration.cli.serve", "serve"),
    "export": ("orchestration.cli.export", "export"),
    "report": ("orchestration.cli.report", "report"),
    "champion": ("orchestration.cli.champion", "champion"),
    "promote": ("orchestration.cli.champion", "promote"),
    "rollback": ("orchestration.cli.champion", "rollback"),
    "why": ("orchestration.cli.why", "why"),
    "where-used": ("orchestration.cli.why", "where_used"),
    "item": ("orchestration.cli.audit", "item"),
    "verify": ("orchestration.cli.audit", "verify"),
    "gc": ("orchestration.cli.upkeep", "gc"),
    "forget": ("orchestration.cli.upkeep", "forget"),
    "reproduce": ("orchestration.cli.upkeep", "reproduce"),
}
_HELP = {
    "run": "Run the whole flow on a snapshot.",
    "demo": "Run the whole flow on the embedded catalogue.",
    "ui": "Open Dagster's UI and daemon on loopback.",
    "ingest": "Turn a public format into a snapshot.",
    "snapshot": "Register and list snapshots.",
    "arrival": "Show what the arrival sensor would process now.",
    "stage": "Run one stage (what dvc.yaml calls).",
    "lookup": "Find an item's semantic ID, or the item of an ID.",
    "similar": "Show items like an item, or export them for all.",
    "assign": "Give new items IDs under the champion, without training.",
    "ids": "Compare tables of semantic IDs.",
    "tune": "Search for a decay schedule; resume, list or promote a study.",
    "compare-training": "Train variants on several seeds and compare them.",
    "params": "Show the parameters, with defaults filled in.",
    "recommend": "Write the champion's lists for all or given users.",
    "serve": "Serve the champion's lists over HTTP.",
    "export": "Write the champion for another engine; check such files.",
    "report": "Show a report with its costs, or compare two.",
    "champion": "Show the bundle that serves, and its history.",
    "promote": "Make a bundle the champion by hand.",
    "rollback": "Make an earlier champion serve again.",
    "why": "Show what something was made from, and verify it.",
    "where-used": "Show what was made with something.",
    "item": "Show an item's semantic ID, and every one it has had.",
    "verify": "Verify the whole store.",
    "gc": "Remove what no release, report or pointer needs.",
    "forget": "Remove one user's events from what is stored.",
    "reproduce": "Build a stored result again and compare.",
}
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
        with formatter.section("Commands"):
            formatter.write_dl(list(_HELP.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="diger")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Retrain a generative recommender as data arrives: what changed, and whether it may serve."""
    ctx.obj = {"debug": debug}


def main(arguments: list[str] | None = None) -> None:
    """Entry point: 0 on success, 1 with one clear line on failure, 2 on wrong usage."""
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
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        text = " ".join(str(error).split())[:300]
        print(f"diger: unexpected {type(error).__name__}: {visible_lines(text)} (run again with --debug for the traceback)", file=sys.stderr)
        sys.exit(1)
