"""Settings as plain data: tables of TOML, settings put on top, and the strict way from a table to a dataclass
and back. Which settings there are is config.py's.
"""

import dataclasses
import difflib
import inspect
import math
import tomllib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from yolo9000.errors import TrainingError


def from_dict(cls: type, table: dict[str, Any], where: str, prefix: str = "") -> Any:
    """A dataclass from plain data; every key must be a field, every value of the field's type."""
    if not isinstance(table, dict):
        raise TrainingError(
            f"{where}: {prefix.rstrip('.') or 'the file'} is a table of settings, not {table!r}"
        )
    hints = typing.get_type_hints(cls)
    _check_keys(table, hints, where, prefix)
    missing = [
        f.name
        for f in dataclasses.fields(cls)
        if f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
        and f.name not in table
    ]
    if missing:
        raise TrainingError(f"{where}: {prefix}{missing[0]} is missing")
    values = {key: _convert(hints[key], value, where, f"{prefix}{key}") for key, value in table.items()}
    try:
        return cls(**values)
    except TrainingError as error:
        raise TrainingError(str(error) if where in str(error) else f"{where}: {error}") from None


def keywords(call: Callable[..., Any], table: dict[str, Any], name: str) -> dict[str, Any]:
    """Keyword arguments from the table called `name`: every key must be one that `call` has a default for,
    other than None, every value of that default's type. Raises TrainingError."""
    defaults = {key: parameter.default for key, parameter in inspect.signature(call).parameters.items()}
    hints = {
        key: tuple[type(default[0]), ...] if isinstance(default, tuple) else type(default)
        for key, default in defaults.items()
        if default is not None and default is not inspect.Parameter.empty
    }
    where = "configuration"
    _check_keys(table, hints, where, f"{name}.")
    return {key: _convert(hints[key], value, where, f"{name}.{key}") for key, value in table.items()}


def to_dict(config: Any) -> dict[str, Any]:
    """Plain JSON-able data from which `from_dict` makes the same configuration."""
    return _plain(dataclasses.asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value


def _check_keys(table: dict[str, Any], known: dict[str, Any], where: str, prefix: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
            hint = f"; did you mean {' or '.join(near)}?" if near else f"; known: {', '.join(known)}"
            raise TrainingError(f"{where}: unknown key {prefix}{key}{hint}")


def _convert(hint: Any, value: Any, where: str, key: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where, f"{key}.")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        if isinstance(value, str) and arguments[0] is str:
            value = [value]  # source = "coco" for source = ["coco"]
        if not isinstance(value, list | tuple):
            raise TrainingError(f"{where}: {key} is a list, not {value!r}")
        if arguments[-1] is Ellipsis:
            return tuple(_convert(arguments[0], v, where, f"{key}.{i}") for i, v in enumerate(value))
        if len(value) != len(arguments):
            raise TrainingError(f"{where}: {key} has {len(arguments)} values, not {len(value)}")
        return tuple(
            _convert(a, v, where, f"{key}.{i}") for i, (a, v) in enumerate(zip(arguments, value, strict=True))
        )
    if origin is dict:
        if not isinstance(value, dict):
            raise TrainingError(f"{where}: {key} is a table, not {value!r}")
        return {k: _convert(arguments[1], v, where, f"{key}.{k}") for k, v in value.items()}
    if hint is Any:
        _check_finite(value, where, key)
        return value
    if isinstance(hint, types.UnionType):
        raise TypeError(f"{key}: unions are not supported in configurations")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not hint:
        names = {str: "text", int: "a whole number", float: "a number such as 0.5", bool: "true or false"}
        text = ", which is text to TOML" if isinstance(value, str) else ""
        raise TrainingError(f"{where}: {key} is {names[hint]}, not {value!r}{text}")
    _check_finite(value, where, key)
    return value


def _check_finite(value: Any, where: str, key: str) -> None:
    """TOML's nan and inf are floats; nothing that is set here means anything by one."""
    for one in value if isinstance(value, list | tuple) else ():
        _check_finite(one, where, key)
    if isinstance(value, float) and not math.isfinite(value):
        reason = "is not a number (NaN)" if value != value else "is infinite; give a number such as 1e9"
        raise TrainingError(f"{where}: {key} {reason}")


def read_table(path: Path, find: Callable[[str], Path], seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The table of a TOML file, merged over that of its `base`, if it names one.

    A base is a file beside this one, or what `find` gives for its name. seen: files whose base this is.
    Raises TrainingError naming the file.
    """
    if path in seen:
        raise TrainingError(f"{path}: base leads back to itself")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"{path}: not a readable TOML file: {error}") from None
    base = table.pop("base", None)
    if base is None:
        return table
    beside = path.parent / str(base)
    start = read_table(beside if beside.is_file() else find(str(base)), find, (*seen, path))
    start.pop("name", None)
    _make_way(start, table)
    return _merge(start, table)


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _make_way(table: dict[str, Any], top: Mapping[str, Any]) -> None:
    """Takes the length of the run out of the table where `top`, to be put on it, says it the other way; 0 of
    one says nothing of the other."""
    for key, other in (("images", "epochs"), ("epochs", "images")):
        if top.get(key, 0) != 0:
            table.pop(other, None)


def apply_settings(table: dict[str, Any], settings: Sequence[str]) -> None:
    """Puts each `key=value` into the table in place; dotted keys, values TOML or else text. A length of the
    run takes the place of the table's, whether in images or epochs. TrainingError."""
    said = [_said(setting) for setting in settings]
    _make_way(table, dict(said))
    for setting, (key, value) in zip(settings, said, strict=True):
        *parents, last = key.split(".")
        here: Any = table
        for name in parents:
            here = _step(here, name, setting)
        here[_key(here, last, setting)] = value


def _said(setting: str) -> tuple[str, Any]:
    """Key and value. TrainingError."""
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise TrainingError(f"--set {setting}: wanted key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    return key.strip(), value


def _step(here: Any, name: str, setting: str) -> Any:
    key = _key(here, name, setting)
    return here[key] if isinstance(here, list) else here.setdefault(key, {})


def _key(here: Any, name: str, setting: str) -> str | int:
    """What `here` has by this name is found at."""
    if isinstance(here, list):
        return _position(here, name, setting)
    if not isinstance(here, dict):
        raise TrainingError(f"--set {setting}: {name} lies below something that has no keys")
    return name


def _position(parts: list, name: str, setting: str) -> int:
    for position, part in enumerate(parts):
        if str(position) == name or (isinstance(part, dict) and part.get("name") == name):
            return position
    known = [p.get("name") or str(i) for i, p in enumerate(parts) if isinstance(p, dict)]
    raise TrainingError(f"--set {setting}: no part {name}; there are {', '.join(known)}")
