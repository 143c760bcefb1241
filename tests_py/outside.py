"""What the tests need beside Python: a browser, Prometheus, and servers that fork. Where it is not installed they are
skipped, by a reason that begins with `LEFT_OUT`, and the run says so at its end."""

import functools
import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

LEFT_OUT = "left out:"

# As Debian installs it.
CHROMIUM = "/usr/bin/chromium"


def _works(program: str | None) -> bool:
    try:
        subprocess.run([program or "", "--version"], capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


@functools.cache
def _missing() -> dict[str, str]:
    missing = {}
    if importlib.util.find_spec("playwright") is None:
        missing["browser"] = "playwright is not installed (pip install playwright)"
    elif not _works(CHROMIUM if Path(CHROMIUM).exists() else None):
        missing["browser"] = "there is no browser at /usr/bin/chromium (apt-get install chromium)"
    for package in ("gunicorn", "celery"):
        if importlib.util.find_spec(package) is None:
            missing[package] = f"{package} is not installed (pip install {package})"
    for program in ("prometheus", "promtool"):
        if not _works(shutil.which(program)):
            missing[program] = f"{program} is not installed (apt-get install prometheus)"
    return missing


def needs(what: str) -> pytest.MarkDecorator:
    """Skip where there is no `browser`, `gunicorn`, `celery`, `prometheus` or `promtool`."""
    why = _missing().get(what)
    return pytest.mark.skipif(why is not None, reason=f"{LEFT_OUT} {why}")
