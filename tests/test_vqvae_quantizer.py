"""The codebook: worked examples, a numpy oracle, and two processes against one."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sish.vqvae.quantizer import VectorQuantizer, perplexity


def grid(vectors):
    """Vectors (M, D) as a latent grid (1, D, 1, M)."""
    return torch.as_tensor(vectors, dtype=torch.float32).T[None, :, None, :].clone()


def started(codebook, counts=None, **options):
    """A quantizer with a given codebook, as if one batch had been seen."""
    codebook = torch.as_tensor(codebook, dtype=torch.float32)
    quantizer = VectorQuantizer(len(codebook), codebook.shape[1], **options)
    with torch.no_grad():
        quantizer.codebook.copy_(codebook)
    quantizer.ema_counts.copy_(torch.as_tensor(counts if counts else [1.0] * len(codebook)))
    quantizer.ema_sums.copy_(codebook * quantizer.ema_counts[:, None])
    quantizer.batches.fill_(1)
    return quantizer


def test_worked_example():
    # codes (0,0), (4,0), (0,4); vectors (1,0) -> 0, (3,1) -> 1, (0,3) -> 2, (5,0) -> 1
    quantizer = started([[0, 0], [4, 0], [0, 4]]).eval()
    out = quantizer(grid([[1, 0], [3, 1], [0, 3], [5, 0]]))
    assert out.codes.tolist() == [[[0, 1, 2, 1]]]
    assert out.counts.tolist() == [1, 2, 1]
    assert out.vectors[0, :, 0].T.tolist() == [[0, 0], [4, 0], [0, 4], [4, 0]]
    # squared distances 1, 2, 1, 1 over 8 numbers
    assert out.commitment.item() == pytest.approx(5 / 8)
    assert out.codebook_loss.item() == 0
    # shares 1/4, 1/2, 1/4: entropy 1.5 bits
    assert perplexity(out.counts).item() == pytest.approx(2**1.5)


def test_moving_average_by_hand():
    quantizer = started([[0.0, 0], [10, 0]], counts=[2.0, 4.0], decay=0.5, revive_below=0).train()
    quantizer(grid([[2, 0], [0, 2], [9, 1]]))
    # counts: (2, 1) halfway from (2, 4); sums: ((2, 2), (9, 1)) halfway from ((0, 0), (40, 0))
    assert quantizer.ema_counts.tolist() == [2.0, 2.5]
    torch.testing.assert_close(quantizer.ema_sums, torch.tensor([[1.0, 1.0], [24.5, 0.5]]))
    torch.testing.assert_close(
        quantizer.codebook.data, torch.tensor([[0.5, 0.5], [9.8, 0.2]]), rtol=1e-4, atol=1e-4
    )


def test_evaluation_changes_nothing():
    quantizer = started([[0.0, 0], [10, 0]]).eval()
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer(grid([[2, 0], [9, 1]]))
    for name, value in quantizer.state_dict().items():
        assert torch.equal(value, before[name]), name


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(np.float32, (7, 3), elements=st.floats(-5, 5, width=16)),
    hnp.arrays(np.float32, (5, 3), elements=st.floats(-5, 5, width=16)),
)
def test_nearest_equals_a_scan(vectors, codebook):
    chosen = started(codebook).nearest(torch.from_numpy(vectors)).numpy()
    distances = ((vectors[:, None] - codebook[None]) ** 2).sum(-1)
    # rounding may choose another of two equally near codes, never a farther one
    np.testing.assert_allclose(distances[np.arange(7), chosen], distances.min(1), atol=1e-4)


def test_gradient_goes_straight_through():
    quantizer = started([[0.0, 0], [4, 0]]).eval()
    latent = grid([[1, 0], [3, 1]]).requires_grad_()
    weights = torch.arange(4.0).reshape(1, 2, 1, 2)
    (quantizer(latent).vectors * weights).sum().backward()
    assert torch.equal(latent.grad, weights)


def test_gradient_codebook_moves_only_chosen_codes():
    quantizer = started([[0.0, 0], [4, 0], [50, 50]], update="gradient", revive_below=0).train()
    out = quantizer(grid([[1, 0], [3, 0]]))
    out.codebook_loss.backward()
    # d/de of mean |z - e|^2 over 4 numbers: 2 (e - z) / 4
    assert quantizer.codebook.grad.tolist() == [[-0.5, 0.0], [0.5, 0.0], [0.0, 0.0]]
    before = quantizer.codebook.detach().clone()
    assert torch.equal(before, torch.tensor([[0.0, 0], [4, 0], [50, 50]]))


def test_first_batch_starts_the_codebook():
    torch.manual_seed(0)
    quantizer = VectorQuantizer(4, 2, revive_below=0, decay=0.0).train()
    vectors = torch.tensor([[100.0, 0], [0, 100], [-100, 0], [0, -100]])
    out = quantizer(grid(vectors))
    assert sorted(quantizer.codebook.tolist()) == sorted(vectors.tolist())
    assert out.counts.tolist() == [1, 1, 1, 1]


def test_a_short_first_batch_starts_more_codes_than_it_has_vectors():
    quantizer = VectorQuantizer(5, 2).train()
    quantizer(grid([[1.0, 2], [3, 4]]))
    assert {tuple(code) for code in quantizer.codebook.round(decimals=3).tolist()} == {(1, 2), (3, 4)}


def test_dead_codes_move_onto_the_batch():
    quantizer = started([[0.0, 0], [1000, 1000]], decay=0.5, revive_below=0.1, revive_every=8).train()
    batch = grid([[1.0, 1], [2, 2], [3, 3]])
    for _ in range(6):
        quantizer(batch)
    assert quantizer.codebook[1].tolist() == pytest.approx([1000, 1000], rel=1e-2)  # not looked at yet
    quantizer(batch)  # the eighth batch, counting the one that started it
    assert quantizer.codebook[1].tolist() in [[1, 1], [2, 2], [3, 3]]
    assert (quantizer(batch).counts > 0).all()


def test_revival_can_be_turned_off():
    quantizer = started([[0.0, 0], [1000, 1000]], decay=0.5, revive_below=0, revive_every=1).train()
    for _ in range(5):
        quantizer(grid([[1.0, 1]]))
    assert quantizer.codebook[1, 0] > 900


@pytest.mark.parametrize(("counts", "expected"), [([3, 0, 0], 1), ([2, 2, 2, 2], 4), ([0, 0], 1)])
def test_perplexity(counts, expected):
    assert perplexity(torch.tensor(counts)).item() == pytest.approx(expected)


def _train_rank(rank, folder, batches, codebook):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.manual_seed(rank)  # ranks draw different numbers, as they would on different data
    quantizer = started(codebook, revive_below=0.0).train()
    fresh = VectorQuantizer(6, 3, revive_below=0.9, revive_every=1).train()
    for batch in batches:
        quantizer(grid(batch[rank]))
        fresh(grid(batch[rank]))
    torch.save((quantizer.state_dict(), fresh.state_dict()), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_hold_the_codebook_of_one(tmp_path):
    generator = np.random.default_rng(0)
    codebook = generator.normal(size=(6, 3)).astype(np.float32)
    batches = generator.normal(size=(4, 2, 20, 3)).astype(np.float32)  # steps, ranks, vectors
    mp.spawn(_train_rank, (str(tmp_path), batches, codebook), nprocs=2)
    (first, first_fresh), (second, second_fresh) = (
        torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)
    )
    alone = started(codebook, revive_below=0.0).train()
    for batch in batches:
        alone(grid(batch.reshape(40, 3)))
    for name, value in alone.state_dict().items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value)
        # started from data and revived: the choices of rank 0 reached rank 1
        assert torch.equal(first_fresh[name], second_fresh[name]), name
