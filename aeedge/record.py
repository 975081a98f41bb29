"""Immutable records, made without compiling code.

`typing.NamedTuple` and `dataclasses` compile source for each class, which takes 0.1 to 0.3 ms. Classes that every
program needs at its start derive from `Record`; elsewhere NamedTuple is as good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from typing_extensions import Self, dataclass_transform

    @dataclass_transform(frozen_default=True)
    class _Fields: ...
else:
    _Fields = object


class Record(_Fields):
    """Base of records: a subclass annotates its fields, with defaults; values are passed by position or name.

    Two are equal if they are of the same class and all values are equal. `_fields`, `_replace` and `_asdict` are those
    of a NamedTuple.
    """

    _fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        cls._fields = tuple(cls.__annotations__)

    def __init__(self, *values: Any, **named: Any) -> None:
        given = dict(zip(self._fields, values)) | named
        if len(given) != len(values) + len(named) or not given.keys() <= set(self._fields):
            raise TypeError(f"{type(self).__name__}: expected {', '.join(self._fields)}, got {values} and {named}")
        for name in self._fields:
            if name not in given and not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__}: expected a value for {name}")
        self.__dict__.update((name, given[name] if name in given else getattr(self, name)) for name in self._fields)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be changed; _replace gives a changed copy")

    def _replace(self, **changes: Any) -> Self:
        return type(self)(**(self.__dict__ | changes))

    def _asdict(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def __eq__(self, other: object) -> bool:
        return self.__dict__ == other.__dict__ if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"
