"""`diger export`: the champion as flat files for another engine, and their check."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from orchestration.cli.options import json_option, local_path, next_steps, open_store, store_option


@click.group()
def export() -> None:
    """Write the champion for another engine, or check such files."""


@export.command()
@click.option("--out", required=True, metavar="DIR", type=click.Path(file_okay=False), callback=local_path, help="A new directory.")
@click.option("--onnx", is_flag=True, help="Add the model as ONNX graphs, encoder and decoder step (extra onnx).")
@store_option
@json_option
def champion(out: Path, onnx: bool, store: str, as_json: bool) -> None:
    """Write the champion's model, ID table, trie, encoder and recipe as flat files, with golden requests and a checker.

    What each file holds stands in export.json. `python DIR/check.py` verifies them with numpy alone. ONNX graphs are written only if they answer
    every golden request as the model does; to run them again, `diger export check DIR` needs onnxruntime.
    """
    from orchestration.champion.bundle import load_bundle
    from orchestration.engine.console import print_json
    from orchestration.serving.export.write import write_export
    from orchestration.serving.recommendations import present_champion

    opened = open_store(store)
    document = write_export(load_bundle(opened, present_champion(opened).hash), out, onnx)
    if as_json:
        print_json(document)
        return
    print(f"{out}: bundle {document['bundle'][:12]}, assignment {document['assignment_hash'][:12]}, {document['items']:,} items")
    print(f"{len(document['files'])} files, described in {out}/export.json")
    by = "with numpy, the graphs with onnxruntime" if onnx else "with numpy alone"
    next_steps(store, (f"diger export check {shlex.quote(str(out))}", f"{by}: every byte, every path, every golden request"))


@export.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def check(folder: Path) -> None:
    """Verify exported files with numpy alone: every byte, every path of the trie, every golden request.

    ONNX graphs answer the golden requests too where onnxruntime is installed.
    """
    from diger_core.errors import DigerError
    from orchestration.serving.export import on_onnx
    from orchestration.serving.export.check import Wrong
    from orchestration.serving.export.check import check as checked

    graphs = (folder / on_onnx.ENCODER).is_file()
    try:
        found = checked(folder)
        through = on_onnx.compared(folder) if graphs and not on_onnx.lacking(on_onnx.RUNNING) else None
    except Wrong as error:
        raise DigerError(str(error)) from error
    print(f"{found['files']} files, {found['items']:,} items in the trie, {found['golden']} golden requests: all as exported")
    if through is not None:
        print(f"ONNX graphs: {through['golden']} golden requests, the same items; log-probabilities at most {through['furthest']:.0e} apart")
    elif graphs:
        print(f"ONNX graphs: not run, onnxruntime is not installed: {on_onnx.REMEDY}")
