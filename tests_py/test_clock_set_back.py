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


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not shutil.which("cc"), reason="a preloaded library is made"
)
@pytest.mark.parametrize("seconds", [-600, -40 * 365 * 86_400, 86_400])
def test_an_end_stays_where_it_is_when_the_system_clock_is_set(seconds: int, tmp_path: Path) -> None:
    source, shim, shift = tmp_path / "shim.c", tmp_path / "shim.so", tmp_path / "shift"
    source.write_text(SHIM)
    shift.write_text("0")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    script = textwrap.dedent(SCRIPT)
    environment = {**os.environ, "LD_PRELOAD": str(shim), "SHIFT_FILE": str(shift)}
    command = [sys.executable, "-W", "error", "-c", script, str(seconds)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
