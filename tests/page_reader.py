"""Reads report.html as a browser would, and holds every number on it against report.json and events.jsonl."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "path", "br"}
DASH = "–"
UNITS = {"MiB": 1 << 20, "s": 1, "min": 60, "h": 3600}
PRECISION_PX = 0.06  # coordinates are written with one decimal
SHAPES = ("mark", "dot", "line", "bar")


@dataclass(eq=False)
class Element:
    tag: str
    attributes: dict
    parent: "Element | None"
    text: str = ""
    children: list = field(default_factory=list)

    def all_text(self):
        return self.text + "".join(child.all_text() for child in self.children)

    def within(self, name):
        """Whether the element of that id is this one, or around it."""
        return any(element.attributes.get("id") == name for element in self.lineage())

    def lineage(self):
        return [self, *(self.parent.lineage() if self.parent else [])]


class Page(HTMLParser):
    """The elements of a page, in order; raises where they are not nested as they should be."""

    def __init__(self, text):
        super().__init__()
        self.elements, self._open = [], None
        self.feed(text)
        self.close()
        assert self._open is None, f"{self._open.tag} is not closed"

    def handle_starttag(self, tag, attrs):
        element = Element(tag, dict(attrs), self._open)
        self.elements.append(element)
        if self._open:
            self._open.children.append(element)
        if tag not in VOID or (tag == "path" and not self.get_starttag_text().endswith("/>")):
            self._open = element

    def handle_startendtag(self, tag, attrs):
        opened = self._open
        self.handle_starttag(tag, attrs)
        self._open = opened

    def handle_endtag(self, tag):
        assert self._open is not None, f"{tag} closes nothing"
        assert self._open.tag == tag, f"{tag} closes {self._open.tag}"
        self._open = self._open.parent

    def handle_data(self, data):
        if self._open:
            self._open.text += data

    def places(self):
        return {element.attributes["data-key"] for element in self.elements if "data-key" in element.attributes}


def path_of(key):
    """The parts of a `data-key`: joined by dots, with a backslash before a dot or backslash within a part."""
    return [re.sub(r"\\(.)", r"\1", part) for part in re.findall(r"(?:[^.\\]|\\.)+", key)]


def resolve(value, path):
    """What is at a path; a list of it for each entry, where a part of the path is *."""
    for number, part in enumerate(path):
        if value is None:
            return None
        if part == "*" and isinstance(value, list):
            return [resolve(entry, path[number + 1 :]) for entry in value]
        value = value[int(part)] if isinstance(value, list) else value.get(part)
    return value


def check_page(text, report, events):
    """Raises where the page shows a value that is not the report's, or a number that is marked with no place in it."""
    page, root = Page(text), {**report, "events": events}
    names = sorted({*report["classes"], *report["sites"]}, key=len, reverse=True)
    for element in page.elements:
        if element.attributes.get("class", "").split(" ")[0] in SHAPES and "data-key" in element.attributes:
            _check_shape(element, root, names)
        elif "data-of" in element.attributes:
            _check_share(element, root)
        elif "data-key" in element.attributes:
            _check_text(element, resolve(root, path_of(element.attributes["data-key"])))
        elif not _is_marked(element):
            rest = element.text
            for name in names:
                rest = rest.replace(name, "")
            assert not re.search(r"\d", rest.replace("F1", "")), f"a number without a place: {element.text!r}"
    return page


def _is_marked(element):
    marked = any({"data-key", "data-constant"} & set(item.attributes) for item in element.lineage())
    return marked or element.within("card") or element.tag == "style" or "tick" in element.attributes.get("class", "")


def _check_text(element, value):
    shown, key = element.all_text(), element.attributes["data-key"]
    if value is None:
        assert shown == DASH, f"{key}: {shown} is shown, nothing is known"
    elif isinstance(value, bool):
        assert shown == ("yes" if value else "no"), key
    elif isinstance(value, str):
        time = f"{value[:19].replace('T', ' ')} UTC"
        assert shown == value or (key.endswith(".time") and shown == time), f"{key}: {shown!r} is shown, {value!r} is true"
    else:
        _check_number(shown, value, key)


def _check_share(element, root):
    """So many of 100, and neither none nor all where it is but nearly so."""
    part, whole = (
        resolve(root, path_of(element.attributes[name])) if element.attributes[name] else 1 for name in ("data-key", "data-of")
    )
    shown, key = element.all_text(), element.attributes["data-key"]
    if part is None or not whole:
        assert shown == DASH, f"{key}: {shown} is shown, nothing is known"
    else:
        assert abs(int(shown) - 100 * part / whole) <= 0.5 or (int(shown), 0 < part < whole) in ((1, True), (99, True)), key
        assert (int(shown) == 0, int(shown) == 100) == (part == 0, part == whole), f"{key}: {shown} is shown of {part} in {whole}"


def _check_number(shown, value, key):
    number, _, unit = shown.replace("\u202f", "").partition(" ")
    decimals = len(number.partition(".")[2])
    scale = UNITS[unit] if unit else 1
    assert abs(float(number) - value / scale) <= 0.5 * 10**-decimals + 1e-9, f"{key}: {shown} is shown, {value} is true"


def _check_shape(element, root, names):
    key = element.attributes["data-key"]
    frame = next(item.attributes["data-frame"] for item in element.lineage() if "data-frame" in item.attributes)
    value = resolve(root, path_of(key))
    if element.attributes["class"].startswith(("mark", "dot")):
        places = [[float(number) for number in re.match(r"translate\((\S+) (\S+)\)", element.attributes["transform"]).groups()]]
    else:
        numbers = [float(number) for number in re.findall(r"[-\d.]+", element.attributes["d"])]
        places = list(zip(numbers[::2], numbers[1::2], strict=True))
    for place, (x, y) in zip(places, _expected(key, value, root), strict=True):
        _check_place(key, place, x, y, [float(number) for number in frame.split()])
    title = element.children[0].text if element.children else ""
    for name in names:
        title = title.replace(name, "")
    for number in re.findall(r"\d+(?:\.\d+)?", title):
        assert any(_near(number, known) for known in _known(key, value, root)), f"{key}: {title}"


def _expected(key, value, root):
    """Pairs x, y that a shape shows; None where that axis shows nothing of the report."""
    path, scale = path_of(key), (1 << 20) if "bytes_" in key else 1
    if path[0] == "rounds":
        rounds = [row["round"] for row in root["rounds"]] if path[1] == "*" else [root["rounds"][int(path[1])]["round"]]
        values = value if path[1] == "*" else [value]
        return [(x, y / scale) for x, y in zip(rounds, values, strict=True) if y is not None]
    if path[-1].endswith("_ci95"):
        return [(end, None) for end in value]
    if isinstance(value, list):
        return [(row[0], row[1]) for row in (value if isinstance(value[0], list) else [value])]
    return [(value, None)]


def _check_place(key, place, x, y, frame):
    for pixel, value, (low, high, start, end) in (
        (place[0], x, (*frame[:2], *frame[4:6])),
        (place[1], y, (*frame[2:4], *frame[6:])),
    ):
        if value is not None:
            expected = start + (value - low) / (high - low) * (end - start)
            assert abs(pixel - expected) <= PRECISION_PX, f"{key}: drawn at {pixel}, expected {expected}"


def _known(key, value, root):
    path = path_of(key)
    values = value if isinstance(value, list) else [value, value / (1 << 20)]
    return [*values, root["rounds"][int(path[1])]["round"]] if path[0] == "rounds" else values


def _near(shown, value):
    return abs(float(shown) - value) <= 0.5 * 10 ** -len(shown.partition(".")[2]) + 1e-9
