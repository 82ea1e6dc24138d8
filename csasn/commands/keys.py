"""`csasn study`: every key of study.yaml, from the study's own model."""

from typing import Annotated

from csasn.platform.terminal import option, say

Template = Annotated[bool, option("--template", "a file with every key, its default and meaning")]
Explain = Annotated[str | None, option("--explain KEY", "what one key is, by its dotted name or the end of that")]
HEAD = "The study, which is the same at every site. What one key is: csasn study --explain KEY."


def study(template: Template = False, explain: Explain = None) -> None:
    """Show what study.yaml may say.

    example:
      csasn study --template > study.yaml
      csasn study --explain rounds
    """
    from csasn.platform import keys
    from csasn.study import Study

    if template:
        say(*keys.template(Study, HEAD))
    if explain is not None:
        say(*keys.explain(Study, explain, "study.yaml"), *_options(explain.rpartition(".")[2]))


def _options(key: str) -> list[str]:
    """Of a key for options those of each rule or objective, with their defaults."""
    from csasn.platform.configuration import Configuration
    from csasn.platform.registry import load, names
    from csasn.study import OPTIONS

    if key not in OPTIONS:
        return []
    group, chooser = OPTIONS[key]
    defaults = {name: load(group, name, Configuration).model_dump() for name in names(group)}
    return [
        f"  {chooser} {name}: {', '.join(f'{option} {value}' for option, value in of.items()) or 'has none'}"
        for name, of in defaults.items()
    ]
