"""Scores that are read as attributes and as items of a mapping."""

from collections.abc import Iterator, Mapping
from typing import Any


class FieldMapping(Mapping[str, Any]):
    """Base class of dataclasses whose fields are also items of a mapping: `scores["accuracy"]`."""

    __dataclass_fields__: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        if name not in self.__dataclass_fields__:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dataclass_fields__)

    def __len__(self) -> int:
        return len(self.__dataclass_fields__)
