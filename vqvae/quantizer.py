"""The codebook: nearest code of a vector, and how the codes learn.

Two ways to learn, both published with the VQ-VAE (van den Oord et al., NeurIPS 2017, arXiv 1711.00937):

- ``ema`` (its appendix A.1): each code is the moving average of the vectors that chose it. The codebook
  has no gradient; the codebook term of the loss *is* this update, so only commitment remains in the loss.
- ``gradient`` (its equation 3, and the published SISH): codes are ordinary parameters, moved by
  ``|sg[z] - e|^2``.

Statistics are summed over the processes of ``torch.distributed`` before they are used, and random choices
are made on rank 0 and broadcast, so all ranks hold the same codebook, and for the moving averages the one
that a single process would have on the joined batch.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["CodebookUpdate", "Quantized", "VectorQuantizer", "perplexity"]

CodebookUpdate = Literal["ema", "gradient"]

_LAPLACE = 1e-5  # keeps the moving average of an unused code finite


def perplexity(counts: Tensor) -> Tensor:
    """How many codes are in use, as the exponential of the entropy of their shares: 1 to K.

    ``counts`` is (K,), any non-negative numbers. Without counts the answer is 1 (nothing is one choice).

    >>> round(perplexity(torch.tensor([5.0, 5.0, 0.0, 0.0])).item(), 6)
    2.0
    """
    shares = counts.float() / counts.sum().clamp(min=1)
    entropy: Tensor = torch.special.entr(shares).sum()
    return entropy.exp()


@dataclass(frozen=True, slots=True)
class Quantized:
    """What the quantizer makes of a latent grid."""

    vectors: Tensor
    """float32 (N, D, h, w): the code of each position; its gradient goes straight through to the input."""
    codes: Tensor
    """int64 (N, h, w): the number of each position's code."""
    counts: Tensor
    """float32 (K,): how often each code was chosen; in training over all processes, else in this one."""
    codebook_loss: Tensor
    """Scalar: mean squared distance that moves the codes (zero under ``ema``)."""
    commitment: Tensor
    """Scalar: mean squared distance that moves the encoder, before the factor beta."""


def _sum_over_ranks(tensor: Tensor) -> Tensor:
    """``tensor`` summed over all processes, in place; unchanged where there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def _same_on_all_ranks(tensor: Tensor) -> Tensor:
    """Rank 0's ``tensor``, in place, on every process."""
    if dist.is_available() and dist.is_initialized():
        dist.broadcast(tensor, src=0)
    return tensor


class VectorQuantizer(nn.Module):
    """A codebook of K codes with D numbers each, started from the first batch that it sees in training."""

    codebook: nn.Parameter
    """float32 (K, D)."""
    ema_counts: Tensor
    """float32 (K,): moving average of how often a batch chooses each code."""
    ema_sums: Tensor
    """float32 (K, D): moving average of the sum of the vectors that chose each code."""
    batches: Tensor
    """int64 scalar: training batches seen; 0 = the codebook has not been started."""

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
        """A code is dead if its use is below the share ``revive_below`` of the mean use (0: never)."""
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
        """The code nearest to each vector: float32 (M, D) to int64 (M,); ties go to the lower number."""
        codebook = self.codebook.detach()
        # |z - e|^2 without |z|^2, which is the same for every code
        return (codebook.square().sum(1) - 2 * vectors @ codebook.T).argmin(1)

    def forward(self, latent: Tensor) -> Quantized:
        """Quantise a latent grid, float (N, D, h, w); in training, learn from it.

        [16, 64, 8, 8] is read as 1,024 vectors of 64 numbers.
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
            if self.training:  # only here, so that one rank alone may draw a picture
                counts = _sum_over_ranks(counts)
                self._learn(flat.detach(), codes, counts)
        vectors = straight.reshape(grid.shape).permute(0, 3, 1, 2)
        return Quantized(vectors, codes.reshape(grid.shape[:-1]), counts, codebook_loss, commitment)

    @torch.no_grad()
    def _learn(self, flat: Tensor, codes: Tensor, counts: Tensor) -> None:
        """Move the averages by one batch, then the codes (under ``ema``), then look for dead codes."""
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
        """Make the codes vectors of the first batch: a random encoder's latents are nowhere near noise."""
        picked = self._pick(flat, len(self.codebook))
        mean_use = _sum_over_ranks(torch.tensor(float(len(flat)), device=flat.device)) / len(picked)
        self.codebook.copy_(picked)
        self.ema_counts.fill_(float(mean_use))
        self.ema_sums.copy_(picked * mean_use)

    @torch.no_grad()
    def _revive(self, flat: Tensor) -> None:
        """Move codes that almost nothing chooses onto vectors of this batch, with a fresh start in use."""
        mean_use = self.ema_counts.mean()
        dead = self.ema_counts < self.revive_below * mean_use
        if not bool(dead.any()):
            return
        picked = self._pick(flat, int(dead.sum()))
        self.codebook[dead] = picked
        self.ema_counts[dead] = mean_use
        self.ema_sums[dead] = picked * mean_use

    def _pick(self, flat: Tensor, count: int) -> Tensor:
        """``count`` random vectors of rank 0's batch (repeated if it is shorter), the same on every rank."""
        rounds = -(-count // len(flat))
        order = torch.cat([torch.randperm(len(flat), device=flat.device) for _ in range(rounds)])
        return _same_on_all_ranks(flat[order[:count]].contiguous())
