"""Transformer blocks, positions, and the vision transformer of a bottleneck."""

from __future__ import annotations

from math import cos, sin
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from common.errors import InputError
from common.networks.vision_transformer import (
    BottleneckTransformer,
    TransformerBlocks,
    interpolate_positions,
    sine_cosine_positions,
)

GRID = (2, 3, 4)
grids = st.tuples(*[st.integers(1, 5)] * 3)


def small(**arguments: object) -> BottleneckTransformer:
    torch.manual_seed(0)
    plan = {"channels": 5, "positions": GRID, "width": 24, "layers": 2, "heads": 3, "mlp": 48}
    return BottleneckTransformer(**{**plan, **arguments})


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_papers_size() -> None:
    with torch.device("meta"):
        assert parameters(TransformerBlocks().blocks) == 85_054_464
        assert parameters(TransformerBlocks()) == 85_056_000
        assert parameters(BottleneckTransformer()) == 85_056_000 + 64 * 768 + 321 * 768 + 769 * 320


def test_names_of_the_weights() -> None:
    assert {name.split(".")[0] for name in TransformerBlocks(24, 2, 3, 48).state_dict()} == {"blocks", "norm"}
    assert "encoder.blocks.1.linear1.weight" in small().state_dict()


def test_blocks_by_their_equations() -> None:
    torch.manual_seed(0)
    blocks, tokens = TransformerBlocks(24, 2, 3, 48, dropout=0.1).eval(), torch.randn(2, 7, 24)
    for parameter in blocks.parameters():
        nn.init.normal_(parameter, std=0.3)
    z = tokens
    for block in blocks.blocks:
        normed = block.norm1(z)
        q, k, v = (normed @ block.self_attn.in_proj_weight.T + block.self_attn.in_proj_bias).chunk(3, dim=2)
        heads = []
        for part in range(0, 24, 8):  # Eq. 2
            scores = torch.einsum("bic,bjc->bij", q[..., part : part + 8], k[..., part : part + 8]) / 8**0.5
            heads.append(torch.einsum("bij,bjc->bic", scores.softmax(2), v[..., part : part + 8]))
        z = block.self_attn.out_proj(torch.cat(heads, dim=2)) + z
        z = block.linear2(F.gelu(block.linear1(block.norm2(z)))) + z  # Eq. 3
    torch.testing.assert_close(blocks(tokens), blocks.norm(z))


class LargestTensor(TorchDispatchMode):
    """Notes how many values the largest tensor has that any operation makes."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return result


@pytest.mark.parametrize("training", [False, True])
def test_no_map_of_tokens_by_tokens_is_made(training: bool) -> None:
    blocks, tokens = TransformerBlocks(12, 1, 2, 24, dropout=0.1).train(training), torch.randn(1, 500, 12)
    with LargestTensor() as noted, torch.set_grad_enabled(training):
        blocks(tokens).sum().backward() if training else blocks(tokens)
    assert 500 * 24 <= noted.largest < 500 * 500


def test_dropout_is_for_training_only() -> None:
    network, x = small(dropout=0.5), torch.randn(1, 5, *GRID)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


def test_checkpointing_changes_no_gradient() -> None:
    gradients, calls = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = TransformerBlocks(24, 2, 3, 48, dropout=0.2, checkpointing=checkpointing)
        block = network.blocks[0]
        with patch.object(block, "forward", wraps=block.forward) as forward:
            network(torch.ones(1, 5, 24)).square().sum().backward()
        calls.append(forward.call_count)
        gradients.append([parameter.grad for parameter in network.parameters()])
    assert calls == [1, 2]
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


def test_gradients_reach_all_parameters() -> None:
    network = small()
    network(torch.randn(2, 5, *GRID)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_positions_count_from_the_start() -> None:
    # A map that is the same everywhere stays so without positions.
    network, x = small().eval(), torch.ones(1, 5, *GRID)
    assert network(x).flatten(2).std(2).mean() > 1e-3
    nn.init.zeros_(network.positions)
    assert network(x).flatten(2).std(2).max() < 1e-5


def test_learned_positions_at_their_own_grid() -> None:
    positions = torch.randn(1, 6, *GRID)
    assert interpolate_positions(positions, GRID) is positions
    network, x = small().eval(), torch.randn(1, 5, *GRID)
    tokens = (network.embedding(x) + network.positions).flatten(2).transpose(1, 2)
    expected = network.projection(network.encoder(tokens).transpose(1, 2).reshape(1, 24, *GRID))
    torch.testing.assert_close(network(x), expected)


@settings(deadline=None)
@given(old=grids, new=grids, slope=st.tuples(*[st.floats(-2, 2)] * 3))
def test_positions_that_grow_along_an_axis_do_so_at_another_grid(old: tuple, new: tuple, slope: tuple) -> None:
    """Trilinear: a linear function of the place within the crop stays it, except at the outermost half cells."""

    def linear(grid: tuple, limits: tuple | None) -> torch.Tensor:
        total = torch.zeros(1, 1, *grid)
        for axis, (size, factor) in enumerate(zip(grid, slope, strict=True)):
            place = (torch.arange(size) + 0.5) / size
            if limits is not None:  # beyond the centres of the old cells, the last of them holds
                place = place.clamp(0.5 / limits[axis], 1 - 0.5 / limits[axis])
            total = total + factor * place.reshape([size if other == axis else 1 for other in range(3)])
        return total

    found = interpolate_positions(linear(old, None), new)
    torch.testing.assert_close(found, linear(new, old), rtol=0, atol=1e-5)


@pytest.mark.parametrize("grid", [(1, 1, 2), (4, 3, 2), (5, 7, 1)])
def test_maps_of_any_grid(grid: tuple[int, int, int]) -> None:
    network = small()
    assert network(torch.randn(2, 5, *grid)).shape == (2, 5, *grid)


@settings(max_examples=40, deadline=None)
@given(grid=grids, width=st.integers(6, 40), step=st.sampled_from([1, 2, 8]))
def test_sine_cosine_positions_by_loops(grid: tuple, width: int, step: int) -> None:
    found, each = sine_cosine_positions(grid, width, step), width // 6
    assert found.shape == (grid[0] * grid[1] * grid[2], width) and found.dtype == torch.float32
    row = 0
    for z in range(grid[0]):
        for y in range(grid[1]):
            for x in range(grid[2]):
                expected = []
                for cell in (z, y, x):
                    angles = [((cell + 0.5) * step - 0.5) / 10000 ** (number / each) for number in range(each)]
                    expected += [sin(angle) for angle in angles] + [cos(angle) for angle in angles]
                expected += [0.0] * (width - 6 * each)
                torch.testing.assert_close(found[row], torch.tensor(expected), rtol=0, atol=1e-5)
                row += 1


def test_sine_cosine_positions_differ() -> None:
    positions = sine_cosine_positions((8, 6, 7), 24)
    assert torch.cdist(positions, positions).add(torch.eye(8 * 6 * 7)).min() > 0.05


def test_bfloat16_is_close_to_float32() -> None:
    network, x = small().eval(), torch.randn(2, 5, *GRID)
    with torch.autocast("cpu"):
        half = network(x)
    single = network(x)
    assert 0 < (half - single).norm() < 0.03 * single.norm()


@pytest.mark.parametrize(
    "arguments", [{"layers": 0}, {"heads": 5}, {"positions": (4, 4)}, {"positions": (4, 0, 4)}, {"width": 25}]
)
def test_arguments_outside_their_range(arguments: dict) -> None:
    with pytest.raises(InputError) as caught:
        small(**arguments)
    assert "\n" not in str(caught.value)
