"""The learning rate of a run, step by step."""

import pytest
import torch

from sish.vqvae.schedule import warmup_cosine


def rates(steps: int, warmup: int, count: int) -> list[float]:
    """The first learning rates of a run whose highest is 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = warmup_cosine(optimizer, steps, warmup)["lr_scheduler"]["scheduler"]
    found = []
    for _ in range(count):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_a_run_by_hand():
    half = 0.5 * (1 + 0.5**0.5)  # an eighth of a turn
    assert rates(6, 2, 8) == pytest.approx([0.5, 1, 1, half, 0.5, 1 - half, 0, 0])


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (2, 1), (3, 0)])
def test_short_runs_learn_at_once(steps: int, warmup: int):
    assert rates(steps, warmup, 1) == [1.0]
