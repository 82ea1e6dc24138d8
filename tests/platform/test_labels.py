"""csasn/platform/labels.py: a class is called what people see, and what no spreadsheet takes for a formula."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from csasn.platform.labels import check_label, require_distinct, skeleton
from csasn.study import Federation, Label, Study, Task

SITES = Federation(sites=("centerA",))


@pytest.mark.parametrize("label", ["=1+1", "=HYPERLINK(A1)", "+49", "-2", "@SUM(A1)", "＝1", "＠x", "\t=1"])  # noqa: RUF001
def test_what_a_spreadsheet_takes_for_a_formula_is_refused(label: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Label).validate_python(label)


UNSEEN = [
    *(0x202A, 0x202B, 0x202C, 0x202D, 0x202E, 0x2066, 0x2067, 0x2068, 0x2069, 0x200E, 0x200F, 0x061C),  # direction
    *(0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0x00AD, 0x034F, 0x115F, 0x3164, 0x2800, 0xFE0F, 0xE0101),  # no width
    *(0x00A0, 0x2003, 0x3000, 0x2028),  # blanks of other kinds
    *(0x0007, 0x009B, 0xE000, 0xFFFF, 0x0378, 0xE0041),  # control, private, none, tag
]


@pytest.mark.parametrize("code", UNSEEN, ids=hex)
def test_characters_that_are_not_seen_are_refused_anywhere(code: int) -> None:
    for label in (f"P{chr(code)}TC", f"{chr(code)}PTC", f"PTC{chr(code)}"):
        with pytest.raises(ValidationError):
            TypeAdapter(Label).validate_python(label)
    with pytest.raises(ValueError, match=rf"U\+{code:04X}"):
        check_label(f"P{chr(code)}TC")


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ("Pаpillary", "mixes letters of Cyrillic And Latin in one word"),  # noqa: RUF001
        ("Αdenoma", "mixes letters of Greek And Latin in one word"),  # noqa: RUF001
        ("рак щитoвидной железы", "mixes letters of Cyrillic And Latin"),  # noqa: RUF001
        ("TNFα", "a hyphen parts words"),
        (unicodedata.normalize("NFD", "bösartig"), "expected Unicode's form NFC"),
        ("ＰＴＣ", "a letter in another form"),  # noqa: RUF001
        ("𝐏TC", "a letter in another form"),  # noqa: RUF001
        ("ﬁbrosis", "a letter in another form"),
    ],
)
def test_look_alikes_within_a_word_are_refused(label: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_label(label)


ORDINARY = [
    *("benign", "PTC", "FTC (follicular)", "1e5", "<5 µm", "5-10 mm", "TNF-α", "β-hCG", "grade 2+", "no; unsure", "N₀"),
    *("bösartig", "à droite", "carcinoma nº 2", "İyi huylu"),
    *("θηλώδες καρκίνωμα", "καλοήθης", "папиллярный рак", "доброкачественный", "РТС"),  # noqa: RUF001
    *("甲状腺乳頭癌", "乳頭がん", "갑상선암", "양성 결절", "سرطان حليمي", "סרטן", "थायरॉइड", "มะเร็ง"),
]


@pytest.mark.parametrize("label", ORDINARY)
def test_hospitals_may_use_their_own_alphabet(label: str) -> None:
    assert TypeAdapter(Label).validate_python(label) == label


def test_two_names_that_look_the_same_are_refused_and_shown_apart() -> None:
    for other in ("РТС", "ΡΤC"):  # noqa: RUF001
        with pytest.raises(ValidationError, match=r"'PTC' and '\\u0[34]\w\w.*look the same" if other == "РТС" else "mixes"):  # noqa: RUF001
            Study(name="x", classes=("benign", "PTC", other), federation=SITES)
    Study(name="x", classes=("benign", "РТС"), federation=SITES)  # noqa: RUF001
    with pytest.raises(ValidationError, match=r"values of task echo .* look the same"):
        Study(name="x", classes=("a", "b"), tasks={"subtype": Task(), "echo": Task(values=("сос", "coc"))}, federation=SITES)  # noqa: RUF001
    with pytest.raises(ValueError, match="look the same"):
        require_distinct(["low  risk", "low risk"], "classes")


@given(st.text(max_size=8))
def test_a_skeleton_is_its_own_skeleton_and_ordinary_letters_stay(text: str) -> None:
    assert skeleton(skeleton(text)) == skeleton(text)
    if text.isascii() and "  " not in text:
        assert skeleton(text) == text


@given(st.text(max_size=6))
def test_whatever_is_taken_can_be_printed(text: str) -> None:
    try:
        check_label(text)
    except ValueError:
        return
    assert text.isprintable()
    assert unicodedata.is_normalized("NFC", text)
