"""How often one caller may ask, keyed by API key (S-27).

The address of a caller counts only for failed logins, and only the socket's: a header such as
X-Forwarded-For is never read.
"""

import msgspec

from control_plane.services.limiting import Limiter

# One showing of a secret is allowed per so many requests.
REVEAL_SHARE = 100


class Limits(msgspec.Struct, frozen=True):
    """The limiters of one process; ``notes_of_use`` spares the catalog a write per request."""

    requests: Limiter
    reveals: Limiter
    failed_logins: Limiter
    notes_of_use: Limiter


def make_limits(requests_per_minute: int) -> Limits:
    """All limits from the one setting: a hundredth of it for reveals and for failed logins."""
    rare = requests_per_minute // REVEAL_SHARE
    return Limits(Limiter(requests_per_minute), Limiter(rare), Limiter(rare), Limiter(1))
