"""Under which names the service answers. A page of another site that is open in somebody's browser may resolve a name of its own to the service's
address and read the answers (DNS rebinding); the browser then sends that name as Host. An address as Host cannot come about in this way."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from diger_core.errors import DigerError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_GIVEN = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s:/@\[\]*]+))(?::[0-9]*)?")  # a name or an address, and a port


@dataclass(frozen=True)
class Hosts:
    """`names`: those that are known. `addresses`: whether any IP address is, too: behind a published port it is another one than the own."""

    names: frozenset[str] = frozenset(LOOPBACK)
    addresses: bool = False

    @classmethod
    def of(cls, host: str, more: Sequence[str]) -> Hosts:
        """Of a service that listens on `host`: loopback's names, `host` and `more`. DigerError where one of `more` is more than a name."""
        for name in more:
            if _name(name) != name.lower() and not _is_address(name):
                raise DigerError(f"--allow-host {name[:80]}: give a host name or an address alone, without scheme, port, path or *")
        return cls(frozenset((*LOOPBACK, *(name.lower() for name in (host, *more)))), addresses=not _is_loopback(host))

    def know(self, given: str) -> bool:
        """Whether a Host header names the service."""
        name = _name(given)
        return name is not None and (name in self.names or (self.addresses and _is_address(name)))


def _name(given: str) -> str | None:
    """The name or address of a Host header, without brackets and port; None where it is neither."""
    found = _GIVEN.fullmatch(given.lower())
    return None if found is None else found[1] or found[2]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host in LOOPBACK or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
