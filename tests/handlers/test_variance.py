"""An ensemble's variance reaches the output, one map a case."""

from __future__ import annotations

import torch
from monai.engines import SupervisedEvaluator
from monai.inferers import SimpleInferer

from common.handlers.variance import VarianceOutput
from common.inferers.ensemble import EnsembleInferer


class Tilted(torch.nn.Module):
    """Where the image is not zero, what it says depends on the place in the view."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(x), x * torch.arange(3).reshape(3, 1, 1)], 1)


def evaluate(**views: object) -> list[dict[str, torch.Tensor]]:
    """Of an empty image, and one with something in its first plane."""
    inferer = EnsembleInferer(SimpleInferer(), Tilted(), **views)
    image = torch.zeros(2, 1, 3, 3, 3)
    image[1, 0, 0] = 5
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=[{"image": image, "label": image}],
        network=Tilted(),
        inferer=inferer,
        val_handlers=[VarianceOutput(inferer)],
    )
    evaluator.run()
    return evaluator.state.output


def test_one_map_a_case():
    first, second = evaluate(flips=[0])
    assert first["variance"].shape == second["variance"].shape == (1, 3, 3, 3)
    assert not first["variance"].any() and second["variance"][0, 0].all() and not second["variance"][0, 1:].any()


def test_nothing_of_a_single_pass():
    assert all("variance" not in output for output in evaluate())
