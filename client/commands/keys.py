"""`client site`: every key of a site file, from its own model."""

from csasn.commands.keys import Explain, Template
from csasn.platform.terminal import say

HEAD = """The site file of centerA, /etc/csasn/centerA.yaml: stays in the hospital. Paths are absolute, or relative to it. What one
key is: client site --explain KEY."""


def site(template: Template = False, explain: Explain = None) -> None:
    """Show what the site file may say.

    example:
      client site --template > /etc/csasn/centerA.yaml
      client site --explain proxy
    """
    from csasn.platform import keys
    from csasn.site import Site

    if template:
        say(*keys.template(Site, HEAD))
    if explain is not None:
        say(*keys.explain(Site, explain, "the site file"))
