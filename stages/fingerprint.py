"""The fingerprint of a stage's code: what a change must touch to make the engine run the stage again.

It covers the stage's module and, transitively, every project module that these modules import explicitly, plus the
data files (templates, presets) beside a stage's module. Comments, docstrings and layout do not count: the hash is over
the syntax tree. Packages from outside are recorded with every execution instead.
"""

import ast
import functools
import hashlib
from pathlib import Path

from stages.contract import Stage

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("schemas", "worldline", "stages")


def fingerprint_stage(stage: Stage) -> dict[str, str]:
    """Return `{relative file: hash}` of the code that a stage runs."""
    files: dict[str, str] = {}
    pending = [_module_file(stage.function.__module__)]
    while pending:
        file = pending.pop()
        if file is None or file in files:
            continue
        files[file], imports = _hash_module(_ROOT / file)
        pending.extend(_module_file(name) for name in imports)
    room = Path(_module_file(stage.function.__module__) or "").parent
    for data in sorted((_ROOT / room).iterdir()):
        if data.suffix in (".html", ".css", ".js", ".yaml", ".toml"):
            files[str(room / data.name)] = hashlib.sha256(data.read_bytes()).hexdigest()
    return dict(sorted(files.items()))


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
def _hash_module(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return the hash of a module's syntax tree without docstrings, and the dotted names that it imports."""
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
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(imports)
