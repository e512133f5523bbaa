"""The code generator for X-rays: from a picture to L bits, learnt from findings.

Haq, Moradi & Wang (poster): a convolutional network is trained to name the findings of an image. The layer
before its output is a sigmoid, and the code of an image is that layer, cut at 0.5. Images with the same
findings need the same activations there, so their codes are near each other.

The poster does not describe the network. Ours is small, for small images (64 px). Each image is standardised,
since exposures differ. The code layer is normalised over the batch before its sigmoid, so that each bit is
set for about half of the images: a bit that is the same for all images tells nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sish.errors import ParameterError, WeightsError, about_its_path
from sish.systems.network_file import MOST_PX, filled, fingerprint_of, read_stored, write_stored
from sish.vqvae.tensor_files import fitting_config

KIND = "sish-codes-1"
"""The kind of these networks in their files."""

_TINY = 1e-3  # the least spread that an image is divided by: one without contrast stays
_BATCH = 64


@dataclass(frozen=True)  # without slots: jsonargparse reads a default dataclass through vars()
class GeneratorConfig:
    """The configuration of the network."""

    name: str = "xray"
    """Name of the architecture; the first part of the fingerprint."""
    bits: int = 64
    """L: bits of a code, a multiple of 8."""
    channels: tuple[int, ...] = (16, 32, 64, 128)
    """Channels of each convolution; after each, the picture is halved."""
    size_px: int = 64
    """Side that images are resized to."""
    dropout: float = 0.2
    """Share of the pooled features that are left out in training."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built (ParameterError)."""
        if self.bits < 8 or self.bits % 8:
            raise ParameterError(f"a code has {self.bits} bits; give a multiple of 8")
        if self.size_px > MOST_PX:
            raise ParameterError(f"size_px is {self.size_px}; give at most {MOST_PX}")
        if not self.channels or min(self.channels) < 1 or self.size_px < 1 << len(self.channels):
            raise ParameterError(
                f"{len(self.channels)} channels {self.channels[:8]} halve an image of {self.size_px} px away;"
                " give fewer, or more px"
            )
        if not 0 <= self.dropout < 1:
            raise ParameterError(f"dropout is {self.dropout}; give a share of at least 0 and below 1")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self) | {"channels": list(self.channels)}


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass through the network."""

    activations: Tensor
    """float (N, L) in (0, 1): the code layer."""
    logits: Tensor
    """float (N, F): the findings, before their sigmoid."""


class CodeNetwork(nn.Module):
    """Convolutions, a mean over positions, the code layer, and one output for each finding."""

    def __init__(self, config: GeneratorConfig, findings: Sequence[str]) -> None:
        """Build the network for ``findings``, at least one, each named once."""
        super().__init__()
        if not findings or len(set(findings)) != len(findings):
            raise ParameterError(f"got the findings {list(findings)}; give one at least, each once")
        self.config = config
        self.findings = tuple(findings)
        layers: list[nn.Module] = []
        for before, after in pairwise((1, *config.channels)):
            layers += [
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
            ]
        self.convolutions = nn.Sequential(*layers)
        self.code = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(config.channels[-1], config.bits),
            nn.BatchNorm1d(config.bits, affine=False),
            nn.Sigmoid(),
        )
        self.output = nn.Linear(config.bits, len(self.findings))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it

    def forward(self, images: Tensor) -> Pass:
        """Compute code activations and findings of images float (N, 1, H, W), of any brightness."""
        spread, mean = torch.std_mean(images, (1, 2, 3), correction=0, keepdim=True)
        maps = self.convolutions((images - mean) / spread.clamp_min(_TINY))
        activations = self.code(maps.mean((2, 3)))
        return Pass(activations, self.output(activations))

    def as_dict(self) -> dict[str, Any]:
        """Return configuration and findings as plain values."""
        return self.config.as_dict() | {"findings": list(self.findings)}


class CodeGenerator:
    """A trained `CodeNetwork` that no longer changes: from grey pictures to codes."""

    def __init__(self, network: CodeNetwork) -> None:
        """Freeze ``network``."""
        self._network = network.eval().requires_grad_(False)
        self.fingerprint = fingerprint_of(network, network.as_dict())

    @property
    def size_px(self) -> int:
        """Side of the square pictures that it reads."""
        return self._network.config.size_px

    @property
    def bits(self) -> int:
        """L: bits of a code."""
        return self._network.config.bits

    @property
    def findings(self) -> tuple[str, ...]:
        """What it was trained to name, in the order of `probabilities`."""
        return self._network.findings

    def codes(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Compute the codes of grey pictures.

        Parameters
        ----------
        images : uint8 (N, size, size)
            Pictures of its size.

        Returns
        -------
        uint8 (N, L / 8)
            Most significant bit first; a bit is 1 if its activation is at least 0.5.
        """
        activations, _ = self._run(images)
        return np.packbits(activations >= 0.5, axis=1)

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probability of each finding, float32 (N, F), of pictures uint8 (N, size, size)."""
        _, logits = self._run(images)
        return torch.from_numpy(logits).sigmoid().numpy()

    def save(self, path: Path, *, training: dict[str, Any] | None = None, inputs: Iterable[Path] = ()) -> str:
        """Write it as safetensors, with facts of its training.

        Parameters
        ----------
        path : Path
            The file to write.
        training : dict of str to object, optional
            Facts of its training, plain values.
        inputs : iterable of Path
            Files that must not be replaced.

        Returns
        -------
        str
            The fingerprint.
        """
        return write_stored(path, KIND, self._network, self._network.as_dict(), training or {}, inputs)

    @torch.inference_mode()
    def _run(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return activations (N, L) and logits (N, F)."""
        side = self.size_px
        if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (side, side):
            raise ParameterError(
                f"wanted grey pictures as uint8 (N, {side}, {side}), got {images.dtype} {images.shape}"
            )
        activations = np.empty((len(images), self.bits), np.float32)
        logits = np.empty((len(images), len(self.findings)), np.float32)
        for start in range(0, len(images), _BATCH):
            part = slice(start, start + _BATCH)
            found: Pass = self._network(torch.from_numpy(images[part].astype(np.float32))[:, None])
            activations[part], logits[part] = found.activations.numpy(), found.logits.numpy()
        return activations, logits


@about_its_path
def load_code_generator(path: str | Path) -> CodeGenerator:
    """Read a code generator from a weights file (.safetensors) or a checkpoint (.ckpt).

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    CodeGenerator
        The code generator, ready to be used; it no longer changes.

    Raises
    ------
    WeightsError
        If the file is missing, or is not of a code generator.

    Examples
    --------
    >>> import tempfile
    >>> made = CodeGenerator(CodeNetwork(GeneratorConfig(channels=(8, 16), size_px=16), ["Mass"]))
    >>> path = Path(tempfile.mkdtemp(), "codes.safetensors")
    >>> made.save(path) == load_code_generator(path).fingerprint
    True
    >>> load_code_generator(path).codes(np.zeros((2, 16, 16), np.uint8)).shape
    (2, 8)
    """
    stored = read_stored(Path(path), KIND)
    default = vars(GeneratorConfig()) | {"findings": ("Mass",)}
    values = fitting_config(stored.path, stored.config, default)
    try:
        findings = values.pop("findings")
        config = GeneratorConfig(**values)
    except (KeyError, TypeError, ParameterError) as error:
        raise WeightsError(f"{path}: its configuration does not fit this release ({error})") from error
    return CodeGenerator(filled(partial(CodeNetwork, config, findings), stored))
