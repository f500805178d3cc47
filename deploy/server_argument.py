"""A tenant server as ``tenantry-run enrol`` is told of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ServerToEnrol:
    """A tenant server by name; its administrator's password is in a file of that name."""

    name: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "ServerToEnrol":
        """``NAME=HOST:PORT``.

        Raises:
            ValueError: it is not.
        """
        name, equals, address = text.partition("=")
        host, colon, port = address.rpartition(":")
        if not (name and equals and host and colon and port.isdigit()):
            raise ValueError(f"{text!r} is not NAME=HOST:PORT")
        return cls(name, host, int(port))
