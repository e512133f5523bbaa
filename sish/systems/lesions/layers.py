"""Features of a picture and the feature maps of a network's layers, for the style score.

`EncoderLayers` takes them from an encoder of this library, `NamedLayers` from any torch network by the names
of its modules. The scores are in `sish.systems.lesions.measures`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from sish.errors import ParameterError

if TYPE_CHECKING:
    import torch

    from sish.vqvae import Encoder


@dataclass(frozen=True, slots=True)
class Activations:
    """What a network makes of one picture."""

    features: NDArray[np.float32]
    """float32 (F,): the feature vector."""
    maps: Mapping[str, NDArray[np.float32]]
    """Feature maps float32 (C, h, w) by the layer's name."""


class LayeredEncoder(Protocol):
    """Anything that returns a feature vector and named feature maps."""

    @property
    def fingerprint(self) -> str:
        """Name of its weights."""

    def activations(self, picture: NDArray[np.uint8]) -> Activations:
        """Run the network on a picture uint8 (H, W, 3)."""


class EncoderLayers:
    """An encoder of this library: the features of its barcode, and all its feature maps by number.

    Pictures are cropped about the centre to a multiple of the encoder's stride.
    """

    def __init__(self, encoder: Encoder | None = None) -> None:
        """Take an encoder, by default the shipped autoencoder."""
        if encoder is None:
            from sish.vqvae import load_encoder

            encoder = load_encoder()
        self._encoder = encoder

    @property
    def fingerprint(self) -> str:
        """That of the encoder."""
        return self._encoder.fingerprint

    def activations(self, picture: NDArray[np.uint8]) -> Activations:
        """Run the encoder on a picture uint8 (H, W, 3) whose sides are at least the stride."""
        height, width = picture.shape[:2]
        stride = self._encoder.stride
        spare_y, spare_x = height % stride, width % stride
        cropped = picture[spare_y // 2 :, spare_x // 2 :][: height - spare_y, : width - spare_x]
        features = self._encoder.features(cropped[None])[0]
        maps = self._encoder.maps(cropped[None])
        return Activations(features, {f"map {number}": layer[0] for number, layer in enumerate(maps)})


class NamedLayers:
    """Any torch network: its output as features, and the outputs of some modules as feature maps.

    >>> import torch
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    >>> seen = NamedLayers(network, ["0"], fingerprint="toy").activations(np.zeros((8, 10, 3), np.uint8))
    >>> seen.features.shape, seen.maps["0"].shape
    ((4,), (4, 6, 8))
    """

    def __init__(
        self,
        network: torch.nn.Module,
        layers: Sequence[str],
        *,
        fingerprint: str,
        prepare: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        """Take a network, and put it into evaluation mode.

        Parameters
        ----------
        network : torch.nn.Module
            The network.
        layers : sequence of str
            Names as in ``network.named_modules()``, of modules that put out (N, C, h, w).
        fingerprint : str
            Name of the weights.
        prepare : callable, optional
            Turns pictures uint8 (N, H, W, 3) into the network's input. Default: float32 (N, 3, H, W) in
            [-1, 1].

        Raises
        ------
        ParameterError
            If the network has no module of a name.
        """
        modules = dict(network.named_modules())
        missing = [name for name in layers if name not in modules]
        if missing or not layers:
            raise ParameterError(
                f"the network has no layer {', '.join(missing) or 'named'}; give some of"
                f" {', '.join(list(modules)[1:9])}, ..."
            )
        self._network = network.eval()
        self._modules = {name: modules[name] for name in layers}
        self._prepare = prepare
        self.fingerprint = fingerprint

    def activations(self, picture: NDArray[np.uint8]) -> Activations:
        """Run the network on a picture uint8 (H, W, 3); average an output over its positions."""
        import torch

        maps: dict[str, NDArray[np.float32]] = {}

        def keeper(name: str) -> Callable[..., None]:
            def keep(_module: object, _inputs: object, out: torch.Tensor) -> None:
                if out.ndim != 4:
                    raise ParameterError(f"layer {name} puts out {tuple(out.shape)}; want (N, C, h, w)")
                maps[name] = out[0].float().cpu().numpy().copy()

            return keep

        hooks = [module.register_forward_hook(keeper(name)) for name, module in self._modules.items()]
        try:
            with torch.inference_mode():
                out = self._network(self._input(torch.from_numpy(picture.copy())[None]))
        finally:
            for hook in hooks:
                hook.remove()
        features = out[0].float().mean((1, 2)) if out.ndim == 4 else out[0].float()
        return Activations(features.flatten().cpu().numpy(), maps)

    def _input(self, pictures: torch.Tensor) -> torch.Tensor:
        if self._prepare is not None:
            return self._prepare(pictures)
        return pictures.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
