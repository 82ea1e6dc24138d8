"""A part of somebody else's code, replaced: the name has to be there, so that what was renamed does not go on unpatched."""

from csasn.errors import CsasnError


def patch(owner: object, name: str, value: object) -> None:
    """Sets `owner.name`, an attribute of a module or class, to `value`.

    Raises:
        CsasnError: there is no such attribute.
    """
    if not hasattr(owner, name):
        raise CsasnError(
            f"{getattr(owner, '__name__', owner)} has no {name} to replace", "install the version that this package asks for"
        )
    setattr(owner, name, value)
