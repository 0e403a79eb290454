"""The tokenizer and its warm-up: what it learns, what it survives, and that it is reproducible."""

from __future__ import annotations

import pytest
import torch

from diger_core.config import TokenizerConfig
from diger_core.errors import DigerError
from diger_core.recommender.history_input import input_weights
from diger_core.tokenizer import warm_up
from diger_core.tokenizer.kmeans import kmeans, nearest
from diger_core.tokenizer.rqvae import Tokenizer, choose_codes, mlp, tokenizer_from_state, tokenizer_state
from diger_core.tokenizer.warm_up import tokenizer, warmup_losses

SMALL = TokenizerConfig(levels=2, codes=8, code_dim=6, hidden=(24, 12), epochs=30, batch_size=64, learning_rate=3e-3)


class Recorder:
    def __init__(self) -> None:
        self.messages: list[str] = []
        self.updates: list[tuple[int, int | None]] = []

    def update(self, what: str, done: int, total: int | None = None, **values: float | int | str) -> None:
        self.updates.append((done, total))

    def message(self, text: str) -> None:
        self.messages.append(text)


def clusters(items: int = 400, dim: int = 10, groups: int = 40, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(groups, dim, generator=g)
    return 5 * centres[torch.randint(groups, (items,), generator=g)] + 0.3 * torch.randn(items, dim, generator=g) + 7


@pytest.fixture(scope="module")
def fitted():
    progress = Recorder()
    tok, curves = tokenizer(clusters(), SMALL, progress)
    return tok, curves, progress


def test_the_warm_up_separates_clusters_and_uses_all_codes(fitted):
    tok, curves, _ = fitted
    codes = tok.quantise(tok.encode(clusters()))
    assert len(torch.unique(codes, dim=0)) >= 30  # 40 clusters, 64 tuples
    assert curves[-1]["dead_codes"][0] <= 1
    assert curves[-1]["loss_recon"] < 0.5 * curves[0]["loss_recon"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_captured_steps_warm_up_as_eager_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    replays, graph = [], torch.cuda.CUDAGraph

    class Counted(graph):
        def replay(self) -> None:
            replays.append(self)
            super().replay()

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Counted)
    vectors = clusters().cuda()
    captured, found = tokenizer(vectors, SMALL, device="cuda")
    assert len(replays) == 30 * (400 // 64) - 2 * warm_up._EAGER_STEPS  # the rest of an epoch is no full batch
    monkeypatch.setattr(warm_up, "_EAGER_STEPS", 10**9)
    eager, wanted = tokenizer(vectors, SMALL, device="cuda")
    assert [row["loss"] for row in found] == pytest.approx([row["loss"] for row in wanted], rel=1e-3)
    assert torch.allclose(captured.encode(vectors), eager.encode(vectors), atol=1e-2)


def test_the_state_with_the_fewest_collisions_is_kept(fitted):
    tok, curves, _ = fitted
    kept = 400 - len(torch.unique(tok.quantise(tok.encode(clusters())), dim=0))
    assert kept == min(row["collisions"] for row in curves if row["phase"] == "quantised")


def test_the_input_is_standardised_and_the_statistics_belong_to_the_tokenizer(fitted):
    tok, _, _ = fitted
    x = tok.standardise(clusters())
    assert torch.allclose(x.mean(0), torch.zeros(10), atol=1e-4)
    assert torch.allclose(x.std(0, unbiased=False), torch.ones(10), atol=1e-4)


def test_alpha_is_the_inverse_median_gap_and_is_logged(fitted):
    tok, _, progress = fitted
    d = torch.cdist(tok.encode(clusters()).double(), tok.codebooks[0].double()).square().sort(1).values
    gaps = d[:, 1] - d[:, 0]
    assert float(tok.alpha) == pytest.approx(1 / float(gaps.detach().median()), rel=1e-3)
    assert any(m.startswith(f"alpha = {float(tok.alpha):.6g}") for m in progress.messages)


def test_soft_input_weighs_every_level_by_its_own_gaps_so_that_no_level_is_a_blur(fitted):
    tok, _, _ = fitted
    z_Ne, residual, gaps = tok.encode(clusters()), tok.encode(clusters()), []
    for level in range(tok.levels):
        d = torch.cdist(residual.double(), tok.codebooks[level].double()).square()
        near = d.sort(1).values
        gaps.append(float((near[:, 1] - near[:, 0]).detach().median()))
        residual = residual - tok.codebooks[level][d.argmin(1)]
    assert tok.input_alpha_M.tolist() == pytest.approx([1 / gap for gap in gaps], rel=1e-2)
    own = input_weights(tok, z_Ne, tok.quantise(z_Ne), tau=0.3).gather(2, tok.quantise(z_Ne)[:, :, None])
    assert float(own.detach().mean(0).min()) > 0.7


def test_a_configured_alpha_is_taken_as_it_is():
    tok, _ = tokenizer(clusters(60), TokenizerConfig(levels=1, codes=4, code_dim=2, hidden=(4,), epochs=1, alpha=2.5))
    assert float(tok.alpha) == 2.5


def test_the_warm_up_is_reproducible_and_leaves_the_global_generator_alone(fitted):
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    again, _ = tokenizer(clusters(), SMALL)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a, b) for a, b in zip(fitted[0].state_dict().values(), again.state_dict().values(), strict=True))


@pytest.mark.parametrize(("items", "wanted"), [(2, 2), (9, 2), (20, 4), (300, 64), (1023, 128), (1024, 256), (10**6, 256)])
def test_codes_fit_the_catalogue(items, wanted):
    assert choose_codes(items, TokenizerConfig()) == wanted
    assert choose_codes(items, TokenizerConfig(codes=37)) == 37


@pytest.mark.parametrize("items", [2, 3, 40])
def test_tiny_catalogues_get_a_tokenizer_and_are_told_of_fewer_codes(items):
    progress = Recorder()
    tok, _ = tokenizer(clusters(items), TokenizerConfig(code_dim=4, hidden=(8,), epochs=3), progress)
    assert tok.codes == choose_codes(items, TokenizerConfig())
    assert f"the catalogue has only {items} items" in progress.messages[0]
    assert bool(torch.isfinite(tok.codebooks).all())


def test_more_codes_than_items_is_possible_and_said():
    progress = Recorder()
    tok, _ = tokenizer(clusters(5), TokenizerConfig(levels=2, codes=16, code_dim=4, hidden=(8,), epochs=2), progress)
    assert "some codes will never be used" in progress.messages[0]
    assert len(torch.unique(tok.codebooks[0], dim=0)) == 16


def test_ten_thousand_identical_vectors_and_constant_dimensions_are_survived():
    progress = Recorder()
    x = torch.full((10_000, 6), 0.1)
    tok, _ = tokenizer(x, TokenizerConfig(levels=2, codes=4, code_dim=4, hidden=(8,), epochs=1), progress)
    assert torch.equal(tok.scale_D, torch.ones(6))
    assert bool(torch.isfinite(tok.codebooks).all())
    assert bool(torch.isfinite(tok.alpha))
    assert len(torch.unique(tok.quantise(tok.encode(x)), dim=0)) == 1


def test_a_constant_dimension_beside_others_stays_finite():
    x = clusters(100)
    x[:, 3] = 0.1
    tok, _ = tokenizer(x, TokenizerConfig(levels=1, codes=4, code_dim=2, hidden=(4,), epochs=1))
    assert float(tok.scale_D[3]) == 1.0
    assert float(tok.standardise(x)[:, 3].abs().max()) < 1e-5


def test_weights_of_dimensions_survive_the_standardisation():
    weight = torch.ones(10)
    weight[7:] = 0.25
    x = clusters(100)
    tok, _ = tokenizer(x, TokenizerConfig(levels=1, codes=4, code_dim=2, hidden=(4,), epochs=1), weight_D=weight)
    assert torch.allclose(tok.standardise(x).std(0, unbiased=False), weight, atol=1e-4)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (torch.randn(1, 4), "1 item"),
        (torch.randn(4), "shape"),
        (torch.tensor([[0.0, 1.0], [0.0, float("nan")], [1.0, 2.0]]), "row 1"),
        (torch.tensor([[0.0, 1.0], [0.0, 1.0], [float("inf"), 2.0]]), "row 2"),
    ],
)
def test_vectors_that_cannot_be_tokenized_are_refused_by_row(vectors, message):
    with pytest.raises(DigerError, match=message):
        tokenizer(vectors, SMALL)


def test_the_state_round_trips_and_strangers_are_refused(fitted):
    tok = fitted[0]
    tensors, config = tokenizer_state(tok)
    import json

    back = tokenizer_from_state(tensors, json.loads(json.dumps(config)))
    assert back.config == tok.config
    assert torch.equal(back.quantise(back.encode(clusters())), tok.quantise(tok.encode(clusters())))
    with pytest.raises(DigerError, match="alpha"):
        tokenizer_from_state({k: v for k, v in tensors.items() if k != "alpha"}, config)
    with pytest.raises(DigerError, match="codebooks"):
        tokenizer_from_state({**tensors, "codebooks": tensors["codebooks"][:, :4]}, config)
    with pytest.raises(DigerError, match="extra"):
        tokenizer_from_state({**tensors, "extra": torch.zeros(1)}, config)


def test_a_copied_state_does_not_follow_further_training(fitted):
    tensors, _ = tokenizer_state(fitted[0])
    before = tensors["codebooks"].clone()
    with torch.no_grad():
        fitted[0].codebooks.add_(1.0)
    assert torch.equal(tensors["codebooks"], before)
    with torch.no_grad():
        fitted[0].codebooks.copy_(before)


def test_the_warm_up_loss_is_the_formula_of_the_method():
    torch.manual_seed(1)
    tok, decoder = Tokenizer(5, 4, TokenizerConfig(levels=3, code_dim=3, hidden=(6,))), mlp((3, 6, 5))
    x = torch.randn(20, 5)
    recon, vq = warmup_losses(tok, decoder, x)
    r = z = tok.encoder(x)
    terms, total = [], torch.zeros_like(z)
    for j in range(3):
        c = (r[:, None] - tok.codebooks[j][None]).square().sum(2).argmin(1)
        q = tok.codebooks[j][c]
        terms.append((q - r.detach()).square().mean() + 0.25 * (r - q.detach()).square().mean())
        total, r = total + q, r - q.detach()
    wanted = (decoder(z + (total - z).detach()) - x).square().mean() + torch.stack(terms).mean()
    assert float((recon + vq).detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    parameters = list(tok.parameters())
    for a, b in zip(torch.autograd.grad(recon + vq, parameters), torch.autograd.grad(wanted, parameters), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_kmeans_finds_well_separated_clusters():
    g = torch.Generator().manual_seed(0)
    centres = 10 * torch.randn(12, 5, generator=g)
    points = centres[torch.arange(600) % 12] + 0.1 * torch.randn(600, 5, generator=g)
    _, distances = nearest(points, kmeans(points, 12, torch.Generator().manual_seed(1)))
    assert float(distances.mean()) < 0.1


def test_kmeans_leaves_no_centre_without_points_where_there_are_enough_distinct_ones():
    points = torch.cat([torch.zeros(500, 2), torch.randn(40, 2, generator=torch.Generator().manual_seed(0))])
    labels, _ = nearest(points, kmeans(points, 16, torch.Generator().manual_seed(1)))
    assert len(torch.unique(labels)) == 16


def test_nearest_agrees_with_plain_distances():
    points, centres = torch.randn(50, 4), torch.randn(7, 4)
    labels, distances = nearest(points, centres)
    plain = torch.cdist(points, centres).square()
    assert torch.equal(labels, plain.argmin(1))
    assert torch.allclose(distances, plain.min(1).values, atol=1e-5)
