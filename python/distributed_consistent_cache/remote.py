"""What commands share that look at a served cache: where it is, and what it says.

URL --GET--> JSON or text      it does not answer  -->  one line that says so, and exit code 1
"""

import argparse
import http.client
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, Final

URL_VARIABLE: Final = "DCCACHE_URL"
TIMEOUT_SECONDS: Final = 5.0

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
    parts = urllib.parse.urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise argparse.ArgumentTypeError(f"{text!r} is no URL like http://127.0.0.1:8080")
    return text


def address(arguments: argparse.Namespace) -> str:
    """Where the cache is; wrong usage if nobody said."""
    parser: argparse.ArgumentParser = arguments.parser
    if not arguments.url:
        parser.error(f"say where the cache is: --url URL, or set {URL_VARIABLE}")
    try:
        return _url(arguments.url).rstrip("/")
    except argparse.ArgumentTypeError as error:
        parser.error(f"{URL_VARIABLE}: {error}")


def ask(url: str, path: str, say: Callable[[dict[str, Any]], int], **query: str) -> int:
    """Have `say` print what is served there, and return its exit code; 1 if there is no cache that says it."""
    try:
        return say(fetch_json(url, path, **query))
    except UnreachableError as error:
        print(f"error: {error}", file=sys.stderr)
    except (KeyError, TypeError):
        print(f"error: what answers at {url} is no cache of this kind", file=sys.stderr)
    return EXIT_UNREACHABLE


def fetch(url: str, path: str, **query: str) -> str:
    """What is served there.

    Raises UnreachableError with one line that says why there is nothing.
    """
    # As UTF-8 with nothing left out: keys may have any character.
    encoded = f"?{urllib.parse.urlencode(query)}" if query else ""
    try:
        with urllib.request.urlopen(f"{url}{path}{encoded}", timeout=TIMEOUT_SECONDS) as answer:
            text: str = answer.read().decode()
            return text
    except urllib.error.HTTPError as error:
        raise UnreachableError(f"{url} answers {error.code} {error.reason} to {path}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise UnreachableError(f"no cache answers at {url}: {reason}") from error


def fetch_json(url: str, path: str, **query: str) -> dict[str, Any]:
    """What is served there, as the object that it is.

    Raises UnreachableError, also for what is no such object.
    """
    text = fetch(url, path, **query)
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UnreachableError(f"what answers at {url} is no cache") from error
    if not isinstance(value, dict):
        raise UnreachableError(f"what answers at {url} is no cache")
    return value
