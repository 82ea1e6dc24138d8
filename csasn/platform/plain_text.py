"""What came from another machine, as people may be shown it: its words go to terminals, logs, mail and a command's arguments."""


def plain(text: str) -> str:
    """`text` with a question mark for each character that is not printed but acted on: control and format characters, line ends."""
    return "".join(character if character.isprintable() else "?" for character in text)
