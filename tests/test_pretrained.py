"""Pre-trained blocks move by name, all of them and nothing else, and what doesn't fit is refused in one line."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common.errors import InputError
from common.networks.masked_autoencoder import MaskedAutoencoder
from common.networks.masked_unet import MaskedUNet
from common.networks.transunet3d import TransUNet3D
from common.pretrained import transfer_all_but, transfer_blocks

WIDTH, HEADS, MLP = 24, 3, 48


def network(layers: int = 2, width: int = WIDTH, heads: int = HEADS, mlp: int = MLP) -> TransUNet3D:
    return TransUNet3D(
        features=(4, 4, 8, 8), encoder_layers=layers, encoder_width=width, encoder_heads=heads, encoder_mlp=mlp,
        positions=(2, 2, 2),
    )  # fmt: skip


@pytest.fixture
def autoencoder() -> MaskedAutoencoder:
    torch.manual_seed(1)
    made = MaskedAutoencoder(
        4, (8, 8, 8), (2, 4, 4), WIDTH, layers=2, heads=HEADS, mlp=MLP, decoder_width=12, decoder_heads=2
    )
    for parameter in made.parameters():  # so that no tensor is what another network begins with, too
        torch.nn.init.normal_(parameter)
    return made


@pytest.fixture
def path(autoencoder: MaskedAutoencoder, tmp_path: Path) -> Path:
    torch.save({"model": autoencoder.state_dict(), "trained_with": {"encoder_heads": HEADS}}, tmp_path / "p.pt")
    return tmp_path / "p.pt"


def test_blocks_and_norm_move_and_the_rest_stays(autoencoder: MaskedAutoencoder, path: Path):
    target = network()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    transfer = transfer_blocks(target, path)
    after, source = target.state_dict(), autoencoder.state_dict()
    for there, here in transfer.moved.items():
        assert torch.equal(after[here], source[there]) and not torch.equal(before[here], source[there])
        assert here.removeprefix("transformer.") == there
    for name in transfer.stayed:
        assert torch.equal(after[name], before[name])
    assert sorted([*transfer.moved.values(), *transfer.stayed]) == sorted(after)
    assert sorted([*transfer.moved, *transfer.left]) == sorted(source)
    kinds = {name.split(".")[1] for name in transfer.moved}
    assert kinds == {"blocks", "norm"} and len(transfer.moved) == 2 * 12 + 2
    assert {name.split(".")[0] for name in transfer.left} == {
        *("embedding", "decoder_embedding", "mask_token", "decoder", "head")
    }


def test_the_networks_blocks_then_do_what_the_pretrained_did(autoencoder: MaskedAutoencoder, path: Path):
    target = network().eval()
    transfer_blocks(target, path)
    tokens = torch.randn(1, 8, WIDTH)
    assert torch.equal(target.transformer.encoder(tokens), autoencoder.eval().encoder(tokens))


def test_what_is_said(path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        transfer = transfer_blocks(network(), path, tmp_path / "transfer.json")
    first, second, third = caplog.messages
    assert first == f"moved 26 tensors from {path}: blocks.0–1, norm"
    assert second.startswith("left in the file: mask_token, embedding, decoder_embedding, decoder, head; as they were")
    assert "transformer" in second and "input_block" in second
    assert third == f"each name is in {tmp_path}/transfer.json"
    told = json.loads((tmp_path / "transfer.json").read_text())
    assert told == {"from": str(path), **transfer._asdict()}
    assert told["moved"]["encoder.norm.weight"] == "transformer.encoder.norm.weight"
    assert {*told["moved"].values(), *told["stayed"]} == {*network().state_dict()}


def refused(target: torch.nn.Module, path: Path) -> str:
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(InputError) as raised:
        transfer_blocks(target, path)
    assert "\n" not in str(raised.value)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())
    return str(raised.value)


def test_another_depth(path: Path):
    assert refused(network(layers=1), path) == (
        f"{path} has 2 blocks of width 24 and 48, the network 1 block of width 24 and 48: 12 tensors differ, such as "
        "blocks.1.self_attn.in_proj_weight (72×24 in the file, none here); pre-train with the network's "
        "--encoder_layers, --encoder_width and --encoder_mlp, or leave --pretrained out"
    )
    assert "the network 3 blocks of width 24 and 48: 12 tensors differ" in refused(network(layers=3), path)


def test_another_width(path: Path):
    line = refused(network(width=30), path)
    assert "has 2 blocks of width 24 and 48, the network 2 blocks of width 30 and 48" in line
    assert "blocks.0.self_attn.in_proj_weight (72×24 in the file, 90×30 here)" in line


def test_another_hidden_width(path: Path):
    assert "has 2 blocks of width 24 and 48, the network 2 blocks of width 24 and 96" in refused(network(mlp=96), path)


def test_another_number_of_heads_which_no_shape_tells(path: Path):
    assert "pre-trained with 3 heads, and the network has 4" in refused(network(heads=4), path)


def test_a_network_without_blocks(path: Path):
    assert "the network has no transformer encoder" in refused(network(layers=0), path)


def test_other_files(tmp_path: Path):
    target = network()
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    assert "other.pt holds no pre-trained blocks" in refused(target, tmp_path / "other.pt")
    (tmp_path / "broken.pt").write_bytes(b"PK")
    assert "broken.pt holds pickled objects or is damaged" in refused(target, tmp_path / "broken.pt")
    assert "no weights at" in refused(target, tmp_path / "none.pt")


def unet(in_channels: int = 1, features: tuple[int, ...] = (4, 4, 8, 8, 8), seed: int = 0) -> MaskedUNet:
    torch.manual_seed(seed)
    return MaskedUNet(in_channels, features=features)


def test_all_layers_but_the_last_move(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    source, target = unet(seed=1), unet(seed=2)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    torch.save({"model": source.state_dict()}, tmp_path / "p.pt")
    caplog.set_level("INFO")
    transfer = transfer_all_but(target, tmp_path / "p.pt", "final_conv", tmp_path / "transfer.json")
    for name, value in target.state_dict().items():
        kept = name in ("final_conv.weight", "final_conv.bias")
        assert torch.equal(value, before[name] if kept else source.state_dict()[name])
        assert (name in transfer.stayed) == (name in transfer.left) == kept
        assert (transfer.moved.get(name) == name) != kept
    assert "as they were drawn: final_conv" in caplog.text
    assert json.loads((tmp_path / "transfer.json").read_text())["stayed"] == ["final_conv.weight", "final_conv.bias"]


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (lambda: unet(features=(4, 4, 8, 8, 16)), "is of another network: .* tensors differ, such as down_4"),
        (lambda: unet(in_channels=3), r"such as conv_0.* \(4×3×3×3 in the file, 4×1×3×3 here\)"),
        (lambda: torch.nn.Linear(2, 2), "holds no weights of this network"),
    ],
)
def test_weights_of_another_u_net(tmp_path: Path, source: Callable[[], torch.nn.Module], line: str):
    torch.save(source().state_dict(), tmp_path / "p.pt")
    target = unet()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(InputError, match=line):
        transfer_all_but(target, tmp_path / "p.pt", "final_conv", tmp_path / "transfer.json")
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())
    assert not (tmp_path / "transfer.json").exists()
