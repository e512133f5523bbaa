"""Which room of the house may know which: the table in CONTRIBUTING against the imports in the code.

Every import counts: at the top of a module, inside a function, and for type checkers only. The face of a
folder (its ``__init__``) may know the rooms inside it, too; ``sish/__init__.py`` hands on all rooms' names.
"""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOPS = {"sish": "sish", "index": "sish.index", "vqvae": "sish.vqvae"}
ROW = re.compile(r"^\| (?P<names>`[^|]+) \| [^|]+ \| (?P<knows>[^|]+) \|$", re.MULTILINE)
EVERYTHING = "all above"


def package_files() -> dict[str, Path]:
    """The modules by name; those behind the links in ``sish/`` once."""
    found = {}
    for top, package in TOPS.items():
        for path in (ROOT / top).rglob("*.py"):
            parts = path.relative_to(ROOT / top).with_suffix("").parts
            if top == "sish" and parts[0] in ("index", "vqvae"):
                continue
            found[".".join((package, *(part for part in parts if part != "__init__")))] = path
    return found


FILES = package_files()


def imports_of(tree: ast.AST, package: str = "sish") -> set[str]:
    """The modules of sish that a module imports, wherever in it; relative ones are relative to `package`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = f"{package}.{node.module}" if node.level else node.module
            inner = {f"{module}.{name.name}" for name in node.names}
            found |= {name if name in FILES else module for name in inner}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return {name for name in found if name.split(".")[0] == "sish"}


def source_of(path: Path) -> str:
    """What a module holds; of a face, what it hands on, too."""
    face = path.with_suffix(".pyi")
    return path.read_text() + (face.read_text() if face.exists() else "")


ARROWS = {
    name: imports_of(ast.parse(source_of(path)), name) - {name}
    for name, path in FILES.items()
    if name != "sish"
}


def drawn() -> dict[str, tuple[str, ...]]:
    """Each room of the table in CONTRIBUTING and the rooms that it knows, from the ground up."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rooms: dict[str, tuple[str, ...]] = {}
    for row in ROW.finditer(text):
        words = tuple(re.findall(r"`([^`]+)`", row["knows"]))
        knows = tuple(rooms) if row["knows"].strip() == EVERYTHING else words
        for name in re.findall(r"`([^`]+)`", row["names"]):
            rooms[name] = knows
    return rooms


ROOMS = drawn()


def room_of(module: str) -> str:
    """The room of a module: the longest name in the table that it begins with."""
    path = module.removeprefix("sish.").replace(".", "/")
    if path.split("/")[0] not in ("index", "vqvae"):
        path = f"sish/{path}"
    fitting = [name for name in ROOMS if path == name.removesuffix(".py") or f"{path}/".startswith(name)]
    return max(fitting, key=len)


def test_the_table_is_read():
    assert {"sish/slides/", "sish/systems/", "sish/cli/", "sish/", "vqvae/", "index/"} <= set(ROOMS)
    assert {room_of(name) for name in ARROWS} == set(ROOMS)


def test_the_rules_that_no_table_may_loosen():
    ground = {name for name in ROOMS if re.fullmatch(r"sish/[a-z]+\.py", name)}
    errors = {"sish/errors.py"}
    assert set(ROOMS["sish/slides/"]) == errors
    assert set(ROOMS["vqvae/"]) <= ground | {"sish/slides/"}
    assert all(set(ROOMS[name]) <= ground for name in ground)
    inside = {name for name in ROOMS if name.startswith("index/")}
    assert all(set(ROOMS[name]) <= errors | inside for name in inside)
    assert not [name for name, knows in ROOMS.items() if "sish/cli/" in knows and name != "sish/__main__.py"]


@pytest.mark.parametrize("module", sorted(ARROWS))
def test_a_module_knows_what_the_table_says(module):
    room = room_of(module)
    may = {room, *ROOMS[room]}
    if FILES[module].name == "__init__.py":
        may |= {name for name in ROOMS if name.startswith(room)}
    wrong = {name for name in ARROWS[module] if room_of(name) not in may}
    assert not wrong, f"{module} imports {sorted(wrong)}; CONTRIBUTING: {room} knows {ROOMS[room]}"


def test_no_circle_among_modules():
    try:
        TopologicalSorter(ARROWS).prepare()
    except CycleError as error:
        pytest.fail(f"these modules import each other: {' -> '.join(error.args[1])}")


def test_an_import_inside_a_function_is_seen():
    assert imports_of(ast.parse("def f():\n    from sish.vqvae import cli")) == {"sish.vqvae.cli"}
    assert imports_of(ast.parse("if TYPE_CHECKING:\n    import sish.errors")) == {"sish.errors"}


def test_the_names_of_the_package_itself_are_all_its_rooms():
    for line in ("from sish import Index", "import sish"):
        assert {room_of(name) for name in imports_of(ast.parse(line))} == {"sish/"}, line
