"""Names of classes and values: what a person sees of one is what it is, and a spreadsheet takes none for a formula.

The names come from the coordinator, go into manifests that are edited in spreadsheets, and are shown to those who approve a study.
Any alphabet will do, one in each word. Two names that differ only by letters of other alphabets, as PTC in Latin and Cyrillic does,
are refused side by side; one alone is what it says.
"""

import re
import unicodedata
from collections.abc import Sequence

_FORMULA = tuple("=+-@＝＋－＠")  # noqa: RUF001 - spreadsheets take the wide ones, too
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn")  # control, format (bidirectional, of no width), surrogate, private, unassigned
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_SIGNS = "µªº"  # letters by their category, and units or ordinals by their use
_ONE_SCRIPT = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "HANGUL": "CJK", "BOPOMOFO": "CJK", "KATAKANA-HIRAGANA": "CJK"}
# letters of Cyrillic and Greek, in order, and the Latin ones that look like them
_LOOK_ALIKE = str.maketrans(
    "АВЕЅІЈКМНОРСТУХаеѕіјорсухһԁԛԝΑΒΕΖΗΙΚΜΝΟΡΤΥΧαικνορυχı",
    "ABESIJKMHOPCTYXaesijopcyxhdqwABEZHIKMNOPTYXaikvopuxi",
)


def check_label(text: str) -> str:
    """`text`, where it is one.

    Raises:
        ValueError: it begins a formula, or holds what is not seen or looks like something else.
    """
    if text.startswith(_FORMULA):
        raise ValueError("begins as a formula of a spreadsheet does, expected a letter or digit first")
    if not unicodedata.is_normalized("NFC", text):
        raise ValueError("holds letters and accents apart, expected Unicode's form NFC")
    for character in text:
        if problem := _problem(character):
            raise ValueError(f"holds {problem}, U+{ord(character):04X}, expected letters, digits, signs and plain spaces")
    for word in re.findall(r"[^\W\d_]+", text):
        if (
            len(
                scripts := sorted(
                    {_script(letter) for letter in word if letter not in _SIGNS and unicodedata.category(letter)[0] == "L"}
                )
            )
            > 1
        ):
            raise ValueError(
                f"mixes letters of {' and '.join(scripts).title()} in one word, expected one alphabet; a hyphen parts words"
            )
    return text


def skeleton(text: str) -> str:
    """What a person sees of a name: the same for two that look alike."""
    return re.sub(" +", " ", text.translate(_LOOK_ALIKE))


def require_distinct(names: Sequence[str], what: str) -> None:
    """Refuses names of which two look the same.

    Raises:
        ValueError: they do.
    """
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(skeleton(name), name)) != name:
            raise ValueError(f"{what} {other!a} and {name!a} look the same, expected names that people can tell apart")


def _problem(character: str) -> str:
    category = unicodedata.category(character)
    if category in _UNSEEN or _BLANK.match(character):
        return "a character that is not seen"
    if category[0] == "Z" and character != " ":
        return "a blank that is no plain space"
    if category[0] == "L" and character not in _SIGNS and unicodedata.normalize("NFKC", character) != character:
        return "a letter in another form of it"
    return ""


def _script(letter: str) -> str:
    first = unicodedata.name(letter, "UNKNOWN").split()[0]
    return _ONE_SCRIPT.get(first, first)
