"""See `csasn.plain_text`."""

from csasn.plain_text import plain

__all__ = ["plain"]
