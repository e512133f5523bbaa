"""The command line: what it prints, its exit codes, and one line for everything that goes wrong."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sish
from sish.cli import main


def run(capsys, *words) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def failure(capsys, *words) -> str:
    """The one line that a command fails with."""
    code, _, err = run(capsys, *words)
    assert code == 1, err
    assert err.count("\n") == 1 and "Traceback" not in err, err
    return err


def test_add_makes_the_index_and_search_prints_the_documented_json(capsys, tmp_path, synthetic_slides):
    index = tmp_path / "archive.sish"
    code, out, _ = run(
        capsys,
        "index",
        "add",
        synthetic_slides,
        "--index",
        index,
        "--labels",
        synthetic_slides / "labels.csv",
        "--quiet",
    )
    assert code == 0 and out.startswith("8 added")
    query = sish.Index.open(index).slides[0]
    code, out, _ = run(capsys, "search", query.path, "--index", index, "-k", "5", "--json")
    answer = json.loads(out)
    assert code == 0
    assert set(answer) == {"query", "ranking", "note", "results"}
    first = answer["results"][0]
    wanted = {"rank", "slide_id", "path", "label", "score", "uncertainty", "below_threshold", "patches"}
    assert wanted <= set(first)
    assert first["slide_id"] == query.slide_id and first["rank"] == 1
    assert set(first["patches"][0]) == {"query_xy", "xy", "hamming", "query_row", "row"}


def test_every_index_command(capsys, own_index, tmp_path):
    path = own_index.path
    first = own_index.slides[0].slide_id
    assert "8 slides" in run(capsys, "index", "add", own_index.slides[0].path, "--index", path)[1]
    assert first in run(capsys, "index", "list", "--index", path)[1]
    assert json.loads(run(capsys, "index", "list", "--index", path, "--json")[1])[0]["slide_id"] == first
    assert json.loads(run(capsys, "index", "info", "--index", path, "--json")[1])["slides"] == 8
    assert "encoder" in run(capsys, "index", "info", "--index", path)[1]
    table = tmp_path / "new.csv"
    table.write_text(f"slide_id,label\n{first},renamed\n")
    assert "relabelled 1" in run(capsys, "index", "label", table, "--index", path)[1]
    assert "removed 1" in run(capsys, "index", "remove", first, "--index", path)[1]
    assert run(capsys, "index", "compact", "--index", path)[0] == 0
    code, out, _ = run(capsys, "index", "verify", "--index", path)
    assert (code, out) == (0, "every byte is as it was written\n")


def test_search_as_text_by_region_filter_and_batch(capsys, built_index):
    rows = sish.Index.open(built_index).slides
    one, two = rows[0].path, rows[1].path
    code, out, _ = run(capsys, "search", one, two, "--index", built_index, "-k", "2", "--exclude-patient")
    assert code == 0 and rows[0].slide_id in out and rows[1].slide_id in out
    answers = json.loads(run(capsys, "search", one, two, "--index", built_index, "--json")[1])
    assert [answer["query"]["slide_id"] for answer in answers] == [rows[0].slide_id, rows[1].slide_id]
    region = json.loads(
        run(capsys, "search", one, "--index", built_index, "--region", 600, 600, 800, 800, "--json")[1]
    )
    assert region["query"]["region"] == [600, 600, 800, 800]
    only = json.loads(
        run(capsys, "search", one, "--index", built_index, "--where", f"label={rows[1].label}", "--json")[1]
    )
    assert {hit["label"] for hit in only["results"]} == {rows[1].label}


def test_search_as_csv_stacks_queries(capsys, built_index, tmp_path):
    rows = sish.Index.open(built_index).slides
    words = ["search", rows[0].slide_id, rows[1].slide_id, "--index", built_index, "-k", "3"]
    plain = json.loads(run(capsys, *words, "--json")[1])
    code, out, _ = run(capsys, *words, "--csv", tmp_path / "hits.csv")
    assert code == 0 and rows[1].slide_id in out  # the lines are printed, too
    with (tmp_path / "hits.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    hits = [(answer["query"], hit) for answer in plain for hit in answer["results"]]
    assert [row["query_slide_id"] for row in table] == [query["slide_id"] for query, _ in hits]
    assert next(iter(table[0])) == "query_slide_id" and len(table) == 6
    for row, (query, hit) in zip(table, hits, strict=True):
        assert row["query_path"] == query["path"] and row["query_region"] == ""
        for name in ("slide_id", "path", "label", "rank", "score", "n_matched", "placed"):
            assert row[name] == str(hit[name])
        assert row["uncertainty"] == ("" if hit["uncertainty"] is None else str(hit["uncertainty"]))
    code, printed, _ = run(capsys, *words, "--csv", "-")
    assert printed.splitlines() == (tmp_path / "hits.csv").read_text().splitlines()
    none = run(capsys, *words[:2], *words[3:], "--where", "label=absent", "--csv", "-")
    assert none[1].splitlines() == printed.splitlines()[:1] and "none has label 'absent'" in none[2]
    assert "give --csv a file" in failure(capsys, *words, "--csv", "-", "--json")


def test_csv_of_odd_names(capsys, own_index, tmp_path):
    row = own_index.slides[0]
    odd = {"label": '=cmd|"x"!A1, or "b"', "patient": "@a\x1b[31m", "site": "-5", "note, one": "+x"}
    with (tmp_path / "odd.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["slide_id", *odd], [row.slide_id, *odd.values()]])
    own_index.relabel(tmp_path / "odd.csv")
    words = ["search", row.slide_id, "--index", own_index.path, "-k", "2", "--csv"]
    assert run(capsys, *words, tmp_path / "hits.csv")[0] == 0
    with (tmp_path / "hits.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["label"], first["patient"]) == ("'" + odd["label"], "'" + odd["patient"])
    assert (first["note, one"], second["note, one"]) == ("'+x", "")
    assert "\x1b" not in run(capsys, *words, "-")[1]
    assert "is an input" in failure(capsys, *words, row.path)
    assert "is no .csv file" in failure(capsys, *words, own_index.path.parent / __file__)


def test_evaluate_prints_a_table_and_json(capsys, built_index):
    code, out, _ = run(capsys, "evaluate", "--index", built_index)
    assert code == 0 and "mMV@5" in out and "query ms, median" in out
    found = json.loads(
        run(capsys, "evaluate", "--index", built_index, "--json", "--ranking", "similarity")[1]
    )
    assert found["queries"] == 8 and found["ranking"] == "similarity"
    assert {"mmv1", "mmv3", "mmv5", "macro_f1_5", "hit3", "hit5", "map_paper", "query_ms_median"} <= set(
        found
    )
    assert 0 <= found["map5"] <= 1


def test_preview_writes_a_picture(capsys, synthetic_slides, tmp_path):
    slide = next(synthetic_slides.glob("*.tif*"))
    code, out, _ = run(capsys, "preview", slide, "-o", tmp_path / "mosaic.png")
    assert code == 0 and "tiles of tissue" in out
    assert (tmp_path / "mosaic.png").stat().st_size > 10_000
    assert "cannot write" in failure(capsys, "preview", slide, "-o", tmp_path / "mosaic.nothing")


def test_a_slide_without_tissue_gets_a_hint(capsys, tmp_path, own_index):
    pixels = np.full((500, 500, 3), (240, 235, 215), np.uint8)
    pixels[200:212, 200:212] = (205, 120, 175)
    Image.fromarray(pixels).save(tmp_path / "speck.png")
    words = ("preview", tmp_path / "speck.png", "-o", tmp_path / "mosaic.png", "--mpp", "4")
    code, out, _ = run(capsys, *words)
    assert code == 0 and "0 patches of 0 tiles" in out and "(240, 235, 215)" in out
    assert "--recipe.min_speck_um2 1000" in out
    assert "1 patch of 1 tile " in run(capsys, *words, "--recipe.min_speck_um2", "1000")[1]
    code, out, err = run(
        capsys, "index", "add", tmp_path / "speck.png", "--index", own_index.path, "--mpp", "4", "--quiet"
    )
    assert code == 0 and "1 without tissue" in out
    assert err == f"sish: {sish.AddReport(no_tissue=['speck']).hint}\n" and "sish preview" in err
    assert "min_speck" not in err, "the index may have been made with it"


def test_failed_slides_are_told_and_make_exit_code_1(capsys, tmp_path, own_index):
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "text.svs").write_text("no slide")
    shutil.copy(own_index.slides[0].path, tmp_path / "mixed" / "good.tif")
    code, out, err = run(capsys, "index", "add", tmp_path / "mixed", "--index", own_index.path, "--quiet")
    assert code == 1
    assert "1 added" in out and "1 failed" in out
    assert err.count("sish: skipped:") == 1 and "text.svs" in err
    assert sish.verify(own_index.path) == []


def test_each_bad_input_is_one_line(capsys, tmp_path, built_index, own_index):
    good = own_index.slides[0].path
    (tmp_path / "text.svs").write_text("no slide")
    (tmp_path / "empty.svs").touch()
    (tmp_path / "truncated.tif").write_bytes(Path(good).read_bytes()[:3000])
    (tmp_path / "a_file").touch()
    (tmp_path / "labels.csv").write_text("name,label\nx,y\n")
    for query in ("text.svs", "empty.svs", "truncated.tif", "missing.svs", "."):
        failure(capsys, "search", tmp_path / query, "--index", built_index)
    assert "does not exist" in failure(capsys, "search", good, "--index", tmp_path / "nowhere")
    failure(capsys, "index", "info", "--index", tmp_path / "a_file")
    failure(capsys, "index", "add", good, "--index", tmp_path / "a_file")
    failure(capsys, "index", "add", good, "--index", own_index.path, "--labels", tmp_path / "labels.csv")
    failure(capsys, "index", "add", good, "--index", own_index.path, "--labels", tmp_path / "missing.csv")
    failure(capsys, "search", good, "--index", built_index, "-k", "0")
    failure(capsys, "search", good, "--index", built_index, "--where", "label")
    failure(capsys, "search", good, good, "--index", built_index, "--region", 0, 0, 9, 9)
    failure(
        capsys, "search", good, "--index", built_index, "--report", tmp_path / "no" / "such" / "page.html"
    )
    failure(capsys, "search", good, "--index", built_index, "--weights", tmp_path / "text.svs")
    failure(capsys, "index", "remove", "nobody", "--index", own_index.path)
    assert sish.verify(own_index.path) == []


def test_a_flipped_byte_is_found_and_never_crashes(capsys, own_index):
    biggest = max(
        (path for path in own_index.path.glob("segments/**/*") if path.is_file()),
        key=lambda path: path.stat().st_size,
    )
    content = bytearray(biggest.read_bytes())
    content[len(content) // 2] ^= 0x10
    biggest.write_bytes(content)
    code, out, _ = run(capsys, "index", "verify", "--index", own_index.path)
    assert code == 1 and biggest.name in out
    biggest.write_bytes(content[:100])
    code, _, err = run(capsys, "index", "info", "--index", own_index.path)
    assert code == 0 and err.startswith(f"sish: damaged: {biggest} has 100 bytes")
    failure(capsys, "search", own_index.slides[0].path, "--index", own_index.path)


@pytest.mark.parametrize("json_too", [[], ["--json"]])
def test_where_there_is_no_index_verify_says_so_as_all_commands_do(json_too, capsys, own_index, tmp_path):
    (tmp_path / "file").touch()
    for path in (own_index.path.with_name("arhive.sish"), tmp_path, tmp_path / "file"):
        told = [run(capsys, "index", name, "--index", path, *json_too) for name in ("verify", "info")]
        assert told[0] == told[1] and told[0][:2] == (1, "") and told[0][2].startswith("sish: error: ")
    (own_index.path / "manifest.json").write_text("{}")
    code, out, err = run(capsys, "index", "verify", "--index", own_index.path, *json_too)
    assert (code, err) == (1, "") and len(json.loads(out) if json_too else out.splitlines()) == 1


@pytest.mark.parametrize(
    "words", [[], ["search"], ["search", "x", "--index", "y", "-k", "many"]], ids=" ".join
)
def test_a_wrong_command_line_is_exit_code_2(words):
    with pytest.raises(SystemExit) as leaving:
        main(words)
    assert leaving.value.code == 2


def test_the_exit_code_of_the_command_is_that_of_the_process():
    done = subprocess.run([sys.executable, "-m", "sish", "serch"], capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_version(capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["--version"])
    assert leaving.value.code == 0 and sish.__version__ in capsys.readouterr().out


def test_one_broken_query_does_not_lose_the_answers_of_the_others(capsys, built_index, tmp_path):
    (tmp_path / "text.svs").write_text("no slide")
    good = sish.Index.open(built_index).slides[0].path
    code, out, err = run(capsys, "search", good, tmp_path / "text.svs", "--index", built_index, "--json")
    assert code == 1 and "text.svs" in err
    assert len(json.loads(out)) == 1


def test_filters_add_up_and_any_of_a_columns_values_is_enough(capsys, built_index):
    first = sish.Index.open(built_index).slides[0]
    words = ["search", first.path, "--index", built_index, "--where", f"label={first.label}"]
    both = json.loads(run(capsys, *words, "--where", f"patient={first.patient}", "--json")[1])
    assert {(hit["label"], hit["patient"]) for hit in both["results"]} == {(first.label, first.patient)}
    either = json.loads(run(capsys, *words, "--where", "label=other", "--json")[1])
    assert {hit["label"] for hit in either["results"]} == {first.label}
    others = json.loads(run(capsys, *words[:-2], "--where", f"label!={first.label}", "-k", "8", "--json")[1])
    assert others["results"] and first.label not in {hit["label"] for hit in others["results"]}
    assert "want COLUMN=VALUE" in failure(capsys, *words, "--where", "label")


def test_labels_of_unknown_slides_are_told(capsys, own_index, tmp_path):
    (tmp_path / "new.csv").write_text(f"slide_id,label\n{own_index.slides[0].slide_id},renamed\nghost,x\n")
    code, out, err = run(capsys, "index", "label", tmp_path / "new.csv", "--index", own_index.path)
    assert (code, out) == (1, "relabelled 1 slide\n") and "ghost" in err


def test_a_labels_file_that_is_not_there_makes_no_index(capsys, own_index, tmp_path):
    good = own_index.slides[0].path
    failure(capsys, "index", "add", good, "--index", tmp_path / "new.sish", "--labels", tmp_path / "none.csv")
    assert not (tmp_path / "new.sish").exists()


@pytest.mark.parametrize("wrong", [["--labels", ""], ["--slide-timeout", "-1"]])
def test_a_wrong_option_makes_no_index(wrong, capsys, own_index, tmp_path):
    new = tmp_path / "new.sish"
    failure(capsys, "index", "add", own_index.slides[0].path, "--index", new, *wrong)
    assert not new.exists()


def test_an_index_like_another_and_one_that_is_measured_again(capsys, own_index, tmp_path):
    shard = tmp_path / "shard.sish"
    _, out, _ = run(capsys, "index", "create", "--index", shard, "--like", own_index.path)
    assert own_index.fingerprint in out and sish.Index.open(shard).fingerprint == own_index.fingerprint
    told = failure(
        capsys, "index", "create", "--index", tmp_path / "b", "--like", shard, "--recipe.patch_px", 128
    )
    assert "like=" in told
    assert "calibration" in run(capsys, "index", "info", "--index", own_index.path)[1]
    calibration = own_index.encoder.calibration
    told = json.loads(run(capsys, "index", "info", "--index", own_index.path, "--json")[1])["calibration"]
    assert told == {"patches": calibration.patches, "shipped": calibration.shipped}
    _, out, _ = run(capsys, "index", "recalibrate", "--index", own_index.path, "--quiet")
    assert out.startswith("nothing was encoded") and str(calibration.patches) in out
    own_index.remove([row.slide_id for row in own_index.slides[:3]])
    _, out, _ = run(capsys, "index", "recalibrate", "--index", own_index.path, "--quiet", "--json")
    assert json.loads(out)["slides"] == 5
    assert own_index.fingerprint != sish.Index.open(shard).fingerprint
    own_index.remove(own_index.slides[0].slide_id)
    assert run(capsys, "index", "compact", "--recalibrate", "--index", own_index.path)[0] == 0
    assert own_index.info().slides == 4 and own_index.encoder.calibration.patches < calibration.patches


def test_compact_prints_json(capsys, own_index):
    code, out, _ = run(capsys, "index", "compact", "--index", own_index.path, "--json")
    told = json.loads(out)
    assert code == 0 and 0 < told["bytes_after"] <= told["bytes_before"]
