"""YAML as people write it: what it takes for something else than was meant is refused by key and line, in our own words.

YAML 1.1 reads `no` as false, `010` as 8, `1:30` as 90 and `2024-01-01` as a date. Where text is expected, that is told by
`csasn.platform.configuration`, for which each value keeps what was written and where; what is never meant is refused here.
"""

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml

Key = tuple[str | int, ...]
PRIVATE = "labels"  # below this key no key is shown: a site's own words
_OCTAL, _DIGITS = re.compile(r"[-+]?0[0-7_]+"), re.compile(r"[0-9]+")
_TAG = "tag:yaml.org,2002:"
_PROBLEMS = (  # what the parser says, and what we say
    ("found character '\\t'", "a tab stands where blanks are expected: indent with blanks"),
    (
        "mapping values are not allowed",
        "a colon stands where none is expected: check the indentation, and quote text that holds one",
    ),
    ("found unknown escape", "a backslash in double quotes: write it twice, or use single quotes, or / in a path"),
    ("could not find expected ':'", "a line without the colon that a key needs, or with wrong indentation"),
    ("expected <block end>", "an indentation that does not fit the lines above it"),
    ("expected ',' or", "a comma or closing bracket is missing"),
    ("did not find expected ',' or", "a comma or closing bracket is missing"),
    ("found unexpected end of stream", "a quote that is not closed"),
    ("found unexpected document", "a second document, expected one"),
    ("but found another document", "a second document, expected one"),
    ("found character '%'", "a value that begins with %: write it in quotes"),
    ("found character '@'", "a value that begins with @: write it in quotes"),
    ("found character '`'", "a value that begins with a backtick: write it in quotes"),
)


@dataclass(frozen=True)
class Mark:
    """What stands in the file: its line, the text of a single value, and what YAML takes it for: bool, int, float, null, str..."""

    line: int
    text: str
    kind: str


class YamlTextError(ValueError):
    """What is wrong with a YAML text; `line` is 0 where there is none to name, `is_yaml` tells a wrong word from a wrong form."""

    def __init__(self, problem: str, line: int = 0, hint: str = "check indentation and colons", *, is_yaml: bool = True) -> None:
        super().__init__(problem)
        self.problem, self.line, self.hint, self.is_yaml = problem, line, hint, is_yaml

    def about(self, name: str) -> str:
        """The problem, as one of the file `name`."""
        if self.is_yaml:
            return f"{name}{f' line {self.line}' if self.line else ''}: {self.problem}"
        return f"{name} is not valid YAML at {f'line {self.line}' if self.line else 'all'}: {self.problem}"


class Document(dict[str, object]):
    """The mapping of a YAML file, and where its values stand."""

    def __init__(self, values: Mapping[str, object], marks: Mapping[Key, Mark]) -> None:
        super().__init__(values)
        self.marks = marks


class _Loader(yaml.SafeLoader):
    """A safe loader without aliases and tags, which a configuration needs not and a bomb does."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) is not None:
            hint = "quote text that begins with & * or !"
            raise YamlTextError("aliases and tags are not used here", event.start_mark.line + 1, hint, is_yaml=False)
        return super().compose_node(parent, index)


class Dumper(yaml.SafeDumper):
    """Quotes what `parse` would take for a number."""


for _side in (_Loader, Dumper):
    # YAML 1.1 takes 1e-4 for text, since it has no point; people and YAML 1.2 take it for a number
    _side.add_implicit_resolver(_TAG + "float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


def decode(data: bytes) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its mark, as editors of Windows write it.

    Raises:
        YamlTextError: it is of another encoding.
    """
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise YamlTextError("is not UTF-8 text", 1 + data.count(b"\n", 0, error.start), "save it as UTF-8 text") from None


def parse(text: str) -> tuple[object, dict[Key, Mark]]:
    """The YAML in `text` as JSON has it, and where each value stands.

    Raises:
        YamlTextError: it is not YAML, or holds what YAML takes for something that is never meant here.
    """
    marks: dict[Key, Mark] = {}
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, {}
        _walk(node, (), node.start_mark.line + 1, marks)
        return json.loads(json.dumps(loader.construct_document(node))), marks
    except YamlTextError:
        raise
    except yaml.YAMLError as error:
        raise _in_our_words(error) from None
    except (RecursionError, ValueError, TypeError):
        hint = "quote what is meant as text"
        raise YamlTextError("it holds a number that cannot be, or is nested too deeply", 0, hint) from None
    finally:
        if loader:
            loader.dispose()


def name_of(key: Key) -> str:
    """The dotted name of a key; nothing below `labels`."""
    shown = key[: key.index(PRIVATE) + 1] if PRIVATE in key else key
    return ".".join(map(str, shown))


def _walk(node: yaml.Node, key: Key, line: int, marks: dict[Key, Mark]) -> None:
    kind = node.tag.removeprefix(_TAG)
    marks[key] = Mark(line, node.value if isinstance(node, yaml.ScalarNode) else "", kind)
    if isinstance(node, yaml.ScalarNode):
        _check_word(node, kind, name_of(key), line)
    elif isinstance(node, yaml.SequenceNode):
        for number, child in enumerate(node.value):
            _walk(child, (*key, number), child.start_mark.line + 1, marks)
    elif isinstance(node, yaml.MappingNode):
        for name, child, name_line in _pairs(node, key):
            _walk(child, (*key, name), name_line, marks)


def _check_word(node: yaml.ScalarNode, kind: str, name: str, line: int) -> None:
    """Refuses what is never meant as YAML reads it."""
    written = f"{name or 'the value'} is {node.value[:40]}"
    if kind == "timestamp":
        raise YamlTextError(f"{written}, which YAML takes for a date: write it in quotes", line, f'for example "{node.value[:40]}"')
    if kind in ("int", "float") and (":" in node.value or (kind == "int" and _OCTAL.fullmatch(node.value))):
        system = "sixties" if ":" in node.value else "eights"
        hint = f'for example "{node.value[:40]}"; a number stands there without zeros before it and without colons'
        raise YamlTextError(f"{written}, which YAML takes for a number counted in {system}: write it in quotes", line, hint)
    if kind in ("value", "merge"):
        raise YamlTextError(
            f"{written}, which means something else to YAML: write it in quotes", line, f'for example "{node.value}"'
        )


def _pairs(node: yaml.MappingNode, key: Key) -> Iterator[tuple[str, yaml.Node, int]]:
    """Name, value and line of each key of a mapping; names are text, and each is there once."""
    seen = set()
    before: yaml.Node | None = None
    for name, value in node.value:
        line = name.start_mark.line + 1
        if name.tag != _TAG + "str":
            _refuse_comma(before, name, value, line)
            shown = f"{name.value[:40]} is a key" if isinstance(name, yaml.ScalarNode) and PRIVATE not in key else "a key is there"
            raise YamlTextError(f"{shown} that YAML does not take for text: write it in quotes", line, 'for example "1": ...')
        if name.value in seen:
            what = "a key" if PRIVATE in key else f"key {name.value!r}"
            raise YamlTextError(f"{what} is repeated", line, "keep one of them")
        seen.add(name.value)
        yield name.value, value, line
        before = value


def _refuse_comma(before: yaml.Node | None, name: yaml.Node, value: yaml.Node, line: int) -> None:
    """Tells of `{rate: 0,5}`, which YAML reads as rate: 0 and a key 5."""
    parts = [node.value if isinstance(node, yaml.ScalarNode) else "" for node in (before, name, value)]
    if _DIGITS.fullmatch(parts[0]) and _DIGITS.fullmatch(parts[1]) and not parts[2]:
        number = f"{parts[0][:20]}.{parts[1][:20]}"
        raise YamlTextError(f"a number is written with a comma: write {number}", line, "YAML knows the decimal point alone")


def _in_our_words(error: yaml.YAMLError) -> YamlTextError:
    said, mark = str(getattr(error, "problem", "")), getattr(error, "problem_mark", None)
    if isinstance(error, yaml.reader.ReaderError):
        return YamlTextError("it holds a character that no text has", is_yaml=False)
    problem = next((ours for theirs, ours in _PROBLEMS if said.startswith(theirs)), "it cannot be understood")
    return YamlTextError(problem, mark.line + 1 if mark else 0, is_yaml=False)
