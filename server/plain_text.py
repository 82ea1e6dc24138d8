"""What a site said, as it may be shown to people: its words go to terminals, logs, mail and the arguments of a command."""


def plain(text: str) -> str:
    """`text` with a question mark for each character that is not printed but acted on: control and format characters, line ends."""
    return "".join(character if character.isprintable() else "?" for character in text)
