"""The keys of a file in YAML, told from its model: a template that holds each of them, and what one of them is."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from inspect import cleandoc
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from csasn.errors import ConfigurationError
from csasn.platform.configuration import EXPECTED, Configuration, form_of, validate
from csasn.platform.registry import check_name, names
from csasn.platform.yaml_text import Dumper

WIDTH = 110
UNITS = {"_s": "seconds", "_deg": "degrees", "_px": "pixels", "_mib": "MiB"}
_BOUNDS = {"gt": "greater_than", "ge": "greater_than_equal", "lt": "less_than", "le": "less_than_equal"}
_ENTRIES = {"min_length": "too_short", "max_length": "too_long"}
_CHARACTERS = {"min_length": "string_too_short", "max_length": "string_too_long"}
_SIMPLE = {str: "text", bool: "true or false", int: "a whole number", float: "a number", NoneType: "null"}


@dataclass(frozen=True)
class Key:
    """One key by its dotted name, in which NAME stands for any; `value` is its default, or an example where it has none.

    `allowed` is empty where keys stand `below` it: of each entry by its name, such as subtype of tasks, or of the group by none.
    """

    name: str
    meaning: str
    allowed: str
    value: object
    required: bool
    follows: bool  # its default, from other keys
    below: Mapping[str, tuple["Key", ...]]

    def is_meant(self, wanted: str) -> bool:
        """Whether `wanted` is its name, with any name in the place of NAME, or the end of that."""
        return f".{self.name}".endswith(f".{wanted}") or fnmatchcase(wanted, self.name.replace("NAME", "*"))

    def lines(self) -> list[str]:
        """For people."""
        default = "no default" if self.required else f"default {_written(self.value)}" if self.allowed and not self.follows else ""
        facts = "; ".join(filter(None, (self.allowed, default)))
        below = [f"  {key.name}: {_first_sentence(key.meaning)}" for keys in self.below.values() for key in keys]
        return [f"{self.name}: {self.meaning}", *([f"  {facts}"] if facts else []), *below]


def keys_of(model: type[Configuration], values: Configuration | None = None, before: str = "") -> tuple[Key, ...]:
    """The keys of a model, those of `values`, or else of an example with what has no default."""
    values = values or validate(model, _example(model), "the example")
    return tuple(_key(name, field, getattr(values, name), before) for name, field in model.model_fields.items())


def template(model: type[Configuration], head: str) -> list[str]:
    """A file with each key and what it is; those with a default are comments that show it."""
    how = "Keys with a default are comments that show it: to change one, take away the # before it, and before the groups it is in."
    return [*_prose(f"{head} {how}", ""), *_block(keys_of(model), "", off=False)]


def explain(model: type[Configuration], wanted: str, file: str) -> list[str]:
    """What a key of `file` is, by its dotted name or the end of that.

    Raises:
        ConfigurationError: there is none; near ones are named.
    """
    known = sorted(_all(keys_of(model)), key=lambda key: key.name.count("."))
    found = [key for key in known if key.name == wanted] or [key for key in known if key.is_meant(wanted)]
    if not found:
        last = {key.name.rpartition(".")[2]: key.name for key in reversed(known)}
        near = dict.fromkeys(last.get(name, name) for name in get_close_matches(wanted, [*last, *(key.name for key in known)], 5))
        hint = f"is it {' or '.join(near)}?" if near else "all keys: --template"
        raise ConfigurationError(f"{wanted!r} is no key of {file}", hint)
    return [line for key in found for line in key.lines()]


def _example(model: type[Configuration]) -> dict[str, object]:
    required = {name: field for name, field in model.model_fields.items() if field.is_required()}
    return {name: field.examples[0] if field.examples else _example(_model(field.annotation)) for name, field in required.items()}


def _model(kind: object) -> type[Configuration]:
    """The model in an annotation such as `About | None`; `Configuration` itself where there is none."""
    parts = [kind, *get_args(kind)]
    return next((part for part in parts if isinstance(part, type) and issubclass(part, Configuration)), Configuration)


def _key(name: str, field: FieldInfo, value: object, before: str) -> Key:
    full, model = f"{before}{name}", _model(field.annotation)
    meaning = " ".join((field.description or (cleandoc(model.__doc__ or "") if model is not Configuration else "")).split())
    below: dict[str, tuple[Key, ...]] = {}
    if isinstance(value, dict) and model is not Configuration:
        below = {entry: keys_of(model, of, f"{full}.NAME.") for entry, of in (value or {"NAME": None}).items()}
    elif model is not Configuration:
        below = {"": keys_of(model, value if isinstance(value, Configuration) else None, f"{full}.")}
    allowed = (
        "" if below else _allowed(field.annotation, field.metadata, next((UNITS[end] for end in UNITS if name.endswith(end)), ""))
    )
    return Key(full, meaning, allowed, value, field.is_required(), bool(field.default_factory_takes_validated_data), below)


def _all(keys: Sequence[Key]) -> Iterator[Key]:
    for key in keys:
        yield key
        for below in key.below.values():
            yield from _all(below)


def _allowed(kind: object, notes: Sequence[object] = (), unit: str = "") -> str:
    """What a value may be, in the words of the errors."""
    origin, parts = get_origin(kind), get_args(kind)
    notes = [one for note in notes for one in (note.metadata if isinstance(note, FieldInfo) else (note,))]
    if origin is Annotated:
        return _allowed(parts[0], [*parts[1:], *notes], unit)
    if origin in (Union, UnionType):
        return ", or ".join(_allowed(part, (), unit) for part in parts)
    words = _BOUNDS | (_CHARACTERS if kind is str else _ENTRIES)
    bounds = [EXPECTED[word].format(**{of: getattr(note, of)}) for of, word in words.items() for note in notes if hasattr(note, of)]
    if origin is tuple:
        return ", ".join(("a list", *bounds, f"each: {_allowed(parts[0])}"))
    if origin is dict:
        return f"keys and values, each value: {_allowed(parts[1])}"
    simple = _SIMPLE.get(kind, "text") if isinstance(kind, type) else "text"
    said = _choice(parts) if origin is Literal else next(filter(None, map(_form, notes)), simple)
    return ", ".join((f"{said} of {unit}" if unit and kind in (int, float) else said, *bounds))


def _form(note: object) -> str:
    """What a pattern stands for, or the names that a registry knows; nothing of another note."""
    of, regex = getattr(note, "func", None), getattr(note, "pattern", None)
    if isinstance(of, partial) and of.func is check_name:
        return _choice(names(*of.args))
    return form_of(regex) if isinstance(regex, str) else ""


def _choice(values: Sequence[object]) -> str:
    *first, last = map(str, values)
    return f"{', '.join(first)} or {last}" if first else last


def _written(value: object) -> str:
    """A value as it stands in a file."""
    plain = value.model_dump(mode="json") if isinstance(value, Configuration) else [*value] if isinstance(value, tuple) else value
    return str(yaml.dump([plain], Dumper=Dumper, default_flow_style=True, allow_unicode=True, width=1 << 20)).strip()[1:-1]


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0]


def _prose(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ", break_on_hyphens=False)


def _block(keys: Sequence[Key], indent: str, *, off: bool) -> Iterator[str]:
    """Keys, one below the other, and the groups below them; where they are `off`, each of their lines is a comment."""
    for key in keys:
        out = off or not key.required
        begin = indent + ("#" if out else "") + key.name.rpartition(".")[2]
        if not indent:
            yield ""
        yield from _prose(f"{key.meaning} [{key.allowed}]" if key.allowed else key.meaning, indent)
        yield f"{begin}:" if key.below else f"{begin}: {_written(key.value)}"
        for entry, below in key.below.items():
            if entry:
                yield f"{indent}  {'#' if out else ''}{entry}:"
            yield from _block(below, indent + "  " * (2 if entry else 1), off=out)
