"""What commands share that look at a served cache: where it is, and what it says.

URL --GET--> JSON or text      it does not answer  -->  one line that says so, and exit code 1

Promise: what answers may be anything. It is given so much time and room, and nothing that it says is printed raw.
"""

import argparse
import contextlib
import http.client
import ipaddress
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, Final

from ._text import all_shown, shown

URL_VARIABLE: Final = "DCCACHE_URL"
# For the next bytes of an answer, and for all of it.
TIMEOUT_SECONDS: Final = 5.0
ANSWER_SECONDS_MAX: Final = 20.0
# The report of 100 nodes takes 100 KiB.
ANSWER_BYTES_MAX: Final = 16 * 2**20

EXIT_UNREACHABLE: Final = 1


class UnreachableError(Exception):
    """No cache answers there, or what answers is none."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where the cache is."""
    parser.add_argument(
        "--url",
        type=_url,
        default=os.environ.get(URL_VARIABLE),
        metavar="URL",
        help=f"where Cache.serve said that it serves, as http://127.0.0.1:8080; ${URL_VARIABLE} if not given",
    )
    # For wrong usage that is found later.
    parser.set_defaults(parser=parser)


def _url(text: str) -> str:
    wrong = argparse.ArgumentTypeError(f"{shown(text)!r} is no URL like http://127.0.0.1:8080")
    try:
        parts = urllib.parse.urlsplit(text)
        if "@" in parts.netloc:
            # It is not printed: it may hold a password.
            why = "a served cache asks for no user and no password: leave them out of the URL"
            raise argparse.ArgumentTypeError(why)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        # A port, or brackets, that make no sense.
        raise wrong from error
    if not is_url:
        raise wrong
    return text


def address(arguments: argparse.Namespace) -> str:
    """Where the cache is; wrong usage if nobody said."""
    parser: argparse.ArgumentParser = arguments.parser
    if not arguments.url:
        parser.error(f"say where the cache is: --url URL, or set {URL_VARIABLE}")
    try:
        return _asked_at(_url(arguments.url).rstrip("/"))
    except argparse.ArgumentTypeError as error:
        parser.error(f"{URL_VARIABLE}: {error}")


def _asked_at(url: str) -> str:
    """The same cache, where it answers: 0.0.0.0 is no name of this machine, and what listens there has others."""
    parts = urllib.parse.urlsplit(url)
    try:
        ip = ipaddress.ip_address(parts.hostname or "")
    except ValueError:
        return url
    if not ip.is_unspecified:
        return url
    host = "127.0.0.1" if ip.version == 4 else "[::1]"
    return parts._replace(netloc=host if parts.port is None else f"{host}:{parts.port}").geturl()


def ask(
    arguments: argparse.Namespace,
    path: str,
    summary: Callable[[dict[str, Any]], str],
    code: Callable[[dict[str, Any]], int],
    **query: str,
) -> int:
    """Print what is served there, as JSON if that is wanted or as its summary, and return its exit code.

    1 if there is no cache that says it.
    """
    url = address(arguments)
    try:
        said = fetch_json(url, path, **query)
        with understood(url):
            # In this order: nothing is printed of what makes no sense. JSON has no character that a terminal obeys.
            exit_code, plain = code(said), summary(all_shown(said))
        print(json.dumps(said) if arguments.json else plain)
    except UnreachableError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_UNREACHABLE
    return exit_code


@contextlib.contextmanager
def understood(url: str) -> Iterator[None]:
    """Around what reads an answer: one that is not as a cache's is raises UnreachableError."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise UnreachableError(f"what answers at {shown(url)} is no cache of this kind") from error


def fetch(url: str, path: str, **query: str) -> str:
    """What is served there.

    Raises UnreachableError with one line that says why there is nothing.
    """
    # As UTF-8 with nothing left out: keys may have any character.
    encoded = f"?{urllib.parse.urlencode(query)}" if query else ""
    where = shown(url)
    try:
        with _opener(url).open(f"{url}{path}{encoded}", timeout=TIMEOUT_SECONDS) as answer:
            return _read(answer).decode()
    except urllib.error.HTTPError as error:
        # It is an answer, which holds a socket.
        error.close()
        raise UnreachableError(f"{where} answers {error.code} {shown(str(error.reason))} to {path}") from error
    except UnicodeDecodeError as error:
        raise UnreachableError(f"what answers at {where} is no cache: it is not in UTF-8") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise UnreachableError(f"no cache answers at {where}: {shown(str(reason))}") from error


def _opener(url: str) -> urllib.request.OpenerDirector:
    """Whatever asks there: directly, if it is this machine, whose loopback addresses no proxy can reach; and it never
    asks elsewhere because an answer says so."""
    is_here = _is_loopback(urllib.parse.urlsplit(url).hostname or "")
    proxies = [urllib.request.ProxyHandler({})] if is_here else []
    return urllib.request.build_opener(_NoRedirects, *proxies)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _is_loopback(host: str) -> bool:
    """Whether a host is this machine: "localhost", a name below it, or a loopback address."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ip = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return ip.is_loopback or bool(mapped and mapped.is_loopback)


def _read(answer: Any) -> bytes:
    """All of an answer, if it comes in time and is not too long."""
    parts: list[bytes] = []
    room, until = ANSWER_BYTES_MAX, time.monotonic() + ANSWER_SECONDS_MAX
    while part := answer.read1(min(room + 1, 65_536)):
        parts.append(part)
        room -= len(part)
        if room < 0:
            raise UnreachableError("what answers is no cache: it says more than 16 MiB")
        if time.monotonic() > until:
            raise UnreachableError(f"no whole answer within {ANSWER_SECONDS_MAX:g} s")
    if answer.length:
        raise http.client.IncompleteRead(b"".join(parts), answer.length)
    return b"".join(parts)


def fetch_json(url: str, path: str, **query: str) -> dict[str, Any]:
    """What is served there, as the object that it is, with every text as it came: see `all_shown`.

    Raises UnreachableError, also for what is no such object.
    """
    text = fetch(url, path, **query)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreachableError(f"what answers at {shown(url)} is no cache") from error
    if not isinstance(value, dict):
        raise UnreachableError(f"what answers at {shown(url)} is no cache")
    return value
