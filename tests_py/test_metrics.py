"""The metrics say what `stats()` says, in text that Prometheus takes."""

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distributed_consistent_cache import Cache, ClosedError
from outside import needs

DOCS = Path(__file__).parent.parent / "docs"

SAMPLE = re.compile(r"^([a-z_]+)(?:\{([^}]*)\})? (\S+)$")


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of a text, by its name and labels."""
    found = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        match = SAMPLE.match(line)
        assert match, line
        name, labels, value = match.groups()
        pairs = tuple(tuple(pair.split("=")) for pair in (labels or "").replace('"', "").split(",") if pair)
        assert (name, pairs) not in found, f"{line} is said twice"
        found[name, pairs] = float(value)  # type: ignore[index]
    return found  # type: ignore[return-value]


@pytest.fixture
def cache() -> Iterator[Cache]:
    """A cache in which everything has happened: hits, misses for many reasons, evictions, a node that is down."""
    with Cache(4, 2, "16KiB", gossip_interval=None) as cache:
        for number in range(400):
            cache.put(f"key {number}", bytes(100), 1)
        cache.put("large", "the same again " * 200)
        cache.put("key 1", b"old", 0)
        cache.put("short", 1, ttl=0.01)
        cache.remove("key 399")
        time.sleep(0.02)
        for key in ("key 399", "never", "short", *(f"key {number}" for number in range(400))):
            cache.get(key)
        cache.gossip()
        cache.fail_node(2)
        yield cache


def test_the_metrics_are_those_of_stats(cache: Cache) -> None:
    said, stats = samples(cache.metrics()), cache.stats()
    for node in stats.nodes:
        labels = (("node", str(node.id)),)
        for name in (
            "hits", "unanswered", "puts", "puts_refused", "removes", "removes_refused", "evictions", "expired",
            "repairs", "fixes", "lock_waits",
        ):  # fmt: skip
            assert said[f"dcc_{name}_total", labels] == getattr(node, name), name
        assert said["dcc_evicted_bytes_total", labels] == node.evicted_bytes
        assert said["dcc_node_live", labels] == node.live
        assert said["dcc_capacity_bytes", labels] == node.bytes_max
        for name in ("entries", "markers", "unsynced_partitions"):
            assert said[f"dcc_{name}", labels] == getattr(node, name), name
        for reason, count in node.misses_by_reason.items():
            assert said["dcc_misses_total", (*labels, ("reason", reason))] == count, reason
        for kind, count in node.bytes_by_kind.items():
            assert said["dcc_used_bytes", (*labels, ("kind", kind))] == count, kind
    for name in ("gossip_rounds", "gossip_items", "gossip_bytes"):
        assert said[f"dcc_{name}_total", ()] == getattr(stats, name), name
    for name in ("tried", "packed", "corrupt", "refused"):
        assert said[f"dcc_values_{name}_total", ()] == getattr(stats.values, name), name
    assert said["dcc_values_in_bytes_total", ()] == stats.values.bytes_in > said["dcc_values_out_bytes_total", ()]
    assert said["dcc_values_out_bytes_total", ()] == stats.values.bytes_out > 0
    assert said["dcc_nodes", ()] == 4
    assert said["dcc_live_nodes", ()] == 3
    assert said["dcc_replicas", ()] == 2
    assert said["dcc_keys", ()] == stats.keys > 0
    assert said["dcc_copies", ()] / said["dcc_keys", ()] == pytest.approx(stats.effective_copies)
    assert said["dcc_unseen_writes", ()] == stats.unseen_writes
    assert sum(value for (name, _), value in said.items() if name == "dcc_misses_total") == stats.misses > 0


def test_the_histogram_of_latencies_only_grows_and_ends_with_all(cache: Cache) -> None:
    for number in range(5000):
        cache.get(f"key {number % 500}")
    said, latency = samples(cache.metrics()), cache.stats().latency["get"]
    label = ("call", "get")
    buckets = [
        (float(dict(labels)["le"]), value)
        for (name, labels), value in said.items()
        if name == "dcc_call_duration_seconds_bucket" and label in labels
    ]
    assert buckets == sorted(buckets)
    assert [count for _, count in buckets] == sorted(count for _, count in buckets)
    assert buckets[-1] == (float("inf"), latency.count)
    assert said["dcc_call_duration_seconds_count", (label,)] == latency.count > 0
    assert said["dcc_call_duration_seconds_sum", (label,)] == pytest.approx(latency.mean * latency.count, rel=0.01)
    # Half of the calls are below the first bound that is above the median.
    at_median = next(count for bound, count in buckets if bound >= latency.p50)
    assert at_median >= latency.count * 0.49


def test_openmetrics_text_is_complete_and_described(cache: Cache) -> None:
    text = cache.metrics()
    assert text.endswith("# EOF\n")
    described = set(re.findall(r"^# HELP (\S+) .", text, re.MULTILINE))
    typed = dict(re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE))
    assert described == set(typed)
    for name, _ in samples(text):
        family = next(end for end in (name, *(name.removesuffix(s) for s in ENDINGS)) if end in typed)
        assert family.startswith("dcc_")
        assert name.endswith("_total") == (typed[family] == "counter"), name
    for family, unit in re.findall(r"^# UNIT (\S+) (\w+)$", text, re.MULTILINE):
        assert family.endswith(f"_{unit}")


ENDINGS = ("_total", "_info", "_bucket", "_sum", "_count")


def test_the_gauges_that_look_at_every_key_are_counted_at_most_once_a_second() -> None:
    with Cache(3, 1) as cache:
        counted: list[float] = []
        for number in range(5):
            cache.put(f"key {number}", number)
            counted.append(samples(cache.metrics())["dcc_keys", ()])
        assert counted == [1] * 5, "the first time, and not again so soon"
        time.sleep(1.05)
        said = samples(cache.metrics())
        assert (said["dcc_keys", ()], said["dcc_counted_ago_seconds", ()]) == (5, 0)


def test_a_closed_cache_has_no_metrics() -> None:
    cache = Cache()
    cache.close()
    with pytest.raises(ClosedError):
        cache.metrics()


def get(url: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        return answer.read().decode()  # type: ignore[no-any-return]


@needs("promtool")
def test_promtool_finds_nothing_to_complain_about(cache: Cache) -> None:
    with cache.serve() as server:
        text = get(server.url + "metrics", Accept="text/plain")
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def families(text: str) -> set[str]:
    return {name for name, _ in samples(text)}


def test_both_texts_have_the_same_samples(cache: Cache) -> None:
    with cache.serve() as server:
        old = get(server.url + "metrics")
        new = get(server.url + "metrics", Accept="application/openmetrics-text; version=1.0.0, text/plain;q=0.5")
    assert "# EOF" not in old
    assert "# UNIT" not in old
    assert new.endswith("# EOF\n")
    older, newer = samples(old), samples(new)
    assert older.keys() == newer.keys()
    assert {name for name in older if older[name] != newer[name]} <= {("dcc_counted_ago_seconds", ())}
    for name in families(old):
        if name.endswith("_total"):
            assert f"# TYPE {name} counter\n" in old


def promtool(*arguments: str | Path) -> None:
    checked = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@needs("promtool")
def test_the_alert_rules_are_sound() -> None:
    promtool("check", "rules", DOCS / "prometheus-alerts.yml")


@needs("promtool")
def test_the_alerts_ring_when_they_should() -> None:
    promtool("test", "rules", DOCS / "prometheus-alerts.test.yml")


def expressions(value: Any) -> Iterator[str]:
    """Every query of a Grafana dashboard."""
    if isinstance(value, dict):
        if isinstance(value.get("expr"), str):
            yield value["expr"]
        for inner in value.values():
            yield from expressions(inner)
    if isinstance(value, list):
        for inner in value:
            yield from expressions(inner)


def test_the_grafana_dashboard_and_the_alerts_ask_for_metrics_that_there_are() -> None:
    with Cache() as cache:
        known = families(cache.metrics())
    dashboard = json.loads((DOCS / "grafana-dashboard.json").read_text(encoding="utf-8"))
    asked = list(expressions(dashboard))
    assert len(asked) > 10
    alerts = (DOCS / "prometheus-alerts.yml").read_text(encoding="utf-8")
    for text in (*asked, alerts):
        for name in re.findall(r"\bdcc_[a-z_]+", text):
            assert name in known, f"{name} of {text[:200]}"


@needs("prometheus")
def test_a_real_prometheus_scrapes_a_running_cache(cache: Cache, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with cache.serve() as server, (tmp_path / "log").open("w") as log:
        (tmp_path / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s}\n"
            f"rule_files: [{json.dumps(str(DOCS / 'prometheus-alerts.yml'))}]\n"
            "scrape_configs:\n"
            f"- {{job_name: cache, static_configs: [{{targets: ['127.0.0.1:{server.port}']}}]}}\n"
        )
        program = subprocess.Popen(
            [
                shutil.which("prometheus") or "prometheus",
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=log,
        )

        def ask(path: str, **query: str) -> Any:
            url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
            return json.loads(get(url))["data"]

        try:
            deadline = time.monotonic() + 60
            answers: list[Any] = []
            while not answers and time.monotonic() < deadline:
                assert program.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.2)
                try:
                    answers = ask("query", query="sum(dcc_misses_total)")["result"]
                except OSError:
                    continue
            (target,) = ask("targets", state="active")["activeTargets"]
            assert (target["health"], target["lastError"]) == ("up", "")
            stats = cache.stats()
            assert [float(answer["value"][1]) for answer in answers] == [stats.misses]
            (live,) = ask("query", query="count(dcc_node_live == 0)")["result"]
            assert live["value"][1] == "1"
            # The types came through, and each query of the dashboard is one that Prometheus understands.
            about = ask("metadata")
            # In OpenMetrics a counter's family has no `_total`; which name it is told under is Prometheus' matter.
            (hits,) = about.get("dcc_hits") or about["dcc_hits_total"]
            assert hits["type"] == "counter"
            assert about["dcc_call_duration_seconds"][0]["type"] == "histogram"
            dashboard = json.loads((DOCS / "grafana-dashboard.json").read_text(encoding="utf-8"))
            for query in expressions(dashboard):
                ask("query", query=query.replace("$__rate_interval", "1m").replace("$instance", ".*"))
        finally:
            program.terminate()
            program.wait(30)
