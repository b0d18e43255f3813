"""`--upstreams`: what the user wrote of each, read. Nothing is connected to here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, urlsplit

from ..errors import SettingsError

Kind = Literal["wyoming", "openai"]


@dataclass(frozen=True)
class Upstream:
    """One server, as the user wrote it."""

    MAX_KEY_BYTES = 4096

    url: str
    """Its address, which is its name in logs and on the page: no parameters, never a key."""

    kind: Kind
    model: str | None = None
    key_file: Path | None = None
    key_variable: str | None = None
    mac: str | None = None
    """Of its network card, where it may be woken."""

    broadcast: str = "255.255.255.255"
    """The local network, as far as broadcasts go."""
    key: str | None = field(default=None, repr=False)

    @classmethod
    def read(cls, text: str) -> Upstream:
        """Return what `text` names, without its key. Raises ValueError: what it must be."""
        try:
            parts = urlsplit(text)
            kind = _kind(parts)
        except ValueError:  # a port that is no number, a bracket left open
            kind = None
        if kind is None:
            raise ValueError(
                "it must be tcp://HOST:PORT for a Wyoming server, or http(s)://HOST/v1 for one "
                "like OpenAI's"
            )
        if parts.username is not None or parts.password is not None:
            raise ValueError("it must be without a name and password: use key_file=FILE")
        parameters = _parameters(parts.query, kind)
        key_file = parameters.get("key_file")
        return cls(
            url=f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}",
            kind=kind,
            model=parameters.get("model"),
            key_file=Path(key_file) if key_file else None,
            key_variable=parameters.get("key_variable"),
            mac=_mac(parameters["mac"]) if "mac" in parameters else None,
            broadcast=_address(parameters.get("broadcast", cls.broadcast)),
        )

    @classmethod
    def with_keys(
        cls, upstreams: Iterable[Upstream], environ: Mapping[str, str], key: str | None
    ) -> tuple[Upstream, ...]:
        """Return the upstreams with their keys; `key` is for the one that names none of its own.

        Raises SettingsError, also where `key` would go to several: a key is for one house alone.
        """
        keyed = tuple(replace(upstream, key=_key(upstream, environ)) for upstream in upstreams)
        if key is None:
            return keyed
        takers = [
            upstream.url for upstream in keyed if upstream.kind == "openai" and not upstream.key
        ]
        if len(takers) != 1:
            whom = f"for each of {', '.join(takers)}" if takers else "for none of --upstreams"
            raise SettingsError(
                f"upstream_key is {whom}, but it must be for exactly one; name the others' keys by "
                "?key_file=FILE or ?key_variable=NAME"
            )
        checked = _checked(key, "upstream_key")
        return tuple(replace(u, key=checked) if u.url == takers[0] else u for u in keyed)


def _kind(parts: SplitResult) -> Kind | None:
    """Return what speaks there, None for nothing known. Raises ValueError for a bad port."""
    if parts.fragment:
        return None
    if parts.scheme == "tcp":
        return "wyoming" if parts.hostname and parts.port and not parts.path else None
    if parts.scheme == "unix":
        return "wyoming" if not parts.netloc and len(parts.path) > 1 else None
    is_http = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    return "openai" if is_http else None


def _parameters(query: str, kind: Kind) -> dict[str, str]:
    """Return what follows an address, as in tcp://pc:10300?mac=00:11:22:33:44:55."""
    keys = ("key_file", "key_variable") if kind == "openai" else ()
    names = ("model", *keys, "mac", "broadcast")
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    for name, value in parameters.items():
        if name in ("key", "api_key", "token"):  # its value is not repeated, of course
            raise ValueError("it must not hold a key, which others could see: use key_file=FILE")
        if name not in names:
            raise ValueError(f"it must have no other parameters than {', '.join(names)}")
        if not value:
            raise ValueError(f"{name} must have a value")
    return parameters


def _mac(text: str) -> str:
    digits = re.sub(r"[:\-.]", "", text).lower()
    if not re.fullmatch(r"[0-9a-f]{12}", digits):
        raise ValueError("mac must be six bytes such as 00:11:22:33:44:55")
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))


def _address(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise ValueError("broadcast must be an IPv4 address such as 192.168.1.255") from None


def _key(upstream: Upstream, environ: Mapping[str, str]) -> str | None:
    if upstream.key_file:
        path = upstream.key_file
        try:
            with path.open("rb") as file:
                text = file.read(Upstream.MAX_KEY_BYTES + 1).decode("ascii", "replace")
        except OSError as error:
            raise SettingsError(
                f"the key of {upstream.url} can't be read from {path} ({error.strerror})"
            ) from None
        return _checked(text, f"the key of {upstream.url} in {path}")
    if upstream.key_variable:
        if not environ.get(upstream.key_variable):
            raise SettingsError(
                f"the key of {upstream.url} must be in the variable {upstream.key_variable}, which "
                "is not set"
            )
        where = f"the key of {upstream.url} in {upstream.key_variable}"
        return _checked(environ[upstream.key_variable], where)
    return None


def _checked(text: str, where: str) -> str:
    """Return a key that can be sent. Raises SettingsError, which doesn't show it."""
    text = text.strip()
    if not re.fullmatch(r"[!-~]+", text) or len(text) > Upstream.MAX_KEY_BYTES:
        raise SettingsError(f"{where} must be one word of ASCII letters, digits and signs")
    return text
