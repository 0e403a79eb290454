"""The one exception that a user is meant to read."""

import re

# user:password@ after a scheme. A secret key may hold slashes, so what stands between a colon that begins no port and an @ counts, too.
_USER = re.compile(r"(?<=://)(?:[^\s/@'\"]*@|[^\s/@:'\"]*:(?!\d+(?:[/\s'\"]|$))[^\s@'\"]*@)")
_QUERY = re.compile(r"(?i)([?&][\w.%-]*(?:token|secret|password|signature|credential|key)[\w.%-]*=)[^&\s'\"]+")


def masked(text: str) -> str:
    """The text with "…" in place of what addresses in it hold of users, passwords and tokens."""
    return _QUERY.sub(r"\1…", _USER.sub("…@", text))


def holds_credentials(address: str) -> bool:
    """Whether an address (or a text with one) holds a user, a password or a token."""
    return bool(_USER.search(address) or _QUERY.search(address))


class DigerError(Exception):
    """A fault that the user can fix: the message names the file, column, row or item, and the remedy.

    The command line prints it as one line and exits with 1; Dagster shows it as the failure's description.
    It never carries user data beyond an id, and never a secret: credentials in an address are masked here.
    """

    exit_code = 1

    def __init__(self, message: object = ""):
        super().__init__(masked(str(message)))


class Damaged(DigerError):
    """Bytes that were read in full are not those that were stored, or are missing. An address that does not answer is no such thing."""


class Refused(DigerError):
    """A verdict, not a fault: everything ran, and the gate does not let the candidate serve."""

    exit_code = 3


class CollapseError(DigerError):
    """Training stopped because the codebooks collapsed or the loss diverged; the last good state was kept."""
