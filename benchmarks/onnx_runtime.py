"""How long ONNX Runtime takes for the networks of the five bundles, beside torch, on the CPU.

    python -m benchmarks.onnx_runtime [--bundles cga_unet …] [--rounds 5]

Each network has its bundle's full size, and weights that chance gives. It is exported as
`python -m monai.bundle onnx_export` does. Times are medians over rounds by turns, of one forward of the shape that the
table gives: torch in float32, torch under autocast to bfloat16 as the bundles infer, and ONNX Runtime in float32.
Beside them stands the largest difference of ONNX Runtime's output to torch's in float32.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import onnxruntime
import torch
from monai.bundle import ConfigParser
from monai.networks.utils import convert_to_onnx

from .machine import machine
from .msconvlstm_att_cost import seconds

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
SHAPES = {
    "cga_unet": (1, 4, 64, 64, 64),
    "fancl": (1, 4, 64, 64, 64),
    "mps_ams": (4, 1, 224, 224),
    "msconvlstm_att": (1, 4, 160, 130),
    "transunet3d": (1, 4, 64, 64, 64),
}


@torch.inference_mode()
def compare(bundle: str, rounds: int) -> None:
    """Print the row of a bundle."""
    parser = ConfigParser()
    parser.read_config(BUNDLES / bundle / "configs" / "inference.json")
    torch.manual_seed(0)
    network = parser.get_parsed_content("network_def").eval()
    image = torch.randn(SHAPES[bundle])
    with torch.inference_mode(False):
        content = convert_to_onnx(network, [image.clone()], use_trace=False).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options)
    name = session.get_inputs()[0].name

    def by_runtime() -> torch.Tensor:
        return torch.from_numpy(session.run(None, {name: image.numpy()})[0])

    def in_half() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return network(image)

    difference = float((by_runtime() - network(image)).abs().max())
    times = seconds({"float32": lambda: network(image), "bfloat16": in_half, "onnx": by_runtime}, rounds, image.device)
    shape, ratio = "×".join(map(str, image.shape)), times["onnx"] / times["float32"]
    row = f"{times['float32']:10.3f}{times['bfloat16']:11.3f}{times['onnx']:11.3f}{ratio:8.2f}{difference:12.1e}"
    print(f"{bundle:16}{shape:>16}{row}", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", nargs="+", choices=[*SHAPES], default=[*SHAPES])
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(machine())
    print(f"{'':16}{'shape':>16}{'torch, s':>10}{'bfloat16':>11}{'ONNX, s':>11}{'ratio':>8}{'difference':>12}")
    for bundle in given.bundles:
        compare(bundle, given.rounds)


if __name__ == "__main__":
    main()
