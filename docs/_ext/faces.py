"""The reference of the Python names: those that a face (``__init__.pyi``) lists, told by their docstrings."""

import ast
import importlib
import inspect
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

FIRST = "sish"
"""The face that shows a name which other faces have too."""

_OPTIONS = {
    "class": ":members:\n   :inherited-members: Module, LightningModule, tuple, object",
    "exception": ":show-inheritance:",
}


def names_of(module: str) -> dict[str, str]:
    """Return the names that a face lists, in its order, each with the module that it comes from."""
    face = Path(str(importlib.import_module(module).__file__)).with_suffix(".pyi")
    lines = ast.parse(face.read_text(encoding="utf-8")).body
    imports = [line for line in lines if isinstance(line, ast.ImportFrom)]
    return {it.asname or it.name: f"{module}.{line.module}" for line in imports for it in line.names}


def text(module: str) -> str:
    """Return Markdown on all names of a face: an overview, then each name, errors last."""
    face = importlib.import_module(module)
    homes = names_of(module)
    kinds = {name: _kind(getattr(face, name)) for name in homes if not name.startswith("_")}
    names = sorted(kinds, key=lambda name: kinds[name] == "exception")
    listed = "".join(f"   {name}\n" for name in names if kinds[name] != "data")
    lines = [_rst(f".. automodule:: {module}\n\n.. autosummary::\n   :nosignatures:\n\n{listed}")]
    for name in names:
        lines.append(f"## `{name}`\n")
        if module != FIRST and name in names_of(FIRST):
            lines.append(f"The same as {{py:obj}}`{FIRST}.{name}`.\n")
        else:
            home = homes[name] if kinds[name] == "data" else module  # where its docstring is
            lines.append(_rst(f".. auto{kinds[name]}:: {home}.{name}\n   {_OPTIONS.get(kinds[name], '')}\n"))
    return "\n".join(lines)


def _rst(lines: str) -> str:
    return f"```{{eval-rst}}\n{lines}```\n"


def _kind(thing: object) -> str:
    """Return the directive of autodoc that tells an object."""
    if not inspect.isclass(thing):
        return "function" if callable(thing) else "data"
    return "exception" if issubclass(thing, BaseException) else "class"


class _Written:
    """An annotation that is shown as it is written in the code."""

    def __init__(self, text: str) -> None:
        """Keep the text."""
        self.text = text

    def __repr__(self) -> str:
        """Return the text without quotes."""
        return self.text


def _as_written(
    _app: Sphinx,
    what: str,
    _name: str,
    thing: object,
    _options: object,
    arguments: str | None,
    _returned: object,
) -> tuple[str, str | None] | None:
    """Return a signature with the types as the code writes them, such as NDArray[np.uint8]."""
    if arguments is None or what not in ("class", "function", "method"):
        return None
    found = inspect.signature(thing)  # type: ignore[arg-type]
    given = [it.replace(annotation=_written(it.annotation)) for it in found.parameters.values()]
    if given and given[0].name in ("self", "cls"):
        del given[0]
    returned = None if what == "class" else _written(found.return_annotation)
    whole = str(inspect.Signature(given))
    return whole, None if returned in (None, inspect.Signature.empty) else repr(returned)


def _written(annotation: object) -> object:
    return _Written(annotation) if isinstance(annotation, str) else annotation


def _words_are_no_types(_app: Sphinx, page: nodes.document) -> None:
    """Show the words of a type, as in "iterable of str", as text: a field may have the same name."""
    for node in list(page.findall(pending_xref)):
        if node["refdomain"] == "py" and not node.next_node(nodes.literal) and node["reftarget"].islower():
            node.replace_self(node.children)


def _not_on_the_site(
    _app: Sphinx, _env: BuildEnvironment, node: pending_xref, shown: nodes.TextElement
) -> nodes.TextElement | None:
    """Show a type as plain text, and also a role whose name is in the code though no page is about it."""
    if node.get("refdomain") != "py":
        return None
    around = [node.get("py:module"), node.get("py:class")]
    target = node["reftarget"].lstrip(".")
    paths = [target, f"{around[0]}.{target}", f"{around[0]}.{around[1]}.{target}"]
    is_type = not isinstance(shown, nodes.literal)
    return shown if is_type or any(map(_is_in_the_code, paths)) else None


def _is_in_the_code(path: str) -> bool:
    """Whether a dotted path is that of a module of sish, or of something in one."""
    module, _, rest = path, "", []
    while module.startswith("sish"):
        try:
            found: object = importlib.import_module(module)
        except ImportError:
            module, _, last = module.rpartition(".")
            rest.insert(0, last)
            continue
        for name in rest:
            fields = getattr(found, "__dataclass_fields__", {})
            if not hasattr(found, name) and name not in fields:
                return False
            found = getattr(found, name, None)
        return True
    return False


def setup(app: Sphinx) -> dict[str, bool]:
    """Let Sphinx know the events."""
    app.connect("autodoc-process-signature", _as_written)
    app.connect("doctree-read", _words_are_no_types)
    app.connect("missing-reference", _not_on_the_site)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
