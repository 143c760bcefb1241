"""The system's clock is set back, or forth, under a running process: nothing lives longer or ends sooner for it."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t which, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int answer = real(which, now);
    if (which == CLOCK_REALTIME) {
        long by = 0;
        FILE *file = fopen(getenv("SHIFT_FILE"), "r");
        if (file) { if (fscanf(file, "%ld", &by) != 1) by = 0; fclose(file); }
        now->tv_sec += by;
    }
    return answer;
}
"""

SCRIPT = """
    import os, sys, time
    from distributed_consistent_cache import Cache
    def shift(seconds):
        open(os.environ["SHIFT_FILE"], "w").write(str(seconds))
    cache = Cache(gossip_interval=None)
    began = time.time()
    cache.put("short, before", 1, ttl=1)
    cache.put("long, before", 1, ttl=3600)
    cache.put("by the clock", "before")
    as_of = cache.now()
    shift(int(sys.argv[1]))
    assert abs(time.time() - began - int(sys.argv[1])) < 60, "the clock is not set"
    cache.put("short, after", 1, ttl=1)
    cache.put("long, after", 1, ttl=3600)
    assert cache.put("by the clock", "after") and cache.get("by the clock")[0] == "after"
    assert cache.put("by the clock", "late", as_of) is False
    assert cache.now() > as_of
    assert 3500 < cache.ttl("long, before") <= 3600 and 3500 < cache.ttl("long, after") <= 3600
    until = time.monotonic() + 60
    while (cache.get("short, before")[1] != -1 or cache.get("short, after")[1] != -1) and time.monotonic() < until:
        time.sleep(0.05)
    assert cache.get("short, before") == cache.get("short, after") == (None, -1)
    assert "long, before" in cache and "long, after" in cache
    assert cache.remove("by the clock") and cache.put("by the clock", "again")
"""


UNSET = """
    import os, sys, time, warnings
    from distributed_consistent_cache import Cache, TimestampWarning
    def boot(seconds):
        open(os.environ["SHIFT_FILE"], "w").write(str(seconds - int(real)))
    real, path = time.time(), os.environ["SHIFT_FILE"] + ".snapshot"
    if sys.argv[1] == "save":
        boot(600)
        with Cache(gossip_interval=None) as cache:
            cache.put_many({"put": "old", "put many": "old", "removed": "old", "remove": "old"})
            cache.remove("removed")
            cache.save(path)
        sys.exit()
    boot(30)
    def told(write):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            answer = write(Cache.load(path, gossip_interval=None))
        return answer, [str(warning.message) for warning in caught if warning.category is TimestampWarning]
    for key, write, refused in [
        ("put", lambda cache: cache.put("put", "new"), False),
        ("put many", lambda cache: cache.put_many({"new": 1, "put many": "new"}), ["put many"]),
        ("removed", lambda cache: cache.put("removed", "new"), False),
    ]:
        answer, (text,) = told(write)
        assert answer == refused
        assert f'the write of "{key}" with ' in text and " 9 minutes ahead of this machine's clock" in text, text
    answer, texts = told(lambda cache: cache.remove("remove") and cache.remove("remove"))
    assert not answer and not texts, "what is there is removed"
    answer, texts = told(lambda cache: cache.put("other", 1) and cache.put("other", 2) and cache.remove("other"))
    assert answer and not texts, "what this clock wrote is not ahead of it"
    answer, texts = told(lambda cache: cache.put("put", "new") or cache.put("put", "new"))
    assert not answer and len(texts) == 1, "it is told once"
    cache = Cache(gossip_interval=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cache.put("key", "by a clock that is set", timestamp=int(real * 1e6))
        assert cache.put("key", "new") and cache.get("key")[0] == "new", "the clock goes on from it"
"""

NEEDS_A_SHIM = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not shutil.which("cc"), reason="a preloaded library is made"
)


def run_shifted(script: str, tmp_path: Path, *arguments: str) -> None:
    source, shim, shift = tmp_path / "shim.c", tmp_path / "shim.so", tmp_path / "shift"
    source.write_text(SHIM)
    shift.write_text("0")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    environment = {**os.environ, "LD_PRELOAD": str(shim), "SHIFT_FILE": str(shift)}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *arguments]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr


@NEEDS_A_SHIM
def test_a_write_that_a_clock_which_is_not_set_loses_is_told(tmp_path: Path) -> None:
    """A board without a clock of its own begins in 1970 whenever it is switched on."""
    for step in ("save", "load"):
        run_shifted(UNSET, tmp_path, step)


@NEEDS_A_SHIM
@pytest.mark.parametrize("seconds", [-600, -40 * 365 * 86_400, 86_400])
def test_an_end_stays_where_it_is_when_the_system_clock_is_set(seconds: int, tmp_path: Path) -> None:
    run_shifted(SCRIPT, tmp_path, str(seconds))
