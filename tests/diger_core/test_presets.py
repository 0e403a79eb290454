from __future__ import annotations

import pytest

from diger_core.errors import DigerError
from diger_core.presets import PRESETS, preset


@pytest.mark.parametrize(
    ("name", "epochs", "beams", "codebook_rate", "tau", "r", "sigma_0", "lambda_"),
    [
        ("beauty", 120, 20, 1e-5, 2.0, 1.5, 2.0, 1.7),
        ("instruments", 100, 20, 2e-5, 2.0, 2.0, 1.0, 1.8),
        ("yelp", 200, 80, 2e-6, 1.5, 1.1, 2.0, 1.7),
    ],
)
def test_the_paper_s_presets_hold_its_numbers(
    name: str, epochs: int, beams: int, codebook_rate: float, tau: float, r: float, sigma_0: float, lambda_: float
) -> None:
    chosen = preset(name)
    assert (chosen.training.epochs, chosen.training.beams, chosen.training.batch_size, chosen.training.patience) == (epochs, beams, 256, 15)
    assert (chosen.training.learning_rate, chosen.training.weight_decay, chosen.training.warmup_steps) == (1e-3, 0.05, 500)
    assert (chosen.joint.codebook_learning_rate, chosen.joint.forward) == (codebook_rate, "cached")
    shape = chosen.recommender
    assert (shape.encoder_layers, shape.decoder_layers, shape.d_model, shape.d_ff, shape.heads, shape.d_head) == (6, 6, 128, 512, 4, 64)
    assert (shape.dropout, shape.history) == (0.1, 50)
    assert (chosen.tokenizer.alpha, chosen.tokenizer.code_dim, chosen.tokenizer.hidden) == (1.0, 256, (2048, 1024, 512))
    frqud, sdud = chosen.variant("frqud").schedule, chosen.variant("sdud").schedule
    assert (frqud.name, frqud.tau, frqud.r) == ("frqud", tau, r)
    assert (sdud.name, sdud.sigma_0, sdud.lambda_) == ("sdud", sigma_0, lambda_)
    both = chosen.variant("sdud+frqud").schedule
    assert (both.name, both.r, both.sigma_0, both.lambda_) == ("sdud+frqud", r, sigma_0, lambda_)


@pytest.mark.parametrize("name", PRESETS)
def test_controls_differ_from_frqud_in_nothing_but_what_they_switch_off(name: str) -> None:
    chosen = preset(name)
    joint, frozen, detached = (chosen.variant(v) for v in ("frqud", "frozen", "detached"))
    assert (frozen.tokenizer, joint.tokenizer) == ("frozen", "joint")
    assert detached.schedule == joint.schedule
    assert (detached.paths.history, detached.paths.teacher, detached.paths.labels) == (False, False, False)
    assert chosen.variant("none").schedule.name == "none"


def test_unknown_names_are_told_with_the_known_ones() -> None:
    with pytest.raises(DigerError, match="beauty, instruments, yelp, small"):
        preset("toys")
    with pytest.raises(DigerError, match="detached"):
        preset("beauty").variant("both")
