"""Pretrained models by repository id or local folder: found, pinned to a state, and named in one sentence where they are not.

A repository is pinned by the commit that its revision stands for, a folder by the digest of its files; an execution's
key made from either changes when the model does.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from schemas.canonical import TaggedHash, hash_file
from schemas.errors import WorldlineError
from worldline.diffusion.devices import resolve_device

Config = TypeVar("Config")  # of a stage that asks a model: has `model`, `revision`, `weights` and `device`
_CARD = "README.md"
# Only safetensors: pickled weights could run anything.
_WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", _CARD)


def locate_transformer(model: str, revision: str | None, setting: str) -> tuple[Path, str]:
    """Return the folder with the files of a transformers checkpoint, and their commit ("" for a plain folder).

    Args:
        model: repository id OWNER/NAME, or a folder in transformers' format.
        revision: commit, tag or branch of a repository; None takes its main branch.
        setting: the setting that names it, for messages.

    Raises:
        WorldlineError: if it is neither here nor can be downloaded.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise WorldlineError(f"{setting}: the folder {model} holds no config.json: save the model there with save_pretrained")
        return folder, ""
    if model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise WorldlineError(
            f"{setting}: there is no folder {model}: give a folder in transformers' format or a repository id OWNER/NAME"
        )
    from huggingface_hub import snapshot_download

    try:
        try:  # what is cached needs no network, and stays the same
            found = snapshot_download(model, revision=revision, allow_patterns=list(_WANTED), local_files_only=True)
        except Exception:
            found = snapshot_download(model, revision=revision, allow_patterns=list(_WANTED))
    except Exception as error:  # the hub's client raises a dozen unrelated types
        at = f" at revision {revision}" if revision else ""
        fetch = f"hf download {model}" + (f" --revision {revision}" if revision else "")
        raise WorldlineError(
            f"{setting}: the model {model}{at} is not in the local cache and cannot be downloaded ({first_line(error)}): "
            f"connect once and run `{fetch}`, or give a local folder"
        ) from error
    return Path(found), Path(found).name


@dataclass(frozen=True)
class Checkpoint:
    """A model at hand.

    Attributes:
        name: as the settings name it.  folder: with its files.
        revision: commit of a repository, "" for a folder.  weights: digest of a folder, "" for a repository.
        device: torch's name of where it is to run.
    """

    name: str
    folder: Path
    revision: str
    weights: str
    device: str


def open_checkpoint(config: Any, setting: str) -> Checkpoint:
    """Find the model that a stage's config names.

    Args:
        config: with `model`, `revision`, `weights` (the digest that a folder must have, "" for any) and `device`.
        setting: the setting that names the model, for messages.

    Raises:
        WorldlineError: if the model is not at hand, or a folder is not in the pinned state.
    """
    folder, revision = locate_transformer(config.model, config.revision, setting)
    weights = folder_digest(folder) if is_folder(config.model) else ""
    if config.weights and config.weights != weights:
        raise WorldlineError(f"the model folder {config.model} has digest {weights or 'none'}, not the pinned {config.weights}")
    return Checkpoint(config.model, folder, revision, weights, resolve_device(config.device))


def pin_checkpoint(config: Config, setting: str) -> Config:
    """Return a stage's config with its model's present state and this machine's device in it; as it is without a model.

    Raises:
        WorldlineError: if the model is not at hand.
    """
    asked: Any = config
    if not asked.model:
        return config
    found = open_checkpoint(dataclasses.replace(asked, weights=""), setting)
    pinned: Config = dataclasses.replace(asked, revision=found.revision or None, weights=found.weights, device=found.device)
    return pinned


def load_processor_and_model(checkpoint: Checkpoint, setting: str, purpose: str, *kinds: Any) -> tuple[Any, Any]:
    """Load image processor and model in single precision and put the model on its device, ready to be asked.

    Args:
        checkpoint: what to load.
        setting: the setting that names it, for messages.
        purpose: what the model is for ("a depth-estimation model"), for messages.
        *kinds: transformers' auto classes to try in turn.

    Raises:
        WorldlineError: if it is none of these kinds, is not whole, or does not fit on the device.
    """
    from transformers import AutoImageProcessor

    with _no_progress_bars():
        try:
            processor = AutoImageProcessor.from_pretrained(checkpoint.folder, local_files_only=True)
            model = _load_first(checkpoint.folder, kinds)
        except (OSError, ValueError, ImportError, KeyError) as error:
            raise WorldlineError(
                f"{setting}: {checkpoint.name} does not load as {purpose} ({first_line(error)}): check that it is one, that the "
                "folder is whole, and that its weights are safetensors"
            ) from error
    try:
        return processor, model.to(checkpoint.device).eval()
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        room = setting.rpartition(".")[0]
        raise WorldlineError(
            f"{setting}: {checkpoint.name} does not fit on {checkpoint.device} ({first_line(error)}): set {room}.device"
        ) from error


def _load_first(folder: Path, kinds: tuple[Any, ...]) -> Any:
    for kind in kinds[:-1]:
        with contextlib.suppress(ValueError):  # of another kind: the config's type is in another class's list
            return kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype="float32")
    return kinds[-1].from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype="float32")


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

    shown = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            enable_progress_bar()


def is_folder(model: str) -> bool:
    """Return whether a model is named by a folder here."""
    return Path(model).expanduser().is_dir()


def folder_digest(folder: Path) -> str:
    """Return the SHA-256 over the names and contents of a model folder's files; hidden ones do not count."""
    digest = TaggedHash("model-folder/1")
    for path in sorted(folder.rglob("*"), key=lambda item: item.relative_to(folder).as_posix()):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            digest.field(name.as_posix().encode()).field(hash_file(path).encode())
    return digest.hexdigest()


def licence_of(folder: Path) -> str:
    """Return the licence that the model card in a folder names ("apache-2.0"), "" where it names none."""
    from huggingface_hub import ModelCard

    card = folder / _CARD
    if not card.is_file():
        return ""
    try:
        named = ModelCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=True).data.to_dict().get("license")
    except (ValueError, OSError):
        return ""
    return named if isinstance(named, str) else ""


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
