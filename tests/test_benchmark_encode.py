"""The benchmark of encoding: what it counts, and what it says of it."""

import json

import numpy as np
import pytest

from benchmarks import binarisation, encode
from benchmarks.encode import AddTimes, Cost, SlideTimes, cost_table, flop_of, stage_table


def test_operations_are_counted():
    import torch

    layer, image = torch.nn.Conv2d(3, 5, 3), torch.zeros(1, 3, 10, 10)
    assert flop_of(lambda: layer(image)) == 2 * (3 * 3 * 3) * 5 * 8 * 8  # a multiply-add is two


def test_a_cost_is_that_of_a_square_millimetre():
    ours = Cost.of("ours", 256, 1.0, 0.01, 1e9)  # four of them cover one of the authors' patches
    theirs = Cost.of("authors' both", 1024, 0.5, 2.0, 400e9)
    assert ours.ms_per_patch == 10 and ours.s_per_mm2 == pytest.approx(0.01 * 1e6 / 256**2)
    said = cost_table([ours, theirs]).splitlines()[-1]
    assert said == (
        "For the same tissue the default takes 50.0 times less time and 100.0 times fewer operations than "
        "authors' both."
    )
    alone = Cost.of("authors' VQ-VAE", 1024, 0.5, 2.0, 400e9)
    assert cost_table([ours, alone]).endswith("DenseNet121 left out, as timm does not load.")


def test_shares_of_the_stages():
    seconds = dict.fromkeys(encode.STAGES, 0.0) | {"infer": 3.0, "decode": 1.0}
    said = stage_table([SlideTimes("a", 7, seconds)]).splitlines()
    assert said[-1] == "Shares of 4.0 s: look 0%, decode 25%, resample 0%, infer 75%, bits 0%, write 0%."
    assert encode.add_table([AddTimes(2, 3, 30, 6.0, 30.0, 5.0)]) == (
        "Index.add with 2 reading thread(s): 3 slides, 30 patches in 6.0 s: 30.0 slides/min, 5.0 patches/s"
    )


@pytest.mark.slow
def test_it_runs_from_end_to_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        encode, "paper_costs", lambda repetitions: [Cost("theirs", 1024, 0.5, 1e3, 9.0, 99.0)]
    )
    assert encode.main(["--quick", "--readers", "2", "--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["encoder"] for row in rows["cost"]] == ["default (tissue)", "theirs"]
    assert rows["cost"][0]["gflop_per_mm2"] > 1
    assert [row["readers"] for row in rows["add"]] == [1, 2] and rows["add"][0]["slides"] == 2
    patches = sum(row["patches"] for row in rows["slides"])
    assert patches == rows["add"][0]["patches"] == rows["add"][1]["patches"] > 0
    assert all(row["seconds"][name] > 0 for row in rows["slides"] for name in encode.STAGES)
    assert "Shares of" in capsys.readouterr().out


def test_what_bits_keep_of_neighbours():
    """Features with a long common part: bits keep neighbours once it is off, and hardly before."""
    rng = np.random.default_rng(0)
    own = rng.normal(size=(200, 64)).astype(np.float32)
    row = binarisation.row_of("made", own + 200 * np.abs(rng.normal(size=64)).astype(np.float32))
    shares = [row.shares[head] for head in binarisation.HEADS]
    assert shares[0] > 0.6 > 2 * max(shares[1:3]) and row.length == 64
    assert "made" in binarisation.table([row])


def test_shares_by_hand():
    found = binarisation.nearest_by_bits(np.packbits(np.tri(12, 16, dtype=np.uint8), axis=1))
    assert found[0].tolist() == list(range(1, 11)) and found[11].tolist() == list(range(10, 0, -1))
    wanted = binarisation.nearest_by_cosine(np.eye(12, dtype=np.float32))
    assert wanted.shape == (12, 10) and all(own not in row for own, row in enumerate(wanted.tolist()))
    assert binarisation.share(found, found) == 1.0
