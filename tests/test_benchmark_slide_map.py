"""The program that compares maps of archives."""

import json

from benchmarks import slide_map


def test_a_small_archive_is_measured_and_missing_data_are_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(slide_map.importlib.util, "find_spec", lambda name: None)  # without UMAP
    words = ["--data", str(tmp_path / "nothing"), "--slides", "200", "--json", str(tmp_path / "rows.json")]
    assert slide_map.main(words) == 0
    told = capsys.readouterr().out
    assert "bach is left out" in told and "crc5 is left out" in told
    rows = {row["method"]: row for row in json.loads((tmp_path / "rows.json").read_text())}
    assert set(rows) == {"means", "pca", "layout"}
    assert rows["means"]["kept"] == 1.0
    assert rows["layout"]["kept"] > rows["pca"]["kept"] and rows["layout"]["label"] > 0.95
    assert all(row["slides"] == 200 for row in rows.values())
