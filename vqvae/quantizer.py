"""The codebook: the nearest code of a vector, and how the codes learn.

There are two ways to learn, both published with the VQ-VAE (van den Oord et al., NeurIPS 2017, arXiv
1711.00937):

- ``ema`` (its appendix A.1): each code is the moving average of the vectors nearest to it. The codebook has
  no gradient. This update replaces the codebook term, so only the commitment term remains in the loss.
- ``gradient`` (its equation 3, and the published SISH): codes are ordinary parameters, moved by
  ``|sg[z] - e|^2``.

Statistics are summed over the processes of ``torch.distributed``. Random choices are made on rank 0 and
broadcast. So all ranks have the same codebook; with moving averages it is the codebook that one process would
have learnt from the joined batch.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

CodebookUpdate = Literal["ema", "gradient"]

_LAPLACE = 1e-5  # keeps the average of an unused code finite


def perplexity(counts: Tensor) -> Tensor:
    """Return the number of codes in use: the exponential of the entropy of their shares.

    Parameters
    ----------
    counts : Tensor
        How often each code was chosen, (K,), not negative.

    Returns
    -------
    Tensor
        Scalar, 1 to K; 1 if all counts are 0.

    Examples
    --------
    >>> round(perplexity(torch.tensor([5.0, 5.0, 0.0, 0.0])).item(), 6)
    2.0
    """
    shares = counts.float() / counts.sum().clamp(min=1)
    entropy: Tensor = torch.special.entr(shares).sum()
    return entropy.exp()


@dataclass(frozen=True, slots=True)
class Quantized:
    """A quantised latent grid."""

    vectors: Tensor
    """float32 (N, D, h, w): the code of each position; gradients pass unchanged to the input."""
    codes: Tensor
    """int64 (N, h, w): the index of each position's code."""
    counts: Tensor
    """float32 (K,): how often each code was chosen; in training by all processes together."""
    codebook_loss: Tensor
    """Scalar: mean squared distance that moves the codes (zero under ``ema``)."""
    commitment: Tensor
    """Scalar: mean squared distance that moves the encoder, before the factor beta."""


def _sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sum ``tensor`` over all processes, in place, and return it; one process changes nothing."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def _same_on_all_ranks(tensor: Tensor) -> Tensor:
    """Copy rank 0's ``tensor`` to every process, in place, and return it."""
    if dist.is_available() and dist.is_initialized():
        dist.broadcast(tensor, src=0)
    return tensor


class VectorQuantizer(nn.Module):
    """A codebook of K codes of D numbers each. The first training batch initialises it.

    Examples
    --------
    >>> quantizer = VectorQuantizer(codes=128, dim=64)
    >>> quantized = quantizer(torch.randn(16, 64, 8, 8))
    >>> quantized.vectors.shape, quantized.codes.shape, quantized.counts.shape
    (torch.Size([16, 64, 8, 8]), torch.Size([16, 8, 8]), torch.Size([128]))
    """

    codebook: nn.Parameter
    """float32 (K, D)."""
    ema_counts: Tensor
    """float32 (K,): moving average of how often a batch chooses each code."""
    ema_sums: Tensor
    """float32 (K, D): moving average of the sum of the vectors that chose each code."""
    batches: Tensor
    """int64 scalar: training batches seen; 0: the codebook is not initialised."""

    def __init__(
        self,
        codes: int,
        dim: int,
        *,
        update: CodebookUpdate = "ema",
        decay: float = 0.99,
        revive_below: float = 0.05,
        revive_every: int = 100,
    ) -> None:
        """Make a random codebook.

        Parameters
        ----------
        codes : int
            Number of codes, K.
        dim : int
            Length of a code, D.
        update : {"ema", "gradient"}
            How codes learn; see the module.
        decay : float
            Share of the old value in the moving averages.
        revive_below : float
            A code is dead if its use is below this share of the mean use; 0: never.
        revive_every : int
            Training batches between two searches for dead codes.
        """
        super().__init__()
        self.update = update
        self.decay = decay
        self.revive_below = revive_below
        self.revive_every = revive_every
        # randn and a division would import torch._dynamo on the meta device: a second before each search
        start = torch.normal(0.0, dim**-0.5, (codes, dim))
        self.codebook = nn.Parameter(start, requires_grad=update == "gradient")
        self.register_buffer("ema_counts", torch.ones(codes))
        self.register_buffer("ema_sums", start.clone())
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def nearest(self, vectors: Tensor) -> Tensor:
        """Return the nearest code int64 (M,) of vectors float32 (M, D), the lowest of equally near ones."""
        codebook = self.codebook.detach()
        # |z - e|^2 without |z|^2, which is the same for every code; torch.cdist would round in another way,
        # and stored codes depend on it
        return (codebook.square().sum(1) - 2 * vectors @ codebook.T).argmin(1)

    def forward(self, latent: Tensor) -> Quantized:
        """Quantise a latent grid; in training, learn from it.

        Parameters
        ----------
        latent : Tensor
            float (N, D, h, w): (16, 64, 8, 8) is read as 1,024 vectors of 64 numbers.

        Returns
        -------
        Quantized
            Vectors, codes and losses.
        """
        with torch.autocast(latent.device.type, enabled=False):  # codes must not depend on bf16 rounding
            grid = latent.float().permute(0, 2, 3, 1)
            flat = grid.reshape(-1, grid.shape[-1])
            if self.training and not int(self.batches):
                self._start_from(flat.detach())
            codes = self.nearest(flat.detach())
            counts = torch.bincount(codes, minlength=len(self.codebook)).float()
            chosen = F.embedding(codes, self.codebook)
            commitment = F.mse_loss(flat, chosen.detach())
            if self.update == "gradient":
                codebook_loss = F.mse_loss(chosen, flat.detach())
            else:
                codebook_loss = torch.zeros_like(commitment)
            straight = flat + (chosen - flat).detach()
            if self.training:  # not in evaluation, where one rank alone may draw a picture
                counts = _sum_over_ranks(counts)
                self._learn(flat.detach(), codes, counts)
        vectors = straight.reshape(grid.shape).permute(0, 3, 1, 2)
        return Quantized(vectors, codes.reshape(grid.shape[:-1]), counts, codebook_loss, commitment)

    @torch.no_grad()
    def _learn(self, flat: Tensor, codes: Tensor, counts: Tensor) -> None:
        """Update the averages by one batch, then the codes (under ``ema``), then revive dead codes."""
        sums = _sum_over_ranks(torch.zeros_like(self.ema_sums).index_add_(0, codes, flat))
        self.ema_counts.lerp_(counts, 1 - self.decay)
        self.ema_sums.lerp_(sums, 1 - self.decay)
        if self.update == "ema":
            total = self.ema_counts.sum()
            smooth = (self.ema_counts + _LAPLACE) / (total + len(counts) * _LAPLACE) * total
            self.codebook.copy_(self.ema_sums / smooth[:, None])
        self.batches += 1
        if self.revive_below > 0 and int(self.batches) % self.revive_every == 0:
            self._revive(flat)

    @torch.no_grad()
    def _start_from(self, flat: Tensor) -> None:
        """Initialise the codes with vectors of the first batch: latents lie far from random codes."""
        picked = self._pick(flat, len(self.codebook))
        mean_use = _sum_over_ranks(torch.tensor(float(len(flat)), device=flat.device)) / len(picked)
        self.codebook.copy_(picked)
        self.ema_counts.fill_(float(mean_use))
        self.ema_sums.copy_(picked * mean_use)

    @torch.no_grad()
    def _revive(self, flat: Tensor) -> None:
        """Move dead codes onto vectors of this batch, and set their use to the mean."""
        mean_use = self.ema_counts.mean()
        dead = self.ema_counts < self.revive_below * mean_use
        if not bool(dead.any()):
            return
        picked = self._pick(flat, int(dead.sum()))
        self.codebook[dead] = picked
        self.ema_counts[dead] = mean_use
        self.ema_sums[dead] = picked * mean_use

    def _pick(self, flat: Tensor, count: int) -> Tensor:
        """Return ``count`` random vectors of rank 0's batch (repeated if it is shorter), on every rank."""
        rounds = -(-count // len(flat))
        order = torch.cat([torch.randperm(len(flat), device=flat.device) for _ in range(rounds)])
        return _same_on_all_ranks(flat[order[:count]].contiguous())
