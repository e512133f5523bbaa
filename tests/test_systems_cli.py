"""``sish systems`` and ``sish smily`` on twelve pictures, by the commands that a user types."""

import csv
import json

import pytest
from plain_encoder import PlainEncoder

from sish.cli import main
from sish.cli.systems import SYSTEMS
from sish.systems.items import read_items


@pytest.fixture
def folder(pictures, monkeypatch, tmp_path):
    """The pictures' folder with a labels file elsewhere, and a fast encoder in place of the shipped one."""
    monkeypatch.setattr("sish.vqvae.pretrained.load_encoder", lambda *given, **more: PlainEncoder())
    labels = tmp_path / "labels.csv"
    with labels.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "lesion_id", "mask"])
        for item in pictures:
            table.writerow([item.path, item.label, item.group, item.mask])
    return pictures[0].path.parent, labels


def run(capsys, *words):
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_items_of_a_folder_with_a_labels_file(folder, pictures):
    items = read_items([folder[0]], folder[1], mpp=1.0)  # masks are no items
    want = {item.item_id: item for item in pictures}
    assert {item.item_id for item in items} == set(want)
    for item in items:
        same = want[item.item_id]
        group = f"lesion {same.group}" if same.group else ""
        assert (item.labels, item.group, item.mpp) == (same.labels, group, 1.0)
        assert item.mask.samefile(same.mask)
    assert len(read_items([folder[0]])) == 24  # nobody says which are masks
    assert read_items([pictures[3].path, pictures[3].path])[0].item_id == pictures[3].path.stem


def test_every_system_is_listed(capsys):
    code, out, _ = run(capsys, "systems", "list")
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == list(SYSTEMS)


@pytest.mark.parametrize("name", sorted(set(SYSTEMS) - {"xray-codes", "lesions"}))
def test_a_folder_is_searched_by_a_system(name, folder, pictures, capsys):
    words = ["--data", folder[0], "--labels", folder[1], "--mpp", 1.0, "-k", 3, "--json"]
    code, out, _ = run(capsys, "systems", "search", name, pictures[4].path, *words)
    (answer,) = json.loads(out)
    assert code == 0 and [hit["rank"] for hit in answer["results"]] == [1, 2, 3]
    assert answer["query"]["path"] == str(pictures[4].path) and answer["looked_at"] <= 10
    assert not {"violet0", "violet1"} & {hit["item_id"] for hit in answer["results"]}  # its own lesion
    assert answer["results"][0]["labels"] == ["violet"] or name == "sish-paper"


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name.startswith("sish")])
def test_pictures_without_a_scale_are_searched_by_sish(name, folder, pictures, capsys):
    words = ["--data", folder[0], "--labels", folder[1], "--whole", "-k", 3, "--json"]
    code, out, _ = run(capsys, "systems", "search", name, pictures[4].path, *words)
    assert code == 0 and len(json.loads(out)[0]["results"]) == 3


def test_an_answer_as_text(folder, pictures, capsys):
    words = ["--data", folder[0], "--labels", folder[1], "--whole", "-k", 40]
    code, out, _ = run(capsys, "systems", "search", "yottixel", pictures[4].path, *words)
    lines = out.splitlines()
    assert code == 0 and lines[0] == "violet0: compared with 10" and lines[1].split()[2] == "violet"
    assert lines[-1].strip().startswith("10 of 40")


def test_bad_input_is_one_line(folder, pictures, capsys, tmp_path):
    data = ["--data", folder[0], "--labels", folder[1]]
    code, out, err = run(capsys, "systems", "search", "yottixel", pictures[0].path, *data)
    assert code == 1 and not out and "mpp" in err.splitlines()[-1]
    code, _, err = run(capsys, "systems", "search", "xray-codes", pictures[0].path, *data)
    assert code == 1 and "--weights" in err and err.count("\n") == 1
    (tmp_path / "empty").mkdir()
    code, _, err = run(
        capsys, "systems", "search", "yottixel", pictures[0].path, "--data", tmp_path / "empty"
    )
    assert code == 1 and "without slides" in err
    broken = tmp_path / "more"
    broken.mkdir()
    (broken / "broken.png").write_bytes(b"no picture")
    (broken / "good.png").write_bytes(pictures[0].path.read_bytes())
    words = ["systems", "search", "yottixel", pictures[0].path, "--data", broken, "--whole"]
    code, out, err = run(capsys, *words)
    assert code == 1 and "skipped" in err and "good" in out


def test_regions_are_built_searched_and_refined(folder, pictures, capsys, tmp_path):
    database = tmp_path / "regions.smily"
    build = [
        "smily",
        "build",
        "--database",
        database,
        "--labels",
        folder[1],
        "--mpp",
        1.0,
        "--mpps",
        "[0.25,1.0]",
    ]
    assert run(capsys, *build, *(item.path for item in pictures[:6]))[:2] == (
        0, f"6 added; {database} holds 6 items\n"
    )  # fmt: skip
    code, out, _ = run(capsys, *build, *(item.path for item in pictures))
    assert (code, out) == (0, f"6 added; {database} holds 12 items\n")
    search = [
        "smily",
        "search",
        pictures[0].path,
        "--database",
        database,
        "--region",
        0,
        0,
        256,
        256,
        "-k",
        6,
    ]
    code, out, _ = run(capsys, *search)
    lines = out.splitlines()
    assert code == 0 and lines[0] == "pink0: region 0,0,256,256 at 1 um/px"
    assert [line.split()[0] for line in lines[1:]] == list("123456") and "0,0,256,256" in lines[1]
    assert not any(name in out.split("\n", 1)[1] for name in ("pink0", "pink1"))
    found = json.loads(run(capsys, *search, "--json")[1])
    assert found["query"]["item_id"] == "pink0" and found["query"]["region"] == [0, 0, 256, 256]
    last = found["results"][-1]["item_id"]
    liked = json.loads(run(capsys, *search, "--json", "--like", 6, "--like-weight", 1.0)[1])
    assert liked["results"][0]["item_id"] == last
    concept = ["--shows", f"{pictures[6].path}:0,0,256,256", "--lacks", f"{pictures[9].path}:0,0,256,256"]
    shown = json.loads(run(capsys, *search, "--json", *concept, "--slider", 1.0, "--tree")[1])
    assert shown["results"][0]["labels"] == ["violet"]
    assert run(capsys, *search, "--crop", 10, 10, 200, 200)[0] == 0
    for wrong, said in (
        (["--like", 99], "ranks"),
        (["--shows", "here:1,2"], "FILE:X,Y,W,H"),
        (["--crop", 0, 0, 900, 900], "inside"),
    ):
        code, _, err = run(capsys, *search, *wrong)
        assert code == 1 and said in err and err.count("\n") == 1
    search[2] = folder[0]
    code, _, err = run(capsys, *search)
    assert code == 1 and "want one of them" in err and err.count("\n") == 1
    code, _, err = run(
        capsys, "smily", "search", pictures[0].path, "--database", tmp_path, "--region", 0, 0, 9, 9
    )
    assert code == 1 and "sish smily build" in err
