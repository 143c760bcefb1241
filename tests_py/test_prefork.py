"""A cache of a module works in the workers of servers that fork: gunicorn with and without --preload, celery's prefork,
and multiprocessing in all three ways."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import RunProgram
from outside import needs

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))

# A cache that every worker has, and what each knows of it.
APPLICATION = """
import json, os
from distributed_consistent_cache import Cache

MADE_BY = os.getpid()
cache = Cache(gossip_interval=0.01)
cache.put("made by", MADE_BY, 1)

def application(environ, start_response):
    served = cache.get("served")[0]
    if served is None:
        served = cache.serve(port=range(22000, 22100)).port
        cache.put("served", served)
    count = cache.get("count", 0)[0] + 1
    cache.put("count", count)
    said = {
        "pid": os.getpid(), "made by": cache.get("made by")[0], "count": count, "length": len(cache),
        "converged": cache.sync().converged, "closed": cache.closed, "served": served,
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(said).encode()]
"""


def _until(true: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def _end(process: subprocess.Popen[str]) -> str:
    """End a server as its administrator would; what it wrote."""
    process.send_signal(signal.SIGTERM)
    try:
        output, _ = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"it does not end:\n{output}")
    return output


@needs("gunicorn")
@pytest.mark.parametrize("preload", [True, False])
def test_workers_of_gunicorn_have_a_cache_that_works(preload: bool, tmp_path: Path) -> None:
    (tmp_path / "served.py").write_text(APPLICATION)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", "served:application", "--bind", f"127.0.0.1:{port}", "--workers", "3"]
    process = subprocess.Popen(
        [*command, *(["--preload"] if preload else [])],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    said: list[dict[str, Any]] = []

    def ask() -> bool:
        try:
            with OPENER.open(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                said.append(json.load(answer))
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read()) from error
        except OSError:
            return False
        return len({one["pid"] for one in said}) >= 2 and len(said) >= 20

    try:
        _until(ask, f"two workers do not answer: {said}")
        for pid in {one["pid"] for one in said}:
            own = [one for one in said if one["pid"] == pid]
            assert all(one["converged"] and not one["closed"] and one["length"] >= 2 for one in own)
            # Each counts its own requests.
            assert [one["count"] for one in own] == list(range(1, len(own) + 1))
            made_by = process.pid if preload else pid
            assert {one["made by"] for one in own} == {made_by}
        ports = {one["pid"]: one["served"] for one in said}
        assert len(set(ports.values())) == len(ports), "each worker serves at a port of its own"
        for served in ports.values():
            with OPENER.open(f"http://127.0.0.1:{served}/healthz", timeout=10) as answer:
                assert answer.read() == b"ok\n"
    finally:
        output = _end(process)
    assert "panick" not in output
    assert "Error" not in output


TASKS = """
import os
from celery import Celery
from distributed_consistent_cache import Cache

app = Celery("tasks", broker="filesystem://", backend="file://" + os.environ["RESULTS"])
app.conf.broker_transport_options = {
    "data_folder_in": os.environ["QUEUE"], "data_folder_out": os.environ["QUEUE"],
    "control_folder": os.environ["CONTROL"],
}
cache = Cache(gossip_interval=0.01)
cache.put("made by", os.getpid(), 1)

@app.task
def work(number):
    count = cache.get("count", 0)[0] + 1
    cache.put("count", count)
    return [os.getpid(), cache.get("made by")[0], count, len(cache), cache.sync().converged]
"""


@needs("celery")
def test_tasks_of_celery_have_a_cache_that_works(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(TASKS)
    folders = {name: tmp_path / name.lower() for name in ("RESULTS", "QUEUE", "CONTROL")}
    for folder in folders.values():
        folder.mkdir()
    environment = {**os.environ, **{name: str(folder) for name, folder in folders.items()}, "C_FORCE_ROOT": "1"}
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--pool=prefork", "--concurrency=2", "-l", "INFO"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    client = """
import json, os, tasks
asked = [tasks.work.delay(number) for number in range(12)]
print(json.dumps([one.get(timeout=100) for one in asked]))
"""
    try:
        asked = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", client],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        output = _end(worker)
    assert asked.returncode == 0, asked.stderr + output
    said = json.loads(asked.stdout)
    assert len(said) == 12
    assert {made_by for _, made_by, *_ in said} == {worker.pid}
    for pid in {pid for pid, *_ in said}:
        assert pid != worker.pid
        assert sorted(count for by, _, count, *_ in said if by == pid) == list(
            range(1, 1 + len([by for by, *_ in said if by == pid]))
        )
    assert all(length >= 2 and converged for *_, length, converged in said)
    assert "panick" not in output


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_cache_of_a_module_works_in_processes_of_multiprocessing(
    method: str, tmp_path: Path, run_program: RunProgram
) -> None:
    (tmp_path / "work.py").write_text(
        "import os\n"
        "from distributed_consistent_cache import Cache\n"
        "cache = Cache(gossip_interval=0.01)\n"
        "cache.put('made by', os.getpid(), 1)\n"
        "def work(number):\n"
        "    cache.put(f'{number}', number)\n"
        "    assert cache.get(f'{number}')[0] == number and cache.sync().converged and not cache.closed\n"
        "    return os.getpid(), cache.get('made by')[0]\n"
    )
    program = f"""
        import multiprocessing, os, sys
        sys.path.insert(0, {str(tmp_path)!r})
        import work
        if __name__ == "__main__":
            with multiprocessing.get_context({method!r}).Pool(3) as pool:
                said = pool.map(work.work, range(30), chunksize=1)
            made_here = {method!r} == "fork"
            for pid, made_by in said:
                assert pid != os.getpid()
                assert made_by == (os.getpid() if made_here else pid), said
            assert len(work.cache) == 1
    """
    assert run_program(program) == ""
