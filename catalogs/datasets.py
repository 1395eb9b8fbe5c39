"""A dataset version to read from: its artifacts, tables and clips."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalogs.records import DatasetVersion

if TYPE_CHECKING:
    from catalogs.catalog import Catalog


@dataclass(frozen=True, kw_only=True)
class Dataset(DatasetVersion):
    """A dataset version together with the catalog that holds it.

    Attributes:
        catalog: where its artifacts are loaded from.
    """

    catalog: "Catalog"
