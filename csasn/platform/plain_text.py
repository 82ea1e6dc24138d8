"""Words that people are shown on terminals, in logs, mail and a command's arguments: those of another machine, and times."""


def plain(text: str) -> str:
    """`text` with a question mark for each character that is not printed but acted on: control and format characters, line ends."""
    return "".join(character if character.isprintable() else "?" for character in text)


def in_time(seconds: float) -> str:
    """Seconds in the unit that people say."""
    if seconds < 1:
        return "under 1 s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
