"""Pretrained models by repository id or local folder: found, pinned to a state, and named in one sentence where they are not.

A repository is pinned by the commit that its revision stands for, a folder by the digest of its files; an execution's
key made from either changes when the model does.
"""

from pathlib import Path

from schemas.canonical import TaggedHash, hash_file
from schemas.errors import WorldlineError

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


def resolve_device(device: str) -> str:
    """Return a torch device by name; "auto" is CUDA where there is one."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
