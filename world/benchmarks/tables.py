"""Parquet files as the Hugging Face hub keeps them: columns with features, images as bytes and path."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Feature = Any  # "string", "int64", ..., "image", [feature] for a list, {name: feature} for a struct
IMAGE = "image"
Row = Mapping[str, Any]


def image(jpeg: bytes, path: str) -> dict[str, Any]:
    """The cell of an image column."""
    return {"bytes": jpeg, "path": path}


def write_parquet(path: Path, columns: Mapping[str, Feature], rows: Sequence[Row]) -> None:
    """`rows` with exactly `columns`, uncompressed and without statistics, so that bytes depend on content alone.

    Raises:
        ValueError: If a row has other columns.
    """
    for row in rows:
        if row.keys() != columns.keys():
            raise ValueError(f"{path.name}: expected the columns {list(columns)}, got {list(row)}.")
    info = {"info": {"features": {name: _hub_feature(feature) for name, feature in columns.items()}}}
    schema = pa.schema([(name, _arrow_type(feature)) for name, feature in columns.items()])
    table = pa.Table.from_pylist(list(rows), schema=schema.with_metadata({"huggingface": json.dumps(info)}))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="none", use_dictionary=False, write_statistics=False, row_group_size=100)


def _arrow_type(feature: Feature) -> pa.DataType:
    if feature == IMAGE:
        return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    if isinstance(feature, list):
        return pa.list_(_arrow_type(feature[0]))
    if isinstance(feature, dict):
        return pa.struct([(name, _arrow_type(inner)) for name, inner in feature.items()])
    return pa.type_for_alias(feature)


def _hub_feature(feature: Feature) -> Any:
    if feature == IMAGE:
        return {"_type": "Image"}
    if isinstance(feature, list):
        return {"feature": _hub_feature(feature[0]), "_type": "Sequence"}
    if isinstance(feature, dict):
        return {name: _hub_feature(inner) for name, inner in feature.items()}
    return {"dtype": feature, "_type": "Value"}
