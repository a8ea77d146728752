"""From an array of tables, [[class]], to one setting each, or to every problem of every table.

    class[2]          the second table of the file, as long as it has no good name of its own
    class.tickets     the table whose name is "tickets"

Knows no array by name: what a table may hold is said in its `Tables`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from proxy.config.key import Key, Tables
from proxy.config.kinds import Kind
from proxy.config.problems import Written, missing_value, no_such_key, wrong_value
from proxy.errors import Problem


def read_tables(
    key: Key, tables: Tables, one: Written, known: Sequence[str], problems: list[Problem]
) -> tuple[Any, ...]:
    """Read every table; one with a problem is reported and left out. `known` are the paths of all keys."""
    if not isinstance(one.value, list) or not all(isinstance(table, dict) for table in one.value):
        problems.append(wrong_value(key, key.path, one, tables.allowed))
        return ()
    reader = _Reader(key.path, tables, known, problems)
    read = [reader.read(table, number) for number, table in enumerate(one.value, start=1)]
    return tuple(built for built in read if built is not None)


@attrs.define
class _Reader:
    """Reads the tables of one array, in the order of the file."""

    array: str
    tables: Tables
    known: Sequence[str]
    problems: list[Problem]
    names: set[str] = attrs.field(factory=set)

    def read(self, table: Mapping[str, object], number: int) -> Any:
        """Read one table; None when it has problems."""
        before = len(self.problems)
        path = self._label(table, f"{self.array}[{number}]")
        self.problems += self._strangers(path, table)
        values = dict(self._values(path, table))
        if len(self.problems) > before:
            return None
        built = self.tables.build(**values)
        self.problems += self._disagreements(path, table, built)
        return built

    def _label(self, table: Mapping[str, object], by_number: str) -> str:
        """Say what a table is called in problems: by its name if that is one, and the first of its kind."""
        column = next((column for column in self.tables.keys if column.path == "name"), None)
        if column is None or not isinstance(column.kind, Kind):
            return by_number
        try:
            name = column.kind.read(table.get("name"))
        except (ValueError, OverflowError):
            return by_number
        if name in self.names:
            twice = wrong_value(column, f"{by_number}.name", Written(name), "a name that no other one has")
            self.problems.append(twice)
            return by_number
        self.names.add(name)
        return f"{self.array}.{name}"

    def _strangers(self, path: str, table: Mapping[str, object]) -> Iterator[Problem]:
        ours = {column.path for column in self.tables.keys}
        for name in table:
            if name not in ours:
                yield no_such_key(f"{path}.{name}", table[name], self.known, array=self.array)

    def _values(self, path: str, table: Mapping[str, object]) -> Iterator[tuple[str, Any]]:
        for column in self.tables.keys:
            assert isinstance(column.kind, Kind), "an array inside a table of an array: nobody could read that"
            one = Written(table.get(column.path, column.default))
            if one.value is None:
                if column.needed:
                    self.problems.append(missing_value(f"{path}.{column.path}", column.kind.allowed))
                yield column.field, None
                continue
            try:
                yield column.field, column.kind.read(one.value)
            except (ValueError, OverflowError) as exc:
                self.problems.append(wrong_value(column, f"{path}.{column.path}", one, column.kind.allowed, str(exc)))

    def _disagreements(self, path: str, table: Mapping[str, object], built: Any) -> Iterator[Problem]:
        columns = {column.path: column for column in self.tables.keys}
        faults: dict[str, str] = {}
        for name, find_fault in self.tables.agreements:
            if fault := find_fault(built):
                faults.setdefault(name, fault)
        for name, fault in faults.items():
            column = columns[name]
            yield wrong_value(column, f"{path}.{name}", Written(table.get(name, column.default)), fault)
