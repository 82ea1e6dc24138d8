"""Reading YAML into frozen models, with errors that name file, key, value, line and what was expected."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from csasn.errors import ConfigurationError
from csasn.platform.yaml_text import Document, Dumper, Key, Mark, YamlTextError, decode, name_of, parse


class Configuration(BaseModel):
    """Base of every configuration model: frozen, no unknown keys, no silent conversion of types. The text below a field is
    its meaning."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


AS_SAID = "as said"


class Grown(Configuration):
    """A part of the study that has `newer` keys: a study in which they say nothing has the hash, and the models, that it had
    without them."""

    newer: ClassVar[Mapping[str, object]] = {}

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, object]:
        """Without the newer keys that say nothing; in a file, those that somebody wrote stay (csasn/model/settling.py)."""
        values: dict[str, object] = handler(self)
        said = self.model_fields_set if info.context == AS_SAID else ()
        return {key: value for key, value in values.items() if key in said or key not in self.newer or value != self.newer[key]}


C = TypeVar("C", bound=Configuration)
MAX_FILE_BYTES = 512 << 10  # some ten seconds of parsing at worst; 1024 sites and 256 classes take a fifth of it
_USERINFO = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://|).*@", re.DOTALL)
MAX_FAULTS, MAX_SHOWN = 10, 200  # faults of a file, and characters of a text out of it, in one message
_UNSHOWN = "unshown"
_PATTERNS: dict[str, str] = {}  # pattern -> what it stands for
_COMMA = re.compile(r"([-+]?[0-9]+),([0-9]+)")
EXPECTED = {  # by the type of a fault, filled with its context
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "tuple_type": "a list, such as [a, b]",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "literal_error": "{expected}",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "multiple_of": "a multiple of {multiple_of}",
    "too_short": "{min_length} or more entries",
    "too_long": "{max_length} or fewer entries",
    "string_too_short": "{min_length} or more characters",
    "string_too_long": "{max_length} or fewer characters",
}


def pattern(regex: str, expected: str) -> object:
    """For a field's annotation: a pattern, and what it stands for in the words of an error."""
    _PATTERNS[regex] = expected
    return Field(pattern=regex)


Sha256 = Annotated[str, pattern(r"^[0-9a-f]{64}$", "64 digits of 0-9 and a-f")]


def form_of(regex: str) -> str:
    """What a pattern stands for."""
    return _PATTERNS.get(regex, "text of another form")


def unshown(problem: str) -> PydanticCustomError:
    """What a validator raises in place of a ValueError where the value may not be shown."""
    return PydanticCustomError(_UNSHOWN, "{problem}", {"problem": problem})


def read_yaml(path: Path) -> Document:
    """The mapping in a YAML file.

    Raises:
        ConfigurationError: the file is missing, larger than 512 KiB, not UTF-8, not YAML, not a mapping, or holds what cannot be.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigurationError(f"{path.name} is larger than {MAX_FILE_BYTES} bytes", "is this the right file?")
        data, marks = parse(decode(path.read_bytes()))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from error
    except YamlTextError as fault:
        raise ConfigurationError(_shown(fault.about(path.name)), _shown(fault.hint)) from None
    if not isinstance(data, dict):
        kind = "nothing" if data is None else "a list" if isinstance(data, list) else "a single value"
        raise ConfigurationError(f"{path.name} holds {kind}, expected keys and values", "see --help for an example")
    return Document(data, marks)


def write_yaml(model: Configuration) -> str:
    """`model` as text that `read_yaml` reads back to the same values."""
    return str(yaml.dump(model.model_dump(mode="json", context=AS_SAID), Dumper=Dumper, sort_keys=False, allow_unicode=True))


def set_keys(data: Mapping[str, object], changes: tuple[str, ...]) -> Document:
    """A copy of `data` in which each `key.subkey=value` of `changes` is set; values are read as YAML."""
    result = json.loads(json.dumps(data, default=str))
    marks = dict(_marks(data))
    for change in changes:
        dotted, separator, text = change.partition("=")
        if not separator or not dotted:
            raise ConfigurationError(f"--set {change!r} is not key=value", "write for example --set federation.rounds=5")
        key = tuple(dotted.split("."))
        place = result
        for parent in key[:-1]:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigurationError(f"--set {dotted}: {parent!r} is a value, not a group of keys", "see the study file")
        try:
            place[key[-1]], new = parse(text)
        except YamlTextError as fault:
            raise ConfigurationError(f"--set {_shown(dotted)}: {_shown(fault.problem)}", "quote what is meant as text") from None
        marks = {old: mark for old, mark in marks.items() if old[: len(key)] != key}
        marks |= {(*key, *below): Mark(0, mark.text, mark.kind) for below, mark in new.items()}
    return Document(result, marks)


def validate(model: type[C], data: Mapping[str, object], source: str) -> C:
    """`data` as a `model`; `source` is the file name that errors mention.

    Raises:
        ConfigurationError: unknown key, wrong type, value out of range or impossible combination; ten faults are listed.
    """
    try:
        return model.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        found, marks = _without_consequences(error.errors(include_url=False)), _marks(data)
        faults = [_describe(fault, marks) for fault in found[:MAX_FAULTS]]
        faults += [f"and {len(found) - MAX_FAULTS} more"] if len(found) > MAX_FAULTS else []
        raise ConfigurationError(f"{source}: " + "; ".join(faults), f"correct {source} and try again") from None


def _without_consequences(found: list[ErrorDetails]) -> list[ErrorDetails]:
    """The faults, without what follows from others: lists that are too short since their entries are at fault, and defaults."""
    places = [fault["loc"] for fault in found]

    def follows(fault: ErrorDetails) -> bool:
        if fault["type"] == "default_factory_not_called":
            return True
        size = len(fault["loc"])
        return fault["type"] == "too_short" and any(len(place) > size and place[:size] == fault["loc"] for place in places)

    return [fault for fault in found if not follows(fault)]


def _marks(data: Mapping[str, object]) -> Mapping[Key, Mark]:
    return data.marks if isinstance(data, Document) else {}


def _describe(fault: ErrorDetails, marks: Mapping[Key, Mark]) -> str:
    """Key, value and what was expected, and the line where it is known."""
    mark = marks.get(fault["loc"])
    line = f" (line {mark.line})" if mark and mark.line and fault["loc"] else ""
    return _problem(fault, mark) + line


def _problem(fault: ErrorDetails, mark: Mark | None) -> str:
    key = _shown(name_of(fault["loc"])) or "the whole file"
    kind, value = fault["type"], fault["input"]
    if kind == "extra_forbidden":
        return f"{key} is not a known key"
    if kind == "missing":
        return f"{key} is missing"
    if kind == "string_type" and value is None:
        return f"{key} is empty, expected text" + (f": write {mark.text} in quotes" if mark and mark.text else "")
    if kind == "string_type" and mark and isinstance(value, bool | int | float):
        taken = json.dumps(value) if isinstance(value, bool) else "a number"
        written = _shown(mark.text)[:40]
        return f'{key} is {written}, which YAML takes for {taken}: write it in quotes, "{written}"'
    if kind == _UNSHOWN:
        return f"{key}: {fault['msg']}"
    shown = "" if kind == "value_error" and isinstance(value, dict | list) else f" is {repr(_without_userinfo(value))[:80]}:"
    return f"{key}{shown} {_expected(fault)}"


def _expected(fault: ErrorDetails) -> str:
    kind, value, context = fault["type"], fault["input"], fault.get("ctx", {})
    if kind == "value_error":
        said = _shown(str(fault["msg"]).removeprefix("Value error, "))
        return f"{said[0].lower()}{said[1:]}"
    if kind == "string_pattern_mismatch":
        form = form_of(context["pattern"])
        quotes = isinstance(value, str) and value[:1] in set("“”„«»\u2018\u2019\u201a")
        return f"expected {form}" + ('; its quotes are those of a word processor: write "..."' if quotes else "")
    if kind in ("int_type", "float_type") and isinstance(value, str):
        if comma := _COMMA.fullmatch(value):
            return f"expected a number with a decimal point, {comma[1]}.{comma[2]}"
        return f"expected {EXPECTED[kind]}, without quotes and letters"
    return "expected " + EXPECTED.get(kind, "something else").format(**context)


def _without_userinfo(value: object) -> object:
    """`value` with `***` for what stands before an @ in each of its texts, as a name and password do in an address."""
    match value:
        case str():
            return _USERINFO.sub(r"\1***@", value)
        case list():
            return [_without_userinfo(item) for item in value]
        case dict():
            return {_without_userinfo(key): _without_userinfo(item) for key, item in value.items()}
    return value


def _shown(text: str) -> str:
    """`text` short enough for a line, without line breaks, commands to a terminal, or halves of characters."""
    short = text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in short)
