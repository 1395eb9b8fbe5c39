"""Why two executions of a stage differ, in the words that `explain`, `rebuild` and `accept` share."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from catalogs.catalog import Execution
from schemas.canonical import leaves
from stages.contract import Stage

_NAMED = 4  # definitions of a file that are named


def setting_changes(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return one text per setting that differs, by its dotted path."""
    old, new = leaves(recorded), leaves(now)
    names = sorted(old.keys() | new.keys())
    return [f"config.{name} {old.get(name)} -> {new.get(name)}" for name in names if old.get(name) != new.get(name)]


def code_changes(recorded: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the files whose fingerprint differs, each with the constants (both values), functions and classes that do.

    Executions that were recorded before definitions were tell files only.
    """
    both_tell = _tells_definitions(recorded) and _tells_definitions(now)
    texts = []
    for file in sorted(name for name in recorded.keys() | now.keys() if ":" not in name):
        if recorded.get(file) == now.get(file):
            continue
        inside = []
        for item in sorted(name for name in recorded.keys() | now.keys() if both_tell and name.startswith(f"{file}:")):
            old, new = recorded.get(item), now.get(item)
            if old != new:
                hidden = any(text is None or text.startswith("#") for text in (old, new))  # a hash
                inside.append(item.partition(":")[2] + ("" if hidden else f" {old} -> {new}"))
        more = f" and {len(inside) - _NAMED} more" if len(inside) > _NAMED else ""
        texts.append(file + (f" ({', '.join(inside[:_NAMED])}{more})" if inside and file in recorded and file in now else ""))
    return texts


def _tells_definitions(files: Mapping[str, str]) -> bool:
    return any(":" in name for name in files)


def package_changes(recorded: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return one text per package whose recorded version differs from today's."""
    return [f"{name} {old} -> {now.get(name, 'missing')}" for name, old in sorted(recorded.items()) if old != now.get(name)]


def machine_changes(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return one text per fact about the machine that both say and that differs."""
    return [
        f"{name} {recorded[name]} -> {now[name]}" for name in sorted(recorded.keys() & now.keys()) if recorded[name] != now[name]
    ]


def explain_difference(
    stage: Stage,
    previous: Execution | None,
    config: Mapping[str, Any],
    files: Mapping[str, str],
    inputs: Mapping[str, str],
    seed: int,
    packages: Mapping[str, str],
) -> str:
    """Say in one line what differs from the last recorded execution of a stage in what its key is made of."""
    if previous is None:
        return "never run before"
    reasons = [f"version {previous.version} -> {stage.version}"] if previous.version != stage.version else []
    reasons += setting_changes(previous.config, config)
    if previous.seed != seed:
        reasons.append(f"seed {previous.seed} -> {seed}")
    if changed := code_changes(previous.code_files, files):
        reasons.append(f"code changed in {', '.join(changed)}")
    keyed = {name: version for name, version in previous.packages.items() if name in stage.environment_packages}
    reasons += package_changes(keyed, packages)
    others = Counter(name.partition(".")[0] for name in inputs if previous.inputs.get(name) != inputs[name])
    reasons += [f"other {slot}" if slot in inputs else f"{count} other {slot}" for slot, count in others.items()]
    return "; ".join(reasons) or "its recorded output is missing or damaged"


def likely_cause(recorded: Execution, now: Execution, config: Mapping[str, Any], upstream: Sequence[str]) -> str:
    """Say what may have made a stage's result differ, the likeliest first.

    Args:
        recorded: the execution on record, with empty machine or packages where these are not known.
        now: the execution that came out different.
        config: the settings that the stage saw now, with today's defaults.
        upstream: inputs that were different already, with the stage that made them.
    """
    causes = [f"inputs already different: {', '.join(upstream)}"] if upstream else []
    if recorded.version != now.version:
        causes.append(f"version {recorded.version} -> {now.version}")
    if changed := code_changes(recorded.code_files, now.code_files):
        causes.append(f"code changed in {', '.join(changed)}")
    causes += setting_changes(recorded.config, config)
    if changed := package_changes(recorded.packages, now.packages):
        causes.append(f"other packages: {', '.join(changed)}")
    if changed := machine_changes(recorded.machine, now.machine):
        causes.append(f"other machine: {', '.join(changed)}")
    return "; ".join(causes) or "not reproducible on the same code, packages and machine"
