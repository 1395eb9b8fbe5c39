"""Exports of the published street, by format."""

from pathlib import Path
from typing import Any

from catalogs.catalog import Catalog
from catalogs.exports import FORMATS, Export, export
from tasks.exporting_labels import label_formats


def write(catalog: Catalog, form: str, out: Path, **chosen: Any) -> Export:
    return export(catalog, "street", form, out, formats=FORMATS | label_formats(), **chosen)
