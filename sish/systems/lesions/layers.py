"""Networks seen layer by layer: features of a picture, and the maps of its named layers.

What the style score needs (`sish.systems.lesions.measures`). `EncoderLayers` takes them from an encoder of
this library, `NamedLayers` from any torch network by the names of its modules.
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

__all__ = ["EncoderLayers", "LayeredEncoder", "Activations", "NamedLayers"]


@dataclass(frozen=True, slots=True)
class Activations:
    """One picture, as a network sees it."""

    features: NDArray[np.float32]
    """float32 (F,): its feature vector."""
    maps: Mapping[str, NDArray[np.float32]]
    """float32 (C, h, w) by the layer's name."""


class LayeredEncoder(Protocol):
    """Anything that gives a feature vector and named feature maps."""

    @property
    def fingerprint(self) -> str:
        """Name of its weights."""
        ...

    def activations(self, picture: NDArray[np.uint8]) -> Activations:
        """A picture uint8 (H, W, 3) through the network."""
        ...


class EncoderLayers:
    """An encoder of this library: its barcode's features, and all its feature maps by number.

    Pictures are cropped about the centre to a multiple of its stride.
    """

    def __init__(self, encoder: Encoder | None = None) -> None:
        """``encoder`` (None: the shipped one)."""
        if encoder is None:
            from sish.vqvae import load_encoder

            encoder = load_encoder()
        self._encoder = encoder

    @property
    def fingerprint(self) -> str:
        """That of the encoder."""
        return self._encoder.fingerprint

    def activations(self, picture: NDArray[np.uint8]) -> Activations:
        """A picture uint8 (H, W, 3), no side below the stride, through the encoder."""
        height, width = picture.shape[:2]
        stride = self._encoder.stride
        spare_y, spare_x = height % stride, width % stride
        cropped = picture[spare_y // 2 :, spare_x // 2 :][: height - spare_y, : width - spare_x]
        features = self._encoder.features(cropped[None])[0]
        maps = self._encoder.maps(cropped[None])
        return Activations(features, {f"map {number}": layer[0] for number, layer in enumerate(maps)})


class NamedLayers:
    """Any torch network: what its named modules put out, and its own output as features.

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
        """``network`` is put into evaluation mode.

        ``layers`` are names as in ``network.named_modules()``, of modules that put out (N, C, h, w).
        ``prepare`` turns pictures uint8 (N, H, W, 3) into what the network reads (None: float32
        (N, 3, H, W) in [-1, 1]). ParameterError for a layer that is not there.
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
        """A picture uint8 (H, W, 3) through the network; an output with positions is averaged over them."""
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
