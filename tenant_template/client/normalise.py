"""One spelling for values that are the same: what a blind index is computed of."""

import re
import unicodedata

from tenant_template.client.errors import NotNormal

_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_PHONE_SPACING = str.maketrans("", "", " .-\u00a0\u202f")


def text(value: str) -> str:
    """Compatibility caseless form (Unicode 15, D147), trimmed, inner spaces as one.

    Raises:
        NotNormal: nothing is left.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", value).casefold())
    folded = unicodedata.normalize("NFKC", folded.casefold())
    normal = " ".join(folded.split())
    if not normal:
        raise NotNormal("an empty text has no blind index; store NULL instead")
    return normal


def phone(value: str) -> str:
    """E.164 as it is; spaces, dots and hyphens between its digits are dropped.

    National spellings are refused: which country is meant is for the application to know.

    Raises:
        NotNormal: it is not ``+``, a country code and a number, 7 to 15 digits together.
    """
    normal = value.translate(_PHONE_SPACING)
    if not _E164.fullmatch(normal):
        raise NotNormal("write phone numbers in E.164 with the country code: +12025550123")
    return normal
