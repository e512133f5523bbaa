"""What importing costs: the heavy packages come when they are used, and every module can be imported."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = (
    "torch",
    "numba",
    "matplotlib",
    "pytorch_lightning",
    "lightning",
    "torchvision",
    "timm",
    "pandas",
    "pyarrow",
)


def modules(folder: str, package: str) -> list[str]:
    """The modules of a folder at the top of the project by the names under which they are imported."""
    names = []
    for path in sorted((ROOT / folder).glob("**/*.py")):
        parts = path.relative_to(ROOT / folder).with_suffix("").parts
        if parts[0] in ("index", "vqvae") or parts[-1] == "__main__":
            continue  # the links in sish/ to the folders beside it; running starts on import there
        names.append(".".join((package, *(part for part in parts if part != "__init__"))))
    return names


SISH, INDEX, VQVAE = modules("sish", "sish"), modules("index", "sish.index"), modules("vqvae", "sish.vqvae")


def loaded_after(statements: str) -> set[str]:
    """The top-level packages that a fresh interpreter has loaded after ``statements``."""
    code = f"{statements}\nimport sys\nsys.stdout.write(' '.join({{n.split('.')[0] for n in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_every_folder_has_modules():
    assert "sish.errors" in SISH
    assert "sish.index.store.store" in INDEX
    assert "sish.vqvae" in VQVAE


def test_import_sish_is_light():
    assert not loaded_after("import sish, sish.systems, sish.slides") & {*HEAVY, "PIL", "scipy", "openslide"}


def test_index_does_not_need_torch():
    loaded = loaded_after("\n".join(f"import {name}" for name in INDEX))
    assert "numpy" in loaded
    assert not loaded & {"torch", "pytorch_lightning", "matplotlib"}


def test_the_face_of_index_needs_no_compiler():
    assert not loaded_after("import sish.index; sish.index.SearchParams(); dir(sish.index)") & set(HEAVY)


def test_labels_and_store_need_no_compiler():
    assert not loaded_after("import sish.labels, sish.index.store") & {*HEAVY, "zarr"}


@pytest.mark.slow
def test_every_module_can_be_imported():
    loaded_after("\n".join(f"import {name}" for name in SISH + INDEX + VQVAE))
