"""The faults of an operating system and an object store in plain words: one line with the place and the remedy, free of secrets."""

from __future__ import annotations

import errno
import re

from diger_core.errors import DigerError, masked

_SECRETISH = re.compile(r"(?i)(key|secret|token|password|signature|credential)[^\s,;]*\s*[=:]\s*\S+")

# Codes of S3's answers. A HEAD request has none, because its answer has no body.
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken", "ExpiredCredentials")
_SKEWED = ("RequestTimeTooSkewed", "RequestExpired")


def describe_os_error(error: BaseException, where: str) -> DigerError:
    """The fault as one line with its remedy, free of secrets."""
    number = getattr(error, "errno", None)
    text = _SECRETISH.sub("…", masked(str(error))).splitlines()[0][:300] if str(error) else type(error).__name__
    name = type(error).__name__
    code = error_code(error)
    if code in _EXPIRED or "ExpiredToken" in text or "token has expired" in text:
        return DigerError(f"{where}: the credentials have expired: renew them (aws sso login, or a new AWS_SESSION_TOKEN) and run again")
    if code in _SKEWED or "RequestTimeTooSkewed" in text:
        return DigerError(f"{where}: the object store refuses the time of this machine's clock: check the clock (date -u; timedatectl) and run again")
    if number in (errno.ENOSPC, errno.EDQUOT):
        return DigerError(f"{where}: the disk is full: free some space and run again; nothing that was stored is lost")
    if number in (errno.EACCES, errno.EPERM, errno.EROFS) and "://" not in where:
        return DigerError(f"{where}: cannot be written or read (permission denied or read-only): choose another --store, or change its permissions")
    if isinstance(error, FileExistsError | NotADirectoryError):
        return DigerError(f"{where}: a file stands where a directory is wanted, here or above it: remove it, or choose another place")
    if isinstance(error, FileNotFoundError):
        return DigerError(f"{where}: does not exist: check the path (for s3://, that the bucket exists)")
    if isinstance(error, PermissionError) or "Forbidden" in text or "AccessDenied" in text or "Credential" in name or "InvalidAccessKeyId" in text:
        return DigerError(f"{where}: access refused: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's permissions")
    if "Endpoint" in name or "Connect" in name or "ClientConnector" in name or "Timeout" in name:
        return DigerError(f"{where}: the object store does not answer: check AWS_ENDPOINT_URL and the network")
    return DigerError(f"{where}: {name}: {text}")


def error_code(error: BaseException) -> str:
    """The code in an object store's answer, from the client's exception or the one behind it; empty where there is none."""
    for each in (error, error.__cause__):
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def precondition_failed(error: BaseException) -> bool:
    """Whether a conditional put was refused because the object exists."""
    return error_code(error) in ("PreconditionFailed", "ConditionalRequestConflict", "412")
