"""Base of all typed IO managers: type check, path and metadata."""

# No `from __future__ import annotations` here: Dagster reads ResourceDependency from the class body.

from abc import abstractmethod
from typing import Any, ClassVar

import dagster as dg
import pyarrow as pa
from upath import UPath

from io_managers.storage import Storage


class TypedIOManager(dg.ConfigurableIOManager):
    """Stores one type of value at ``<root>/<campaign>/<asset><suffix>``; never falls back to pickle.

    A subclass writes, reads and describes its type. It writes atomically
    (:func:`mlip_assets.common.files.write_atomically`), and raises a ValueError that names the
    column, key or array if the value does not fulfil the contract of the asset.
    """

    storage: dg.ResourceDependency[Storage]

    value_type: ClassVar[type]
    suffix: ClassVar[str]

    @abstractmethod
    def write(self, value: Any, path: UPath, contract: dict[str, Any]) -> None:
        """Store ``value``; ``contract`` is the definition metadata of the asset."""

    @abstractmethod
    def read(self, path: UPath) -> Any:
        """Load what :meth:`write` stored."""

    @abstractmethod
    def describe(self, value: Any, path: UPath) -> dict[str, Any]:
        """Row count, size on disk and schema, as Dagster metadata."""

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Check the type, write, and attach the metadata."""
        asset = context.asset_key.to_user_string()
        if not isinstance(obj, self.value_type):
            raise TypeError(
                f"{asset} must be a {self.value_type.__name__}, got {type(obj).__name__}; its IO "
                f"manager {type(self).__name__} stores nothing else"
            )
        path = self._path(context)
        self.write(obj, path, dict(context.definition_metadata))
        context.add_output_metadata({"path": dg.MetadataValue.path(str(path))})
        context.add_output_metadata(self.describe(obj, path))

    def load_input(self, context: dg.InputContext) -> Any:
        """Read the upstream asset of the same campaign."""
        path = self._path(context)
        if not path.exists():
            raise FileNotFoundError(
                f"{context.asset_key.to_user_string()} of campaign '{context.partition_key}' does not "
                f"exist ({path}); materialize it first"
            )
        return self.read(path)

    def place(self, asset: str, campaign: str) -> UPath:
        """Path of the value of an asset."""
        return self.storage.folder(campaign) / f"{asset}{self.suffix}"

    def _path(self, context: dg.OutputContext | dg.InputContext) -> UPath:
        return self.place(context.asset_key.path[-1], context.asset_partition_key)


def column_schema(schema: pa.Schema) -> dg.MetadataValue:
    """Column names, types and units of an Arrow schema, for the UI."""
    return dg.MetadataValue.table_schema(
        dg.TableSchema([dg.TableColumn(f.name, str(f.type), _unit(f)) for f in schema])
    )


def _unit(field: pa.Field) -> str | None:
    return (field.metadata or {}).get(b"unit", b"").decode() or None
