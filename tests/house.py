"""What the house looks like, from the code: rooms, who imports whom, and how much there is. `make map`, `make size`."""

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
TOPS = ("csasn", "server", "client")
# rooms, from the ground up: each imports from those before it alone
FLOORS = (
    "csasn/errors", "csasn/platform", "csasn/recipe", "csasn/study", "csasn/site", "csasn/trust", "csasn/measures", "csasn/model",
    "csasn/pictures", "csasn/data", "csasn/federated", "csasn/learning", "csasn/wire", "csasn/privacy", "csasn/finished",
    "csasn/phantom", "csasn/report", "csasn/api", "csasn/commands",
    "server/run", "server/front", "server/flower", "server/simulation", "server/office", "server/page", "server/evidence",
    "server/commands",
    "client/worker", "client/trust", "client/doctor", "client/importing", "client/report", "client/flower", "client/service",
    "client/page", "client/commands",
)  # fmt: skip
MAP, BEGIN, END = ROOT / "ARCHITECTURE.md", "<!-- make map: begin -->", "<!-- make map: end -->"


@dataclass(frozen=True)
class Import:
    """A module that a file imports; `running` unless it is for type checking alone, `inside` where a function does it."""

    module: str
    running: bool
    inside: bool


def sources() -> list[Path]:
    """Every Python file of the product."""
    return sorted(path for top in TOPS for path in (ROOT / top).rglob("*.py"))


def module_of(path: Path) -> str:
    """Its name, dotted."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    """The room of a module of the product: its package, or a file that stands at the top."""
    return "/".join(module.split(".")[:2])


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> tuple[Import, ...]:
    """What a file imports; of a package the module that is meant, where there is one."""
    known, found = {module_of(source) for source in sources()}, []

    def visit(node: ast.AST, running: bool, inside: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend(Import(alias.name, running, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                module = child.module or ""
                meant = [f"{module}.{alias.name}" for alias in child.names]
                found.extend(Import(name if name in known else module, running, inside) for name in meant)
            checking = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            visit(child, running and not checking, inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))

    visit(parse(path), True, False)
    return tuple(dict.fromkeys(found))


def file_arrows() -> dict[str, set[str]]:
    """For each module of the product those of it that it imports, wherever in it, for types alone or not.

    Of a package itself, whose `__init__.py` every module of it imports, only what is imported at once: what it shows of them when
    it is asked is no circle.
    """
    known = {module_of(path) for path in sources()}
    return {
        module_of(path): {one.module for one in imports(path) if module_of(path) not in TOPS or (one.running and not one.inside)}
        & known - {module_of(path)}
        for path in sources()
    }


def room_arrows() -> dict[str, set[str]]:
    """For each room those that it imports from."""
    arrows: dict[str, set[str]] = defaultdict(set)
    for module, used in file_arrows().items():
        if module not in TOPS:
            arrows[room_of(module)] |= {room_of(other) for other in used if other not in TOPS} - {room_of(module)}
    return dict(arrows)


def circles(arrows: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Groups that reach each other (Tarjan's strongly connected components of two or more)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = lowest[name] = len(number)
        stack.append(name)
        for other in arrows.get(name, ()):
            if other not in number:
                visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in stack:
                lowest[name] = min(lowest[name], number[other])
        if lowest[name] == number[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in arrows:
        if name not in number:
            visit(name)
    return sorted(found)


def upward() -> list[str]:
    """Arrows against the floors."""
    floor = {room: number for number, room in enumerate(FLOORS)}
    return [f"{room} -> {other}" for room, used in sorted(room_arrows().items()) for other in sorted(used)
            if floor.get(other, -1) >= floor.get(room, -1)]  # fmt: skip


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and length of each function of a file."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def draw_map() -> str:
    """The rooms as a diagram that GitHub renders: arrows to the ground floor are left out where a longer way says the same."""
    arrows = room_arrows()
    lines = ["```mermaid", "flowchart BT"]
    for top in TOPS:
        lines.append(f"  subgraph {top}")
        lines += [f"    {room.replace('/', '_')}[{room.partition('/')[2]}]" for room in FLOORS if room.startswith(f"{top}/")]
        lines.append("  end")
    for room in FLOORS:
        direct = sorted(arrows.get(room, ()), key=FLOORS.index)
        beyond = set().union(*(_reached(other, arrows) for other in direct)) if direct else set()
        lines += [f"  {room.replace('/', '_')} --> {other.replace('/', '_')}" for other in direct if other not in beyond]
    return "\n".join([*lines, "```"])


def _reached(room: str, arrows: Mapping[str, Iterable[str]]) -> set[str]:
    reached: set[str] = set()
    ahead = list(arrows.get(room, ()))
    while ahead:
        if (other := ahead.pop()) not in reached:
            reached.add(other)
            ahead += arrows.get(other, ())
    return reached


def map_in(text: str) -> str:
    """The diagram that stands in ARCHITECTURE.md."""
    return text.partition(BEGIN)[2].partition(END)[0].strip()


def size() -> str:
    """Lines of code by room; the median and the longest file and function."""
    paths = sources()
    by_room: Counter[str] = Counter()
    for path in paths:
        by_room[room_of(module_of(path))] += lines_of(path)
    found = [(length, f"{module_of(path)}.{name}") for path in paths for name, length in functions(path)]
    files = [(lines_of(path), module_of(path)) for path in paths]
    rows = [f"{number:7,} {room}" for room, number in sorted(by_room.items(), key=lambda pair: -pair[1])]
    return "\n".join(
        [
            *rows,
            f"{sum(by_room.values()):7,} lines in {len(paths)} files, {len(found)} functions",
            f"files: median {median(length for length, _ in files):.0f}, longest {max(files)[0]} ({max(files)[1]})",
            f"functions: median {median(length for length, _ in found):.0f}, longest {max(found)[0]} ({max(found)[1]})",
        ]
    )


def main() -> None:
    """`python tests/house.py map|size|circles`."""
    if sys.argv[1:] == ["map"]:
        before, _, rest = MAP.read_text(encoding="utf-8").partition(BEGIN)
        MAP.write_text(f"{before}{BEGIN}\n{draw_map()}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    elif sys.argv[1:] == ["size"]:
        print(size())
    arrows = room_arrows()
    if sys.argv[1:] != ["size"]:
        print(f"{len(arrows)} rooms, {sum(map(len, arrows.values()))} arrows, circles of rooms {circles(arrows)}, "
              f"of files {circles(file_arrows())}, upwards {upward()}")  # fmt: skip


if __name__ == "__main__":
    main()
