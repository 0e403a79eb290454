"""The pages' commands run, with the exit codes and the lines that the pages show; every command of every page is run by some test."""

from __future__ import annotations

import re

import pytest

from tests.support import docs, readme_page
from tests.support.docs import PROJECT, commands, inline_commands, masked, missing, plain_commands, run, world

TEXTS = {
    path.name: path.read_text(encoding="utf-8") for path in (PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *(PROJECT / "docs").glob("*.md"))
}
# Commands that no block of a page's own world runs -> the file that runs them, and the name of the test in it (CI's script has none).
ELSEWHERE = {
    "make setup": (".ci/run", "make setup"),
    "make lint": (".ci/run", "make lint"),
    "make test": (".ci/run", "make test"),
    "make demo": ("tests/project/test_make.py", "test_make_demo_ends_with_a_second_release_and_the_pages_pictures"),
    "make ui": ("tests/project/test_make.py", "test_make_ui_serves_the_demo_snapshots"),
    "make docs": ("tests/project/test_make.py", "test_make_docs_finds_nothing_to_change"),
    "diger ui": ("tests/project/test_make.py", "test_make_ui_serves_the_demo_snapshots"),
    "diger compare-training": (
        "tests/orchestration/search/test_training_comparison.py",
        "test_variants_are_paired_by_seed_and_trained_once",
    ),
    "pre-commit install": ("tests/project/test_make.py", "test_the_hooks_refuse_a_commit_that_the_linters_refuse"),
    "python -m docs.pictures": ("tests/project/test_make.py", "test_make_demo_ends_with_a_second_release_and_the_pages_pictures"),
    "python -m tests.support.docs docs/PAGE.md": ("tests/project/test_docs.py", "test_a_page_is_rewritten_with_what_its_commands_print"),
    "python -m tests.support.definitions_snapshot": (
        "tests/orchestration/on_dagster/test_definitions.py",
        "test_assets_jobs_schedules_and_sensors_are_what_was_last_read",
    ),
    "python -m tests.support.screenshots OUT_DIR": (
        "tests/orchestration/on_dagster/test_ui_everything.py",
        "test_the_script_takes_a_picture_of_every_page_and_state",
    ),
    "python -m benchmarks.rows": ("tests/benchmarks/test_benchmark_report.py", "test_every_record_and_every_command_is_printed"),
    "python -m tests.support.report_picture": (
        "tests/orchestration/verdict/test_report_browser.py",
        "test_the_readmes_picture_is_the_first_screen_of_a_stores_newest_report",
    ),
    "export RAY_AUTH_MODE=token": ("tests/orchestration/on_ray/test_ray_jobs.py", "job_server"),
    "ray start --head": ("tests/orchestration/on_ray/test_ray_jobs.py", "job_server"),
    "DAGSTER_HOME=": ("tests/project/test_docs.py", "test_the_readmes_commands_lead_from_two_exports_to_a_comparison"),
    "dagster instance migrate": ("tests/flow/test_deployment_processes.py", 'made.run("migrate")'),
    "export DIGER_POSTGRES_URL": ("tests/orchestration/on_dagster/test_postgres.py", "test_the_ui_launches_a_run_whose_history_is_in_postgres"),
    "diger verify": ("tests/orchestration/audit/test_audit.py", 'diger(store, "verify")'),
    "diger serve": ("tests/flow/test_deployment_processes.py", 'made.started("serve")'),
    "dvc add": ("tests/support/dvc_project.py", '"dvc", "add"'),
    "dvc remote modify --local local url": ("tests/support/dvc_project.py", '"dvc", "remote", "modify", "--local", "local", "url"'),
    "dvc repro on_demand/dvc.yaml:": ("tests/orchestration/test_dvc.py", "on_demand/dvc.yaml"),
    "dvc repro": ("tests/orchestration/test_dvc.py", '"dvc", "repro"'),
    "dvc push": ("tests/orchestration/test_dvc.py", '"dvc", "push"'),
    "dvc pull": ("tests/support/dvc_project.py", '"dvc", "pull"'),
    "dvc metrics show": ("tests/orchestration/test_dvc.py", '"dvc", "metrics", "show"'),
}
# Measurements of up to half an hour, whose result is a line of benchmarks/results; and the mutations, whose list a test checks.
BENCHMARKS = ("traffic", "search", "serve", "memory", "gpu ranks", "gpu service", "onnx_beams", "encoder")
ON_A_GPU = ("diger ingest table --interactions interactions.parquet ", "diger run --snapshot beauty --params benchmarks/beauty_on_a_device.yaml")
BY_HAND = ("make faults", "make mutations", *ON_A_GPU, *(f"python -m benchmarks.{name}" for name in BENCHMARKS))


def own_data() -> str:
    """The README from the section whose commands a newcomer types in their order."""
    return TEXTS["README.md"].partition("\n## Your own data\n")[2]


PAGES = [path for path in sorted((PROJECT / "docs").glob("*.md")) if re.search(r"^<!-- world: ", path.read_text(encoding="utf-8"), re.MULTILINE)]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_shows_what_its_commands_print(page, tmp_path):
    text = page.read_text(encoding="utf-8")
    world(text, tmp_path)
    for command in commands(text):
        output, code = run(command.line, tmp_path)
        assert code == command.exit_code, f"$ {command.line}\n" + "\n".join(output)
        assert missing(command.expected, output) == [], f"$ {command.line}\n" + "\n".join(output)


@pytest.mark.slow
def test_the_readmes_commands_lead_from_two_exports_to_a_comparison(tmp_path):
    readme_page.world(tmp_path)
    told, exported = "", ""
    for line in plain_commands(own_data()):
        if line.startswith("export "):
            exported += f"{line}; "
        if line.startswith("diger ") and line not in ELSEWHERE:
            output, code = run(exported + line, tmp_path)
            assert code == 0, f"$ {line}\n" + "\n".join(output)
            told += "\n".join(output)
            readme_page.shrink(tmp_path, line)
    wanted = ("Report: shop/", " ID ", "Comparison: shop/reports/compare-", "The gate accepts", "entry 2 of the log")
    assert [words for words in wanted if words not in told] == [], told
    (line,) = [line for line in inline_commands(TEXTS["running.md"]) if "dagster asset materialize" in line]
    key = next(path.stem for path in (tmp_path / "shop" / "snapshots").glob("tuesday-*.json"))
    output, code = run(exported + "cp mine.yaml params.yaml; " + line.replace("KEY", key), tmp_path)
    assert code == 0, "\n".join(output)
    assert sum("unchanged, reused" in each for each in output) >= 15


def test_every_command_of_a_page_is_run_by_a_test():
    own = {line for line in plain_commands(own_data()) if line.startswith(("diger ", "export "))}
    for name, text in TEXTS.items():
        for line in [*plain_commands(text), *(line for line in inline_commands(text) if not line.startswith("diger "))]:
            run_here = any(f"{each} ".startswith(f"{line} ") for each in own)  # with more options, maybe
            assert run_here or line.startswith((*ELSEWHERE, *BY_HAND)), f"{name}: no test runs `{line}`"


def test_what_runs_a_pages_commands_elsewhere_exists():
    for command, (file, name) in ELSEWHERE.items():
        assert name in (PROJECT / file).read_text(encoding="utf-8"), f"{command}: {file} has no {name}"


@pytest.mark.parametrize("name", TEXTS)
def test_every_subcommand_and_option_of_a_sentence_exists(name):
    for line in inline_commands(TEXTS[name]):
        if line.startswith("diger "):
            check_options(name, line)


@pytest.mark.parametrize("name", TEXTS)
def test_every_option_of_a_remark_behind_a_command_exists(name):
    for line in re.findall(r"^diger .* # .*$", TEXTS[name], re.MULTILINE):
        check_options(name, line)


def test_an_option_that_does_not_exist_is_noticed():
    with pytest.raises(AssertionError, match="--item-id"):
        check_options("page", "diger lookup --item 4711      # --item-id 17-203: the item of one")


def check_options(name: str, line: str) -> None:
    """The command of the line exists, and every option in the line is one of its own."""
    from orchestration.cli import cli

    command, words = cli, line.split()[1:]
    while hasattr(command, "get_command") and words:
        found = command.get_command(None, words[0])
        assert found is not None, f"{name}: `{line}`: there is no {words[0]}"
        command, words = found, words[1:]
    unknown = {word for word in words if word.startswith("--")} - {option for parameter in command.params for option in parameter.opts}
    assert not unknown, f"{name}: `{line}`: no option {', '.join(sorted(unknown))}"


def test_the_readmes_first_screen_needs_no_glossary():
    screen = TEXTS["README.md"].partition("\n## Results\n")[0]
    found = re.findall(r"(?i)sdud|frqud|gumbel|semantic id|artefact|bundle|codebook|tokenizer|asset|prefix|cold start|[\w.]+\.yaml", screen)
    assert not found
    assert "arxiv.org/abs/2601.19711" in TEXTS["README.md"]


def test_a_page_is_rewritten_with_what_its_commands_print(tmp_path):
    page = tmp_path / "page.md"
    head = "<!-- world: tests.support.data_page:world -->\n"
    page.write_text(f"{head}```console\n$ head -1 clicks.csv\nold output\n$ false\n```\n", encoding="utf-8")
    docs.rewrite(page)
    assert page.read_text(encoding="utf-8") == f"{head}```console\n$ head -1 clicks.csv\ncustomer,sku,time\n$ false\n[exit 1]\n```\n"


def test_pages_were_found():
    assert {page.stem for page in PAGES} >= {"audit", "data", "retraining", "tuning"}


def test_a_line_that_no_longer_comes_is_noticed():
    assert missing(["tokenizer 0123456789ab  2026-01-01"], ["tokenizer ffffffffffff  2027-12-31"]) == []
    assert missing(["tokenizer 0123456789ab"], ["joint_model 0123456789ab"]) == ["tokenizer 0123456789ab"]
    assert missing(["b", "a"], ["a", "b"]) == ["a"]
    assert missing(["a", "…", "c"], ["a", "b", "c"]) == []
    assert masked("took 3.14 s") == masked("took 2.7 s")


def test_the_example_in_the_format_is_read():
    (first, second) = commands("```console\n$ diger verify\nall\n[exit 1]\n$ true\n```\n")
    assert (first.line, first.expected, first.exit_code) == ("diger verify", ["all"], 1)
    assert second.expected == []
