"""Makes the golden indexes, and records what they answer: python tests/golden_indexes.py SLIDES GOLDEN.

They were made once, by the last release that writes format 1. A later release must open them and answer the
same. `small`, `paper` and `features` were made by ``sish index add`` on painted slides in the folder SLIDES.
`tree` has more patches than are compared with at once, so that it has a texture tree; `Index.add` writes so.
`vectors` is of format 2 alone: the first that keeps vectors (`write_vectors(GOLDEN)`).
"""

import json
import sys
from pathlib import Path

import numpy as np
from slide_rows import slide_row

import sish
from sish.cli import main
from sish.demo.synthetic import write_slides
from sish.index.store import Store, slide_snapshot
from sish.searchers import TextureKeys

ASKED = {"small": 6, "paper": 6, "features": 6, "tree": 84}
"""The golden indexes, and how many slides each has."""


def answers(index: sish.Index) -> dict[str, list[dict]]:
    """What an index answers to some of its slides, by both rankings."""
    told = {}
    for row in index.slides[:: max(1, len(index) // 4)]:
        for ranking in ("uncertainty", "similarity"):
            results = index.search(
                row.slide_id, k=4, ranking=ranking, exclude_patient=ranking == "similarity"
            )
            told[f"{row.slide_id} {ranking}"] = [hit.to_dict() for hit in results]
    return told


def write_features(folder: Path, n_slides: int) -> None:
    """Files of features as TRIDENT writes them, of random numbers around five means."""
    import h5py

    rng = np.random.default_rng(0)
    means = rng.normal(size=(5, 64)) * 3
    for number in range(n_slides):
        with h5py.File(folder / f"slide-{number}.h5", "w") as file:
            count = 60 + number
            file["features"] = (means[rng.integers(5, size=count)] + rng.normal(size=(count, 64))).astype(
                np.float32
            )
            file["coords"] = np.stack(np.divmod(np.arange(count), 9), 1) * 512
            file["coords"].attrs.update(
                patch_size=256, patch_size_level0=512, level0_magnification=40, target_magnification=20
            )


def write_tree(path: Path, slides: int) -> None:
    """An index with a texture tree, of slides without files."""
    rng = np.random.default_rng(1)
    textures = rng.integers(0, 256, (40, 128), np.uint8)
    sish.Index.create(path)
    with Store.open(path, write=True) as store:
        for first in range(0, slides, 28):
            keys, parts = TextureKeys(store, seed=0), []
            for number in range(first, first + 28):
                count = 50 + number % 7
                noise = np.bitwise_and.reduce(rng.integers(0, 256, (4, count, 128), np.uint8))
                barcodes = textures[rng.integers(0, 40, 5)[rng.integers(0, 5, count)]] ^ noise
                row = slide_row(
                    f"t{number:02}",
                    count,
                    path=f"/archive/t{number:02}.svs",
                    label="abc"[number % 3],
                    patient=f"p{number // 2}",
                )
                parts.append(
                    slide_snapshot(
                        row, keys.of(barcodes), barcodes, np.stack(np.divmod(np.arange(count), 8), 1) * 512
                    )
                )
            store.append_many(parts)
            keys.grow(sum(map(len, parts)))


def write_vectors(golden: Path) -> None:
    """An index of format 2 that keeps vectors, of slides without files, and its answers."""
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(4, 32)) * 2
    ids = np.repeat([f"v{number}" for number in range(8)], 30)
    vectors = centres[np.repeat(np.arange(8) % 4, 30)] + rng.normal(size=(240, 32)) + 3
    labels = {f"v{number}": "abcd"[number % 4] for number in range(8)}
    index = sish.Index.from_vectors(
        golden / "2" / "vectors.sish", vectors, ids, labels=labels, rerank="int8", show_progress=False
    )
    (golden / "vectors.json").write_text(json.dumps(answers(index), indent=1) + "\n")
    (index.path / "lock").unlink(missing_ok=True)


def make(slides: Path, golden: Path) -> None:
    """Write all of format 1, and their answers."""
    write_slides(slides / "painted", n_slides=ASKED["small"], side_um=700)
    (slides / "features").mkdir()
    write_features(slides / "features", ASKED["features"])
    labels = ["--labels", str(slides / "painted" / "labels.csv")]
    main(["index", "add", str(slides / "painted"), "--index", str(golden / "small.sish"), *labels])
    main(["index", "create", "--index", str(golden / "paper.sish"), "--recipe.keys", "paper"])
    main(["index", "add", str(slides / "painted"), "--index", str(golden / "paper.sish"), *labels])
    table = slides / "features" / "labels.csv"
    table.write_text(
        "slide_id,label\n" + "".join(f"slide-{n},{'ab'[n % 2]}\n" for n in range(ASKED["features"]))
    )
    main(
        [
            "index",
            "add",
            "--features",
            str(slides / "features"),
            "--feature-encoder",
            "golden",
            "--index",
            str(golden / "features.sish"),
            "--labels",
            str(table),
        ]
    )
    write_tree(golden / "tree.sish", ASKED["tree"])
    for name in ASKED:
        index = sish.Index.open(golden / f"{name}.sish")
        assert len(index) == ASKED[name]
        (golden / f"{name}.json").write_text(json.dumps(answers(index), indent=1) + "\n")
        (golden / f"{name}.sish" / "lock").unlink(missing_ok=True)


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
