"""See `csasn.platform.plain_text`."""

from csasn.platform.plain_text import plain

__all__ = ["plain"]
