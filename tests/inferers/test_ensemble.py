"""Members and views averaged into one prediction, and their variance: laws that rule the averaging itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SimpleInferer, SlidingWindowInferer
from monai.transforms import MeanEnsemble, VoteEnsemble

from common.errors import InputError
from common.inferers.ensemble import EnsembleInferer
from common.inferers.mixed_precision import MixedPrecisionInferer

IMAGE = torch.rand(1, 4, 7, 6, 5, generator=torch.Generator().manual_seed(0))


def make_network(seed: int) -> torch.nn.Module:
    """Takes notice of where things are: not the same for a flipped image."""
    torch.manual_seed(seed)
    network = torch.nn.Sequential(torch.nn.Conv3d(4, 6, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(6, 4, 1))
    return network.requires_grad_(False).eval()


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., list[str]]:
    """Writes the weights of networks made from seeds, and gives the paths."""

    def save(*seeds: int) -> list[str]:
        paths = [tmp_path / f"{number}-{seed}.pt" for number, seed in enumerate(seeds)]
        for seed, path in zip(seeds, paths, strict=True):
            torch.save(make_network(seed).state_dict(), path)
        return [str(path) for path in paths]

    return save


def ensemble(members: Sequence[str] = (), **options: object) -> EnsembleInferer:
    return EnsembleInferer(SimpleInferer(), make_network(99), members, **options)


def probabilities(inferer: EnsembleInferer, seed: int = 99) -> torch.Tensor:
    return inferer(IMAGE, make_network(seed)).softmax(1)


def test_ensemble_of_one_is_the_network_to_the_bit(saved: Callable[..., list[str]]):
    alone = ensemble(saved(1))
    assert torch.equal(alone(IMAGE, make_network(99)), make_network(1)(IMAGE)) and alone.variance is None
    without = ensemble()
    assert torch.equal(without(IMAGE, make_network(2)), make_network(2)(IMAGE)) and without.variance is None


@pytest.mark.parametrize("combine", ["mean", "logits", "vote"])
def test_channels_with_a_sigmoid_each(saved: Callable[..., list[str]], combine: str):
    inferer = ensemble(saved(1, 2, 3), combine=combine, sigmoid=True)
    found = inferer(IMAGE, make_network(99)).sigmoid()
    maps = torch.stack([make_network(seed)(IMAGE).sigmoid() for seed in (1, 2, 3)])
    if combine == "vote":
        maps = (maps > 0.5).float()
    mean = maps.logit().mean(0).sigmoid() if combine == "logits" else maps.mean(0)
    torch.testing.assert_close(found, mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(inferer.variance, maps.var(0, unbiased=False).sum(1, keepdim=True), rtol=1e-5, atol=1e-6)
    assert found.isfinite().all()


@pytest.mark.parametrize("combine", ["mean", "logits", "vote"])
def test_members_that_are_alike_change_nothing(saved: Callable[..., list[str]], combine: str):
    inferer = ensemble(saved(1, 1, 1), combine=combine)
    output = inferer(IMAGE, make_network(99))
    logits = make_network(1)(IMAGE)
    assert torch.equal(output.argmax(1), logits.argmax(1))
    assert inferer.variance is not None and not inferer.variance.any()
    if combine != "vote":
        # The average is the network's own to the bit; its logarithm costs the last digits.
        torch.testing.assert_close(output.softmax(1), logits.softmax(1), atol=1e-6, rtol=0)
    else:
        assert output.softmax(1).amax(1).min() == 1


@pytest.mark.parametrize("combine", ["mean", "logits", "vote"])
@pytest.mark.parametrize("views", [{}, {"flips": [0, 2], "rotations": True}], ids=str)
def test_order_of_members_is_nothing_to_the_bit(
    saved: Callable[..., list[str]], combine: str, views: dict[str, object]
):
    paths = saved(1, 2, 3)
    results = []
    for given in (paths, paths[::-1], [paths[1], paths[2], paths[0]]):
        inferer = ensemble(given, combine=combine, **views)
        results.append((inferer(IMAGE, make_network(99)), inferer.variance))
    for output, variance in results[1:]:
        assert torch.equal(output, results[0][0]) and torch.equal(variance, results[0][1])


def test_logits_against_a_list_of_all_maps(saved: Callable[..., list[str]]):
    inferer = ensemble(saved(1, 2, 3), combine="logits", flips=[0, 2])
    maps = torch.stack([v.undo(make_network(s)(v.apply(IMAGE))) for s in (1, 2, 3) for v in inferer.views])
    found = inferer(IMAGE, make_network(99))
    torch.testing.assert_close(found, maps.mean(0), atol=1e-6, rtol=1e-5)
    variance = maps.softmax(2).var(0, correction=0).sum(1, keepdim=True)
    torch.testing.assert_close(inferer.variance, variance, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("views", [{}, {"flips": [1]}, {"flips": [0, 1, 2]}, {"rotations": True}], ids=str)
def test_mean_and_variance_against_a_list_of_all_maps(saved: Callable[..., list[str]], views: dict[str, object]):
    inferer = ensemble(saved(1, 2, 3), **views)
    maps = []
    for seed in (1, 2, 3):
        for view in inferer.views:
            maps.append(view.undo(make_network(seed)(view.apply(IMAGE)).softmax(1)))
    assert len(maps) == 3 * len(inferer.views)
    found = probabilities(inferer)
    torch.testing.assert_close(found, MeanEnsemble()(maps), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        inferer.variance, torch.stack(maps).var(0, correction=0).sum(1, keepdim=True), atol=1e-6, rtol=1e-4
    )
    assert inferer.variance.shape == (1, 1, 7, 6, 5) and inferer.variance.max() > 1e-5


def test_votes_are_those_of_monai_and_are_counted(saved: Callable[..., list[str]]):
    inferer = ensemble(saved(1, 2, 3), combine="vote")
    labels = [make_network(seed)(IMAGE).argmax(1, keepdim=True) for seed in (1, 2, 3)]
    shares = probabilities(inferer)
    for label in range(4):
        expected = sum((each == label).float() for each in labels) / 3
        torch.testing.assert_close(shares[:, label : label + 1], expected, atol=1e-6, rtol=0)
    voted = VoteEnsemble(num_classes=4)([label[0] for label in labels])
    assert torch.equal(shares[0].argmax(0, keepdim=True), voted.long())
    one_against_two = shares.amax(1, keepdim=True).sub(2 / 3).abs() < 1e-6
    assert one_against_two.any()
    torch.testing.assert_close(
        inferer.variance[one_against_two], torch.full_like(inferer.variance, 4 / 9)[one_against_two]
    )


@pytest.mark.parametrize(("members", "views"), [(6, {}), (1, {"flips": [0], "rotations": True}), (3, {"flips": [1]})])
def test_the_first_of_the_classes_that_tie_wins(
    saved: Callable[..., list[str]], members: int, views: dict[str, object]
):
    seeds = range(1, members + 1)
    inferer = ensemble(saved(*seeds), combine="vote", **views)
    outputs = (view.undo(make_network(seed)(view.apply(IMAGE))) for seed in seeds for view in inferer.views)
    votes = sum(torch.nn.functional.one_hot(output.argmax(1), 4) for output in outputs).movedim(-1, 1)
    tied = (votes == votes.amax(1, keepdim=True)).sum(1) > 1
    assert tied.any()
    logarithms = inferer(IMAGE, make_network(99))
    for found in (logarithms, logarithms.softmax(1)):
        assert torch.equal(found.argmax(1), votes.argmax(1))


@pytest.mark.parametrize("views", [{"flips": [0]}, {"flips": [0, 1, 2]}, {"flips": [2], "rotations": True}], ids=str)
def test_views_of_a_network_that_commutes_with_them_are_the_plain_output(views: dict[str, object]):
    """A network that sees single voxels, and means over blocks of three in all directions alike."""

    class Symmetric(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            blocks = torch.nn.functional.avg_pool3d(x, 3, stride=1, padding=1)
            return torch.sin(7 * x) + 5 * blocks

    inferer = EnsembleInferer(SimpleInferer(), Symmetric(), **views)
    found = inferer(IMAGE, Symmetric())
    torch.testing.assert_close(found.softmax(1), Symmetric()(IMAGE).softmax(1), atol=1e-6, rtol=0)
    assert inferer.variance.max() < 1e-10
    # And the same views tell a network that doesn't.
    different = ensemble(**views)
    assert (probabilities(different) - make_network(99)(IMAGE).softmax(1)).abs().max() > 1e-3


def test_around_mixed_precision_and_windows(saved: Callable[..., list[str]]):
    windows = SlidingWindowInferer((4, 4, 4), overlap=0.25, mode="gaussian")
    paths = saved(1, 2)
    inferer = EnsembleInferer(MixedPrecisionInferer(windows), make_network(99), paths, flips=[0])
    output = inferer(IMAGE, make_network(99))
    assert output.dtype == torch.float32 and output.shape == (1, 4, 7, 6, 5)
    exact = EnsembleInferer(windows, make_network(99), paths, flips=[0])(IMAGE, make_network(99))
    torch.testing.assert_close(output.softmax(1), exact.softmax(1), atol=0.02, rtol=0)


def test_metadata_and_batches_go_through(saved: Callable[..., list[str]]):
    affine = torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0], dtype=torch.float64))
    image = MetaTensor(IMAGE.expand(2, -1, -1, -1, -1), affine=affine)
    for inferer in (ensemble(saved(1)), ensemble(saved(1, 2), flips=[1])):
        output = inferer(image, make_network(99))
        assert isinstance(output, MetaTensor) and torch.equal(output.affine, affine)
        assert torch.equal(output[0].as_tensor(), output[1].as_tensor())
    assert isinstance(inferer.variance, MetaTensor) and inferer.variance.shape == (2, 1, 7, 6, 5)


def test_every_member_is_checked_before_any_case(saved: Callable[..., list[str]], tmp_path: Path):
    good = saved(1, 2)
    other = tmp_path / "other.pt"
    torch.save(torch.nn.Conv3d(4, 4, 1).state_dict(), other)
    with pytest.raises(InputError, match=r"other\.pt is of another network: "):
        ensemble([*good, str(other)])
    other.write_bytes(Path(good[0]).read_bytes()[:500])
    with pytest.raises(InputError, match=r"other\.pt .*damaged"):
        ensemble([*good, str(other)])
    with pytest.raises(InputError, match=r"no file fits .*none\.pt; give checkpoints"):
        ensemble([*good, str(tmp_path / "none.pt")])
    with pytest.raises(InputError, match="combine is 'median': give one of mean, logits, vote"):
        ensemble(good, combine="median")


def test_members_trained_with_other_settings_are_refused(saved: Callable[..., list[str]]):
    first, second = saved(1, 2)
    torch.save({"model": torch.load(second, weights_only=True), "trained_with": {"rate": 4}}, second)
    ensemble([first, second], trained_with={"rate": 4})
    with pytest.raises(InputError, match=rf"{second} was trained with rate 4: say --rate 4, not 8"):
        ensemble([first, second], trained_with={"rate": 8})


def test_checking_leaves_the_network_alone(saved: Callable[..., list[str]]):
    network = make_network(99)
    EnsembleInferer(SimpleInferer(), network, saved(1, 2))
    assert torch.equal(network[0].weight, make_network(99)[0].weight)
