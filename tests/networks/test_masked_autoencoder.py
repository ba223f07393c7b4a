"""The masked autoencoder: its size, patches and their places, what the encoder sees, memory that is traded for time."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from common.errors import InputError
from common.losses.masked_reconstruction import MaskedReconstructionLoss
from common.networks.adaptive_masking import AdaptiveMasking, lesion_patches
from common.networks.masked_autoencoder import MaskedAutoencoder
from common.networks.patches import gather_tokens, patchify, unpatchify

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
    """Images, and a number for each token."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(samples, 2, *SIZE, generator=generator)
    return image, torch.rand(samples, TOKENS, generator=generator)


def seen_with(noise: torch.Tensor) -> torch.Tensor:
    """The numbers (B, V) of the tokens that aren't among the nine of twelve with the smallest numbers, rising."""
    return noise.argsort(dim=1)[:, 9:].sort(dim=1).values


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


def test_three_quarters_are_masked_those_with_the_smallest_numbers():
    image, noise = example()
    masked = small()(image, noise).masked
    assert torch.equal(masked, noise.argsort(dim=1)[:, :9].sort(dim=1).values)


def test_adaptive_masking_of_volumes():
    """MPS-AMS's masking in place of chance and a fixed ratio."""
    network = small(masking=AdaptiveMasking(PATCH, growth=4.0))
    image, noise = example()
    image[:, :, 2:, :4, 4:8] += 3
    likely = lesion_patches(image, PATCH)
    assert likely[:, 7].all() and (likely.sum(dim=1) <= 3).all()
    assert (network(image, noise).masked == 7).any(dim=1).all()  # though only three of twelve are masked
    for epoch, count in ((0, 3), (3, int(12 * (0.25 + math.log(4) / 4)))):
        network.masking.set_epoch(epoch)
        assert network(image, noise).masked.shape == (2, count)
    assert network.eval()(image, noise).masked.shape == (2, 9)


def test_without_masking_the_encoder_is_a_plain_transformer():
    network = small().eval()
    image, _ = example()
    all_tokens = torch.arange(TOKENS).expand(2, -1)
    tokens = network.embedding(patchify(image, PATCH)) + network.positions
    torch.testing.assert_close(network.encode(image, all_tokens), network.encoder(tokens))


def test_the_encoder_sees_the_visible_tokens_and_no_others():
    """Its output is that of the whole sequence in which no token may attend to a masked one."""
    network = small(layers=1).eval()
    image, noise = example()
    visible = seen_with(noise)
    block = network.encoder.blocks[0]
    for sample in range(2):
        tokens = network.embedding(patchify(image[sample : sample + 1], PATCH)) + network.positions
        hidden = torch.ones(TOKENS, dtype=torch.bool)
        hidden[visible[sample]] = False
        full = network.encoder.norm(block_with_hidden(block, tokens, hidden))[:, visible[sample]]
        torch.testing.assert_close(network.encode(image, visible)[sample : sample + 1], full, atol=1e-5, rtol=1e-4)


def test_masked_pixels_change_nothing_that_is_predicted():
    network = small().eval()
    image, noise = example()
    predicted = network(image, noise).predicted
    assert predicted.shape == (2, 9, 2 * 32)
    patches, visible = patchify(image, PATCH), seen_with(noise)
    changed = torch.randn_like(patches).scatter(1, visible[:, :, None].expand(-1, -1, patches.shape[2]), 0.0)
    assert torch.equal(network(unpatchify(patches + changed, PATCH, network.grid), noise).predicted, predicted)
    changed = changed.scatter(1, visible[:, :1, None].expand(-1, 1, patches.shape[2]), 1.0)
    assert not torch.equal(network(unpatchify(patches + changed, PATCH, network.grid), noise).predicted, predicted)


def test_the_decoder_puts_tokens_back_to_their_places():
    network = small().eval()
    with torch.no_grad():
        network.mask_token.normal_()
    visible = seen_with(example()[1])
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
    image, noise = example()
    visible = seen_with(noise)
    turned = visible[:, [2, 0, 1]]
    asked = torch.arange(TOKENS).expand(2, -1)
    made = [network.decode(network.encode(image, numbers), numbers, asked) for numbers in (visible, turned)]
    torch.testing.assert_close(made[1], made[0])


def test_tokens_at_different_places_differ_by_their_positions():
    for width in (24, 20):
        network = small(width=24, decoder_width=width)
        positions = network.decoder_positions
        assert positions.shape == (TOKENS, width) and not positions.requires_grad
        assert torch.cdist(positions, positions).fill_diagonal_(1).min() > 0.1
    assert not any("positions" in name for name in network.state_dict())


@pytest.mark.parametrize("amp", [False, True])
def test_checkpointing_changes_nothing(amp: bool):
    image, noise = example()
    gradients = []
    for checkpointing in (False, True):
        network = small(checkpointing=checkpointing).train()
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            output = network(image, noise)
        MaskedReconstructionLoss(PATCH)(output, image).backward()
        gradients.append({name: parameter.grad for name, parameter in network.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=0), name


def test_every_parameter_gets_a_gradient():
    """One that gets none would stop a training in several processes."""
    network = small()
    image, noise = example()
    MaskedReconstructionLoss(PATCH)(network(image, noise), image).backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_no_map_of_tokens_by_tokens_is_held():
    """No operation of a training step at 4096 tokens allocates even a tenth of such a map."""
    network = small(in_channels=1, image_size=(64, 32, 32), patch=(1, 4, 4), layers=1)
    image, noise = torch.rand(1, 1, 64, 32, 32), torch.rand(1, 4096)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        MaskedReconstructionLoss((1, 4, 4))(network(image, noise), image).backward()
    largest = max(event.self_cpu_memory_usage for event in profiled.events())
    assert 1e5 < largest < 4 * network.tokens**2 / 10


def test_it_learns_one_volume_by_heart():
    network = small()
    image, _ = example(samples=1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    loss = MaskedReconstructionLoss(PATCH)
    noise = torch.rand(1, TOKENS, generator=torch.Generator().manual_seed(1))
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        losses.append(loss(network(image, noise), image))
        losses[-1].backward()
        optimizer.step()
    assert losses[0] > 0.9 and losses[-1] < 0.1


@pytest.mark.parametrize("shape", [(1, 2, 4, 8, 8), (1, 3, 4, 8, 12), (2, 4, 8, 12)])
def test_images_of_another_shape(shape: tuple[int, ...]):
    with pytest.raises(InputError, match="the network takes"):
        small()(torch.zeros(shape), torch.zeros(1, TOKENS))


def test_patches_that_do_not_divide_the_crop():
    with pytest.raises(InputError, match=r"patch_size \[4, 8, 12\]: tokens of \[2, 3, 4\] voxels"):
        small(patch=(2, 3, 4))
    with pytest.raises(InputError, match=r"patch_size \[4, 8, 12\]: makes 1 token"):
        small(patch=SIZE)


def block_with_hidden(block: torch.nn.Module, tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """A block on all tokens (1, N, W), none of which attends to those that are hidden (N,)."""
    return block(tokens.transpose(0, 1), src_key_padding_mask=hidden[None]).transpose(0, 1)


def test_gathering():
    tokens = torch.arange(24.0).reshape(2, 4, 3)
    numbers = torch.tensor([[3, 0], [1, 2]])
    assert torch.equal(gather_tokens(tokens, numbers), torch.stack([tokens[b, numbers[b]] for b in range(2)]))
