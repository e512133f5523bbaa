"""Measure the cost of encoding: the default encoder against the authors', and the stages of a slide.

The first table is the cost of one square millimetre of tissue: floating-point operations, counted, and
seconds of one core (processor time, which other work on the machine changes little). The authors read
1,024 px at 0.5 um/px, run their VQ-VAE on it (`VQVAEConfig` preset ``paper``; random weights take as long as
trained ones), and run DenseNet121 for the barcode. If timm does not load, DenseNet121 is left out, which
favours the authors.

The second table is the processor time of each stage of a slide. ``look`` finds tissue, tiles and mosaic at
low power. ``decode`` reads and decompresses, in one call of OpenSlide. ``resample`` brings pixels to their
scale. ``infer`` and ``bits`` make codes. ``write`` is a durable commit, in seconds by the clock. The third
table is `Index.add` as it runs, by the clock, with one and with several reading threads.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.timm_networks import random_network
from sish.demo.synthetic import write_slides
from sish.encode import SlideEncoder
from sish.encoders import TISSUE, MeasuredEncoder, load
from sish.index.store import SlideRow, Store
from sish.outputs import write_output
from sish.recipe import Recipe
from sish.slide_index import Index
from sish.slides.files import find_slides
from sish.slides.mosaic import select_mosaic, tile
from sish.slides.orientations import ORIENTATIONS
from sish.slides.reading import default_workers
from sish.slides.slide import Slide, open_slide
from sish.slides.tissue import find_tissue
from sish.tissue import TissueEncoder

Given = tuple[float | None, float | None]
"""`mpp` and `override_mpp` of slides, from the command line."""

STAGES = ("look", "decode", "resample", "infer", "bits", "write")


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one encoder."""

    encoder: str
    """Its name."""
    patch_px: int
    """Side of its patch."""
    mpp: float
    """Micrometres per pixel."""
    ms_per_patch: float
    """Median processor time of a patch, milliseconds."""
    s_per_mm2: float
    """Seconds of one core for a square millimetre."""
    gflop_per_mm2: float
    """Billion floating-point operations for a square millimetre (a multiply-add is two)."""

    @classmethod
    def of(cls, encoder: str, patch_px: int, mpp: float, seconds: float, flop: float) -> "Cost":
        """Return the cost from the time and the operations of one patch."""
        patches = 1e6 / (patch_px * mpp) ** 2
        return cls(encoder, patch_px, mpp, 1e3 * seconds, patches * seconds, patches * flop / 1e9)


@dataclass(frozen=True, slots=True)
class SlideTimes:
    """Time of each stage of one slide, when the stages run one after another."""

    slide: str
    """Its name."""
    patches: int
    """Patches of its mosaic."""
    seconds: dict[str, float]
    """Seconds of each of `STAGES`."""


@dataclass(frozen=True, slots=True)
class AddTimes:
    """Time of `Index.add` of all slides."""

    readers: int
    """Reading threads."""
    slides: int
    """Slides added."""
    patches: int
    """Patches of these slides."""
    seconds: float
    """Seconds from the first file to the last commit."""
    slides_per_min: float
    """Slides a minute."""
    patches_per_s: float
    """Patches a second."""


def seconds_of(work: Callable[[], object], repetitions: int) -> float:
    """Return the median processor time of some calls, after one that is not counted."""
    work()
    times = []
    for _ in range(repetitions):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def flop_of(work: Callable[[], object]) -> float:
    """Count floating-point operations of a call with torch: convolutions and matrix products."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def default_cost(name: str, encoder: MeasuredEncoder, repetitions: int) -> Cost:
    """Measure an encoder on its patches: features alone, as texture keys need no codes."""
    size = encoder.patch_px
    patch = noise(size)
    work = lambda: encoder.features(patch)  # noqa: E731  one expression, used twice
    flop = tissue_flop(size) if isinstance(encoder, TissueEncoder) else flop_of(work)
    return Cost.of(name, size, encoder.mpp, seconds_of(work, repetitions), flop)


def tissue_flop(size_px: int) -> float:
    """Count the operations of the default encoder by its networks in torch: they run outside of torch."""
    import torch

    from sish.vqvae.lite0 import Lite0
    from sish.vqvae.pretrained import shipped_model
    from sish.vqvae.tissue_weights import networks

    patch = torch.from_numpy(noise(size_px))
    lite0, filters, codes = networks(Lite0(), shipped_model()).values()
    quarters = patch[:, : size_px // 2, : size_px // 2].repeat(ORIENTATIONS, 1, 1, 1)
    strips = quarters[:, :, : size_px // 8]
    with torch.inference_mode():
        return flop_of(lambda: (lite0(quarters), filters(patch), codes(strips)))


def paper_costs(repetitions: int) -> list[Cost]:
    """Measure the authors' VQ-VAE at their settings, DenseNet121 if timm loads, and both together."""
    import torch

    from sish.vqvae.model import PRESETS, VQVAE, to_unit

    model = VQVAE(PRESETS["paper"]).eval()
    size, mpp = model.config.patch_px, model.config.mpp
    pixels = torch.from_numpy(noise(size))

    @torch.inference_mode()
    def codes() -> object:
        latent = model.maps(to_unit(pixels))[-1][0].permute(1, 2, 0)
        return model.quantizer.nearest(latent.reshape(-1, latent.shape[-1]))

    rows = [Cost.of("authors' VQ-VAE", size, mpp, seconds_of(codes, repetitions), flop_of(codes))]
    network = random_network("densenet121")
    if network is None:
        return rows

    @torch.inference_mode()
    def features() -> object:
        return network(to_unit(pixels))

    rows.append(Cost.of("DenseNet121", size, mpp, seconds_of(features, repetitions), flop_of(features)))
    both = (
        sum(getattr(row, name) for row in rows) for name in ("ms_per_patch", "s_per_mm2", "gflop_per_mm2")
    )
    return [*rows, Cost("authors' both", size, mpp, *both)]


def noise(size_px: int) -> NDArray[np.uint8]:
    """Make one patch of noise, uint8 (1, size_px, size_px, 3); its content does not change its cost."""
    return np.random.default_rng(0).integers(0, 256, (1, size_px, size_px, 3), np.uint8)


class Stopwatch:
    """Measures seconds of each stage."""

    def __init__(self) -> None:
        """Start with no time for any stage."""
        self.seconds = dict.fromkeys(STAGES, 0.0)

    def time(self, name: str, work: Callable[[], Any]) -> Any:
        """Return the result of `work`; add its processor time to `name` (``write``: time by the clock)."""
        now = time.perf_counter if name == "write" else time.process_time
        start = now()
        done = work()
        self.seconds[name] += now() - start
        return done


class TimedLevels:
    """The pixels of a slide, with a stopwatch on reads of its file."""

    def __init__(self, levels: Any, watch: Stopwatch) -> None:
        """Time the reads of `levels`."""
        self._levels, self._watch = levels, watch

    def __getattr__(self, name: str) -> Any:
        """Pass on every other attribute."""
        return getattr(self._levels, name)

    def read_level(self, *where: Any) -> Any:
        """Read as `Levels` does, and count the time as decoding."""
        return self._watch.time("decode", lambda: self._levels.read_level(*where))


def slide_times(path: Path, encoder: SlideEncoder, given: Given, folder: Path) -> SlideTimes:
    """Measure one slide, one stage after another."""
    recipe, watch = encoder.recipe, Stopwatch()
    encoder.load()
    with open_slide(path, mpp=given[0], override_mpp=given[1]) as slide:
        tissue = watch.time("look", lambda: find_tissue(slide))
        tiles = watch.time("look", lambda: tile(slide, tissue, size_px=recipe.patch_px, mpp=recipe.mpp))
        mosaic = watch.time("look", lambda: select_mosaic(slide, tiles))
        timed = Slide(TimedLevels(slide._levels, watch), slide._scale, slide.name, slide.path)
        size, scale, corners = recipe.patch_px, recipe.mpp, mosaic.l0_xy.tolist()
        pixels = watch.time("resample", lambda: [timed.read((x, y), size, scale) for x, y in corners])
        watch.seconds["resample"] -= watch.seconds["decode"]
        stack = np.stack(pixels) if pixels else np.empty((0, size, size, 3), np.uint8)
        features = watch.time("infer", lambda: encoder.features(stack))
        barcodes = watch.time("bits", lambda: encoder.barcodes(features))
        row = SlideRow(
            slide_id=path.stem, path=str(path), n_patches=len(barcodes), patch_l0_px=mosaic.l0_size,
            mpp=slide.mpp, mpp_source=slide.mpp_source, width=slide.dimensions[0], height=slide.dimensions[1],
            label=None, patient=path.stem, site=None, status="indexed" if len(barcodes) else "no_tissue",
            metadata={},
        )  # fmt: skip
    keys = np.zeros((len(barcodes), 1), np.int64)
    with Store.create(folder / f"{path.stem}.store", {}) as store:
        watch.time("write", lambda: store.append(row, keys, barcodes, mosaic.l0_xy))
    return SlideTimes(path.stem, len(barcodes), watch.seconds)


def add_times(slides: Sequence[Path], recipe: Recipe, given: Given, readers: int, folder: Path) -> AddTimes:
    """Measure `Index.add` of all slides with this number of reading threads."""
    index = Index.create(folder / f"{readers}.sish", recipe=recipe)
    index.encoder.workers = readers
    start = time.perf_counter()
    report = index.add(slides, mpp=given[0], override_mpp=given[1], show_progress=False)
    seconds = time.perf_counter() - start
    count, patches = len(report.added), sum(row.n_patches for row in index.slides)
    return AddTimes(readers, count, patches, seconds, 60 * count / seconds, patches / seconds)


def cost_table(costs: Sequence[Cost]) -> str:
    """Return the costs as text, with the ratio of the last row, the authors', to the first."""
    lines = [f"{'encoder':18} {'patch':>18} {'ms/patch':>10} {'s/mm2':>9} {'GFLOP/mm2':>10}"]
    lines += [
        f"{row.encoder:18} {f'{row.patch_px} px at {row.mpp:g} um':>18} {row.ms_per_patch:10.1f} "
        f"{row.s_per_mm2:9.3f} {row.gflop_per_mm2:10.1f}"
        for row in costs
    ]
    ours, theirs = costs[0], costs[-1]
    lines.append(
        f"For the same tissue the default takes {theirs.s_per_mm2 / ours.s_per_mm2:.1f} times less time and "
        f"{theirs.gflop_per_mm2 / ours.gflop_per_mm2:.1f} times fewer operations than {theirs.encoder}"
        + ("." if theirs.encoder == "authors' both" else "; DenseNet121 left out, as timm does not load.")
    )
    return "\n".join(lines)


def stage_table(rows: Sequence[SlideTimes]) -> str:
    """Return the stages as text, in milliseconds."""
    lines = [f"{'slide':32} {'patches':>8} " + " ".join(f"{name + ' ms':>12}" for name in STAGES)]
    for row in rows:
        cells = " ".join(f"{1e3 * row.seconds[name]:12.1f}" for name in STAGES)
        lines.append(f"{row.slide[:32]:32} {row.patches:8} {cells}")
    whole = sum(sum(row.seconds.values()) for row in rows)
    shares = ", ".join(f"{name} {sum(row.seconds[name] for row in rows) / whole:.0%}" for name in STAGES)
    return "\n".join([*lines, f"Shares of {whole:.1f} s: {shares}."])


def add_table(rows: Sequence[AddTimes]) -> str:
    """Return the times of `Index.add` as text, a line for each number of readers."""
    return "\n".join(
        f"Index.add with {row.readers} reading thread(s): {row.slides} slides, {row.patches} patches in "
        f"{row.seconds:.1f} s: {row.slides_per_min:.1f} slides/min, {row.patches_per_s:.1f} patches/s"
        for row in rows
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables and return the exit code."""
    import torch

    given = _parser().parse_args(arguments)
    torch.set_num_threads(given.threads)
    os.environ["OMP_NUM_THREADS"] = str(given.threads)  # the default encoder's
    encoder = load(given.weights)
    recipe = replace(Recipe.of(given.weights), patch_px=encoder.patch_px, mpp=encoder.mpp)
    repetitions = 2 if given.quick else 5
    costs = [default_cost(f"default ({given.weights})", encoder, 10 * repetitions)]
    costs += paper_costs(repetitions)
    print(f"{given.threads} thread(s) of torch\n{cost_table(costs)}\n", flush=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        slides = find_slides(given.slides or _generated(folder, quick=given.quick))
        scale = (given.mpp, given.override_mpp)
        stages = [slide_times(path, SlideEncoder(recipe), scale, folder) for path in slides]
        print(f"{stage_table(stages)}\n", flush=True)
        readers = sorted({1, given.readers})
        adds = [add_times(slides, recipe, scale, number, folder) for number in readers]
    print(add_table(adds))
    if given.json:
        parts: dict[str, Sequence[Any]] = {"cost": costs, "slides": stages, "add": adds}
        plain: dict[str, Any] = {name: [asdict(row) for row in rows] for name, rows in parts.items()}
        write_output(
            given.json, json.dumps(plain | {"threads": given.threads}, indent=1).encode(), replaces=(".json",)
        )
    return 0


def _generated(folder: Path, *, quick: bool) -> Path:
    (folder / "slides").mkdir()
    write_slides(folder / "slides", n_slides=2 if quick else 6, side_um=600 if quick else 2500)
    return folder / "slides"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.encode", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--weights", default=TISSUE, help="the encoder, as a recipe names it")
    parser.add_argument(
        "--slides", type=Path, metavar="DIR", help="slides to encode; default: generated ones"
    )
    parser.add_argument("--mpp", type=float, help="scale of slides that do not tell theirs")
    parser.add_argument("--override-mpp", type=float, help="scale of all slides, whatever they tell")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch; default 1")
    parser.add_argument("--readers", type=int, default=default_workers(), help="reading threads")
    parser.add_argument("--quick", action="store_true", help="two small slides and fewer repetitions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
