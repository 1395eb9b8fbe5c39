"""The fingerprint of a stage's code: what a change must touch to make the engine run the stage again.

It covers the stage's module and, transitively, every project module that these modules import explicitly, plus the
data files (templates, presets, shaders) beside them. Comments, docstrings and layout do not count: the hash is over
the syntax tree. Packages from outside are recorded with every execution instead.
"""

import ast
import contextlib
import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path

from stages.contract import Stage

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("schemas", "worldline", "stages")
_LITERAL = 60  # characters of a constant that is kept as it is


def fingerprint_stage(stage: Stage) -> dict[str, str]:
    """Return `{relative file: hash}` of the code that a stage runs."""
    files: dict[str, str] = {}
    pending = [_module_file(stage.function.__module__)]
    while pending:
        file = pending.pop()
        if file is None or file in files:
            continue
        files[file], imports, _ = _hash_module(_ROOT / file)
        pending.extend(_module_file(name) for name in imports)
    for room in {Path(file).parent for file in files}:
        for data in (_ROOT / room).iterdir():
            if data.suffix in (".html", ".css", ".js", ".vert", ".frag", ".yaml", ".toml"):
                files[str(room / data.name)] = hashlib.sha256(data.read_bytes()).hexdigest()
    return dict(sorted(files.items()))


def list_definitions(files: Mapping[str, str]) -> dict[str, str]:
    """Return `{"file:name": literal or hash}` of the constants, functions and classes of fingerprinted modules.

    It is recorded beside the fingerprints and enters no key: it names what changed inside a file, and a constant's
    value before and after.
    """
    modules = {file: _ROOT / file for file in files if file.endswith(".py") and (_ROOT / file).is_file()}
    return {f"{file}:{name}": text for file, path in modules.items() for name, text in _hash_module(path)[2].items()}


def _module_file(name: str) -> str | None:
    """Return the project file of a dotted name (a module, or a member of one), if it is ours."""
    parts = name.split(".")
    if parts[0] not in _PACKAGES:
        return None
    for end in range(len(parts), 0, -1):
        base = Path(*parts[:end])
        for candidate in (base.with_suffix(".py"), base / "__init__.py"):
            # A bare top-level package only registers its members; depending on it would tie every stage to all files.
            if (_ROOT / candidate).is_file() and (end > 1 or len(parts) == 1):
                return str(candidate)
    return None


@functools.cache
def _hash_module(path: Path) -> tuple[str, tuple[str, ...], dict[str, str]]:
    """Return the hash of a module's syntax tree without docstrings, the dotted names that it imports, and its definitions."""
    tree = ast.parse(path.read_bytes())
    imports: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            imports.extend(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(path.relative_to(_ROOT).with_suffix("").parts[: -node.level])
            imports.extend(f"{base}.{node.module or ''}.{alias.name}".replace("..", ".") for alias in node.names)
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            docstring = body[0].value
            if isinstance(docstring, ast.Constant) and isinstance(docstring.value, str):
                docstring.value = ""
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(imports), dict(map(_definition, _named(tree)))


_Named = ast.Assign | ast.AnnAssign | ast.FunctionDef | ast.ClassDef


def _named(tree: ast.Module) -> list[tuple[str, _Named]]:
    """Return what a module defines at its top level, by name."""
    found: list[tuple[str, _Named]] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append((node.name, node))
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += [(target.id, node) for target in targets if isinstance(target, ast.Name)]
    return found


def _definition(named: tuple[str, _Named]) -> tuple[str, str]:
    """Return a definition's name with the value of a short literal, or a hash of anything else."""
    name, node = named
    if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        with contextlib.suppress(ValueError, TypeError, SyntaxError, MemoryError):
            text = repr(ast.literal_eval(node.value))
            if len(text) <= _LITERAL:
                return name, text
    return name, "#" + hashlib.sha256(ast.dump(node).encode()).hexdigest()[:8]  # no literal begins so
