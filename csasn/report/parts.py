"""Parts of a report as what SPEC.md says they are."""


def as_list(part: object) -> list:  # type: ignore[type-arg]
    """A part that is a list."""
    assert isinstance(part, list)
    return part


def as_dict(part: object) -> dict:  # type: ignore[type-arg]
    """A part that is a mapping."""
    assert isinstance(part, dict)
    return part
