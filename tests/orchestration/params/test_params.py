"""params.yaml: a wrong key or value is one line that names it."""

import pytest

from diger_core.errors import DigerError
from orchestration.params.load import build_params, load_params
from orchestration.params.sections import Params


def load(tmp_path, text, *overrides):
    (tmp_path / "p.yaml").write_text(text)
    return load_params(tmp_path / "p.yaml", overrides)


def test_defaults_need_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_params() == Params()


def test_values_and_overrides_are_typed(tmp_path):
    text = "tokenizer: {epochs: 3}\njoint_model: {schedule: {r: .inf}}"
    params = load(tmp_path, text, "training.learning_rate=1e-4", "joint_model.schedule.name=sdud")
    assert params.tokenizer.epochs == 3
    assert params.training.learning_rate == 1e-4
    assert params.joint_model.schedule.name == "sdud"
    assert params.joint_model.schedule.r == float("inf")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tokeniser: {}", "tokeniser: unknown key (did you mean tokenizer?)"),
        ("joint_model: {schedule: {sigma0: 1}}", "joint_model.schedule.sigma0: unknown key (did you mean sigma_0?)"),
        ("tokenizer: {epochs: many}", "tokenizer.epochs = 'many'"),
        ("tokenizer: {epochs: 0}", "tokenizer.epochs = 0: must be at least 1"),
        ("recommender: {dropout: 1.5}", "recommender.dropout = 1.5: must be in [0, 1)"),
        ("joint_model: {schedule: {name: magic}}", "joint_model.schedule.name = 'magic'"),
        ("a: [", "not valid YAML"),
        ("- 1", "must hold sections"),
        ("training:\ntokenizer: {epochs: 3}", "training holds nothing: remove the line, or write its keys below it"),
        ("joint_model: {schedule: }", "joint_model.schedule holds nothing"),
        ("training: 5", "training must hold keys ("),
        ("training: [epochs, 5]", "not a list"),
    ],
)
def test_faults_are_named(tmp_path, text, message):
    with pytest.raises(DigerError) as error:
        load(tmp_path, text)
    assert message in str(error.value)
    assert "p.yaml" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("override", ["training", "training.=1", "training.seed=[", "nothing.here=1"])
def test_wrong_overrides_are_named(tmp_path, override):
    with pytest.raises(DigerError) as error:
        load(tmp_path, "{}", override)
    assert override.split("=")[0].split(".")[0] in str(error.value)


def test_a_missing_params_file_is_named(tmp_path):
    with pytest.raises(DigerError, match=r"none\.yaml: no such file"):
        load_params(tmp_path / "none.yaml")


def test_the_section_of_a_key_holds_only_what_the_stage_depends_on():
    assert set(Params().section(["tokenizer"])) == {"tokenizer"}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("cluster: {address: 'http://user:hunter2@127.0.0.1:8265'}", "cluster.address"),
        ("cluster: {address: ['http://user:hunter2@127.0.0.1:8265']}", "cluster.address[0]"),
        ("cluster: {runtime_env: {env_vars: {DATABASE: 'postgres://u:hunter2@h/x'}}}", "cluster.runtime_env.env_vars.DATABASE"),
        ("cluster: {runtime_env: {pip: ['git+https://hunter2@github.com/a/b']}}", "cluster.runtime_env.pip[0]"),
        ("cluster: {runtime_env: {working_dir: 'https://h/a.zip?token=hunter2'}}", "cluster.runtime_env.working_dir"),
        ("arrival: {watch: 's3://AKIA:hunter2@bucket/in'}", "arrival.watch"),
        ("snapshot: 's3://AKIA:hun/ter2@bucket/in'", "snapshot"),
        ("embeddings: {model: 'https://u:hunter2@h/m'}", "embeddings.model"),
        ("unheard_of: 'https://u:hunter2@h/m'\ntraining: {}", "unheard_of"),
    ],
)
def test_credentials_in_an_address_are_refused_unseen_wherever_they_stand(tmp_path, text, where):
    with pytest.raises(DigerError, match="holds credentials in an address") as error:
        load(tmp_path, text)
    assert f"p.yaml: {where} holds" in str(error.value)
    assert "hunter" not in str(error.value)
    assert "ter2" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["AWS_SECRET_ACCESS_KEY=hunter2", "db: {password: hunter2}", "hunter2: [", "a: *hunter2", "- hunter2", "!hunter2 x", "hunter2: 1: 2", "'hunter2"],
)
def test_nothing_of_a_file_that_is_none_of_params_is_quoted(tmp_path, text):
    with pytest.raises(DigerError, match=r"p\.yaml[:,] ") as error:
        load(tmp_path, text)
    assert "hunter" not in str(error.value)
    assert "password" not in str(error.value)


def test_a_preset_decides_the_method_and_set_counts_after_it(tmp_path, monkeypatch):
    import dataclasses

    import yaml
    from click.testing import CliRunner

    from diger_core.presets import preset
    from orchestration.cli import cli

    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("training: {seed: 7, batch_size: 64}\nrecommender: {d_model: 8, item_tokens: one}\n")
    done = CliRunner().invoke(cli, ["params", "--preset", "beauty", "--set", "training.epochs=3"])
    found, wanted = yaml.safe_load(done.output), preset("beauty")
    assert found["recommender"] == dataclasses.asdict(wanted.recommender)
    assert (found["training"]["epochs"], found["training"]["batch_size"], found["training"]["seed"]) == (3, 256, 7)
    assert found["joint_model"]["codebook_learning_rate"] == 1e-5
    assert CliRunner().invoke(cli, ["params", "--preset", "beauti"]).exit_code != 0


@pytest.mark.parametrize("share", [0, 1, 0.0, 1.0, -0.5, 1.5, "yesterday"])
@pytest.mark.parametrize("key", ["train_until", "validate_until"])
def test_a_share_of_nothing_or_of_everything_splits_nothing(key, share):
    with pytest.raises(DigerError, match=rf"sequences\.{key} = .*above 0 and below 1, or an ISO date"):
        build_params({"sequences": {key: share}})


def test_boundaries_that_do_not_follow_each_other_are_named():
    with pytest.raises(DigerError, match=r"sequences\.validate_until = 0.5.*above train_until, 0.6"):
        build_params({"sequences": {"train_until": 0.6, "validate_until": 0.5}})


def test_a_fault_is_laid_on_the_file_or_on_the_override_that_holds_it(tmp_path):
    with pytest.raises(DigerError, match=r"^--set: training.epochs = 'many'"):
        load(tmp_path, "training:\n  epochs: 3\n", "training.epochs=many")
    with pytest.raises(DigerError, match=r"p\.yaml: training.epochs = 'many'"):
        load(tmp_path, "training:\n  epochs: many\n", "tokenizer.epochs=3")
