"""Paths of the API from what a person typed."""

from urllib.parse import quote

from control_plane.cli.problems import usage


def path(*parts: str) -> str:
    """``/v1/`` and the parts, each kept to one segment.

    Raises:
        Problem: a part is empty or a dot segment, which would name another resource.
    """
    for part in parts:
        if part in {"", ".", ".."}:
            raise usage(f"{part!r} is not a name or an id")
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)
