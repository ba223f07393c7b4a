"""The masked autoencoder: its size, patches and their places, what the encoder sees, memory that is traded for time."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from common.errors import InputError
from common.losses.masked_reconstruction import MaskedReconstructionLoss
from common.networks.masked_autoencoder import (
    MaskedAutoencoder,
    gather_tokens,
    masked_tokens,
    patchify,
    unpatchify,
)
from common.transforms.random_masking import RandVisibleTokens

SIZE, PATCH = (4, 8, 12), (2, 4, 4)
TOKENS = 12
SMALL = {
    **{"in_channels": 2, "image_size": SIZE, "patch": PATCH, "width": 24, "layers": 2, "heads": 3, "mlp": 48},
    **{"decoder_width": 20, "decoder_heads": 2},
}


def small(**arguments: object) -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(**{**SMALL, **arguments})


def example(samples: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, and visible tokens that differ from sample to sample."""
    masking = RandVisibleTokens(TOKENS, 0.6)
    masking.set_random_state(seed)
    image = torch.randn(samples, 2, *SIZE, generator=torch.Generator().manual_seed(seed))
    return image, torch.stack([masking.draw() for _ in range(samples)])


def test_the_papers_size():
    with torch.device("meta"):
        network = MaskedAutoencoder()
    assert network.tokens == 8192 and network.grid == (128, 8, 8)
    assert sum(parameter.numel() for parameter in network.parameters()) == 89_916_160
    moved = sum(parameter.numel() for parameter in network.encoder.parameters())
    assert moved == 85_056_000
    with torch.device("meta"):
        assert MaskedAutoencoder(patch=(4, 16, 16)).tokens == 2048


sizes = st.tuples(*[st.integers(1, 3)] * 3)


@given(batch=st.integers(1, 2), channels=st.integers(1, 3), patch=sizes, grid=sizes)
def test_patches_are_put_together_again(batch: int, channels: int, patch: tuple, grid: tuple):
    image = torch.rand(batch, channels, *(edge * count for edge, count in zip(patch, grid, strict=True)))
    patches = patchify(image, patch)
    assert patches.shape == (batch, grid[0] * grid[1] * grid[2], channels * patch[0] * patch[1] * patch[2])
    assert torch.equal(unpatchify(patches, patch, grid), image)
    assert torch.equal(patchify(unpatchify(patches, patch, grid), patch), patches)


def test_a_patch_is_where_the_loop_says():
    image = torch.rand(2, 3, *SIZE)
    d, h, w = PATCH
    for token, (z, y, x) in enumerate(itertools.product(range(2), range(2), range(3))):
        block = image[:, :, z * d : (z + 1) * d, y * h : (y + 1) * h, x * w : (x + 1) * w]
        assert torch.equal(patchify(image, PATCH)[:, token], block.flatten(1))


def test_embedding_is_the_convolution_of_patches():
    network = small()
    image, _ = example()
    as_convolution = torch.nn.functional.conv3d(
        image, network.embedding.weight.reshape(24, 2, *PATCH), network.embedding.bias, stride=PATCH
    )
    torch.testing.assert_close(network.embedding(patchify(image, PATCH)), as_convolution.flatten(2).transpose(1, 2))


@given(tokens=st.integers(2, 30), seed=st.integers(0, 99))
def test_masked_tokens_are_the_others(tokens: int, seed: int):
    masking = RandVisibleTokens(tokens, 0.5)
    masking.set_random_state(seed)
    visible = torch.stack([masking.draw() for _ in range(3)])
    for seen, masked in zip(visible.tolist(), masked_tokens(visible, tokens).tolist(), strict=True):
        assert masked == [number for number in range(tokens) if number not in seen]


def test_without_masking_the_encoder_is_a_plain_transformer():
    network = small().eval()
    image, _ = example()
    all_tokens = torch.arange(TOKENS).expand(2, -1)
    tokens = network.embedding(patchify(image, PATCH)) + network.positions
    torch.testing.assert_close(network.encode(image, all_tokens), network.encoder(tokens))


def test_the_encoder_sees_the_visible_tokens_and_no_others():
    """Its output is that of the whole sequence in which no token may attend to a masked one."""
    network = small(layers=1).eval()
    image, visible = example()
    block = network.encoder.blocks[0]
    for sample in range(2):
        tokens = network.embedding(patchify(image[sample : sample + 1], PATCH)) + network.positions
        hidden = torch.ones(TOKENS, dtype=torch.bool)
        hidden[visible[sample]] = False
        full = network.encoder.norm(block_with_hidden(block, tokens, hidden))[:, visible[sample]]
        torch.testing.assert_close(network.encode(image, visible)[sample : sample + 1], full, atol=1e-5, rtol=1e-4)


def test_masked_pixels_change_nothing_that_is_predicted():
    network = small().eval()
    image, visible = example()
    predicted, masked = network(image, visible)
    patches = patchify(image, PATCH)
    noise = torch.randn_like(patches).scatter(1, visible[:, :, None].expand(-1, -1, patches.shape[2]), 0.0)
    assert torch.equal(network(unpatchify(patches + noise, PATCH, network.grid), visible).predicted, predicted)
    noise = noise.scatter(1, visible[:, :1, None].expand(-1, 1, patches.shape[2]), 1.0)
    assert not torch.equal(network(unpatchify(patches + noise, PATCH, network.grid), visible).predicted, predicted)
    assert predicted.shape == (2, masked.shape[1], 2 * 32) and torch.equal(masked, masked_tokens(visible, TOKENS))


def test_the_decoder_puts_tokens_back_to_their_places():
    network = small().eval()
    with torch.no_grad():
        network.mask_token.normal_()
    _, visible = example()
    encoded = torch.randn(2, visible.shape[1], 24)
    asked = torch.arange(TOKENS).expand(2, -1)
    for sample in range(2):
        numbers = visible[sample].tolist()
        rows = []
        for number in range(TOKENS):
            if number in numbers:
                row = network.decoder_embedding(encoded[sample, numbers.index(number)])
            else:
                row = network.mask_token
            rows.append(row + network.decoder_positions[number])
        expected = network.head(network.decoder(torch.stack(rows)[None]))[0]
        torch.testing.assert_close(network.decode(encoded, visible, asked)[sample], expected, atol=1e-5, rtol=1e-4)


def test_the_order_of_visible_tokens_does_not_matter():
    network = small().eval()
    image, visible = example()
    turned = visible[:, torch.randperm(visible.shape[1], generator=torch.Generator().manual_seed(1))]
    torch.testing.assert_close(network(image, turned).predicted, network(image, visible).predicted)


def test_tokens_at_different_places_differ_by_their_positions():
    for width in (24, 20):
        network = small(width=24, decoder_width=width)
        positions = network.decoder_positions
        assert positions.shape == (TOKENS, width) and not positions.requires_grad
        assert torch.cdist(positions, positions).fill_diagonal_(1).min() > 0.1
    assert not any("positions" in name for name in network.state_dict())


@pytest.mark.parametrize("amp", [False, True])
def test_checkpointing_changes_nothing(amp: bool):
    image, visible = example()
    gradients = []
    for checkpointing in (False, True):
        network = small(checkpointing=checkpointing).train()
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            output = network(image, visible)
        MaskedReconstructionLoss(PATCH)(output, image).backward()
        gradients.append({name: parameter.grad for name, parameter in network.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=0), name


def test_every_parameter_gets_a_gradient():
    """One that gets none would stop a training in several processes."""
    network = small()
    image, visible = example()
    MaskedReconstructionLoss(PATCH)(network(image, visible), image).backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_no_map_of_tokens_by_tokens_is_held():
    """No operation of a training step at 4096 tokens allocates even a tenth of such a map."""
    network = small(in_channels=1, image_size=(64, 32, 32), patch=(1, 4, 4), layers=1)
    image, visible = torch.rand(1, 1, 64, 32, 32), torch.arange(0, 4096, 4)[None]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        MaskedReconstructionLoss((1, 4, 4))(network(image, visible), image).backward()
    largest = max(event.self_cpu_memory_usage for event in profiled.events())
    assert 1e5 < largest < 4 * network.tokens**2 / 10


def test_it_learns_one_volume_by_heart():
    network = small()
    image, _ = example(samples=1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    loss = MaskedReconstructionLoss(PATCH)
    visible = torch.tensor([[0, 4, 7, 9, 11]])
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        losses.append(loss(network(image, visible), image))
        losses[-1].backward()
        optimizer.step()
    assert losses[0] > 0.9 and losses[-1] < 0.1


@pytest.mark.parametrize("shape", [(1, 2, 4, 8, 8), (1, 3, 4, 8, 12), (2, 4, 8, 12)])
def test_images_of_another_shape(shape: tuple[int, ...]):
    with pytest.raises(InputError, match="the network takes"):
        small()(torch.zeros(shape), torch.zeros(1, 1, dtype=torch.int64))


def test_patches_that_do_not_divide_the_crop():
    with pytest.raises(InputError, match=r"patch_size \[4, 8, 12\]: tokens of \[2, 3, 4\] voxels"):
        small(patch=(2, 3, 4))


def block_with_hidden(block: torch.nn.Module, tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """A block on all tokens (1, N, W), none of which attends to those that are hidden (N,)."""
    return block(tokens.transpose(0, 1), src_key_padding_mask=hidden[None]).transpose(0, 1)


def test_gathering():
    tokens = torch.arange(24.0).reshape(2, 4, 3)
    numbers = torch.tensor([[3, 0], [1, 2]])
    assert torch.equal(gather_tokens(tokens, numbers), torch.stack([tokens[b, numbers[b]] for b in range(2)]))
