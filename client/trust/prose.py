"""The plain words of `client approve` and `client audit`: text templates, which stand in files of their own beside this one."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from csasn.platform.plain_text import plain


def render_lines(template: str, **facts: object) -> list[str]:
    """The lines of a template with what it shows, none of which can end a line or act on a terminal: it may be another's words."""
    environment = Environment(  # noqa: S701 - text for terminals, where nothing is markup
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        finalize=lambda value: plain(str(value)),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(facts).splitlines()
