"""The shapes of words in requests, and how to say them to a person who got one wrong."""

PRINTABLE = r"^[^\x00-\x1f\x7f]*$"
REGION = r"^[a-z0-9][a-z0-9-]{0,62}$"
LABEL_KEY = r"^[a-z0-9][a-z0-9._/-]{0,62}$"
IDEMPOTENCY_KEY = r"^[!-~]{1,200}$"
CURSOR = r"^[0-7][0-9a-hjkmnp-tv-z]{25}$"
AUDIT_CURSOR = r"^[1-9][0-9]{0,17}$"
NAME_OR_ID = r"^[A-Za-z0-9_-]{1,64}$"
SHOWN_ID = r"^[a-z]{2}_[0-7][0-9a-hjkmnp-tv-z]{25}$"

PATTERN_WORDS = {
    PRINTABLE: "use printable characters only",
    REGION: "use 1 to 63 lower-case letters, digits and hyphens",
    LABEL_KEY: "use 1 to 63 lower-case letters, digits, dots, slashes, hyphens and underscores",
    IDEMPOTENCY_KEY: "use 1 to 200 visible ASCII characters, for example a UUID",
    CURSOR: "this is no cursor; use next_cursor of the page before",
    AUDIT_CURSOR: "this is no cursor; use next_cursor of the page before",
    NAME_OR_ID: "this is neither a name nor an id",
    SHOWN_ID: "this is no id",
}
