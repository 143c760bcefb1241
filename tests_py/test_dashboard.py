"""The dashboard, in a real browser without a screen: it loads, draws, shows a failed node within two seconds, explains
keys, says when nobody answers, and touches nothing on the page when nothing changes."""

import json
import os
import random
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distributed_consistent_cache import Cache, Server
from outside import CHROMIUM, needs

pytestmark = needs("browser")

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

LAPTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}

SECONDS = 15_000
"""How long the browser waits for something to be there: a shared machine may be slow."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Any]:
    """Open a page and have the test fail at its end if the browser complained of anything, unless it may."""
    complaints: list[str] = []
    contexts = []

    def open_page(server: Server, *, may_complain: bool = False, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": LAPTOP} | options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SECONDS)
        if not may_complain:
            page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: check_address(request.url))
        page.goto(server.url)
        page.wait_for_selector("#connection[data-state=live]")
        return page

    def check_address(url: str) -> None:
        if not url.startswith(("http://127.0.0.1:", "data:")):
            complaints.append(f"asked for {url}")

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def cache() -> Iterator[Cache]:
    with Cache(5, 3, "250KiB", gossip_interval=0.05) as cache:
        cache.put_many((f"user:{number}", bytes(100), 1) for number in range(500))
        for number in range(1000):
            cache.get(f"user:{number}")
        yield cache


@pytest.fixture
def server(cache: Cache) -> Server:
    return cache.serve()


def wait_for_text(page: Any, selector: str, text: str) -> None:
    has = "([where, text]) => document.querySelector(where)?.textContent.includes(text)"
    page.wait_for_function(has, arg=[selector, text])


def test_it_loads_and_draws(server: Server, open_page: Any) -> None:
    page = open_page(server)
    assert page.title() == "Cache"
    wait_for_text(page, "#summary", "5 nodes, 3 copies of each entry")
    assert page.locator("#ring path.track").count() == 5
    assert page.locator("#ring-live").text_content() == "5 of 5"
    assert page.locator("#hit-rate").text_content() == "50.0 %"
    assert page.locator("#keys").text_content() == "500"
    assert page.locator("#nodes tr").count() == 5
    assert page.locator("#misses tr").count() == 7
    wait_for_text(page, "#misses tr:first-child", "500")
    assert page.locator("#missed").text_content() == "500 of 1,000 gets"
    wait_for_text(page, "#nodes tr:first-child", "of 250 KiB")
    # A ring whose arcs are equal when the shares are.
    boxes = [page.locator("#ring path.track").nth(number).bounding_box() for number in range(5)]
    assert all(box["width"] > 20 and box["height"] > 20 for box in boxes)


def test_charts_follow_what_happens(cache: Cache, server: Server, open_page: Any) -> None:
    page = open_page(server)
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(0.005):
            for number in range(50):
                cache.get(f"user:{number}")
            cache.put_many((f"more:{random.randrange(10**6)}", bytes(1000)) for _ in range(20))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        drawn = """([id, lines]) => {
            const path = document.querySelector(`#${id} path`).getAttribute("d") ?? "";
            return path.split("L").length > lines;
        }"""
        for name, lines in (("hit-rate", 1), ("operations", 2), ("latency", 1), ("evictions", 2)):
            page.wait_for_function(drawn, arg=[f"chart-{name}", lines])
        wait_for_text(page, "#p50-note", "in all")
        assert page.locator("#p50").text_content().endswith(("ns", "µs", "ms"))
        assert page.locator("#operations").text_content() != "0"
        assert "L" in page.locator("#chart-operations path").nth(1).get_attribute("d")
    finally:
        ended.set()
        thread.join(30)


def test_a_failed_node_shows_within_two_seconds_and_its_return(cache: Cache, server: Server, open_page: Any) -> None:
    page = open_page(server)
    for lose_memory, state in ((True, "failed"), (False, "cut off")):
        page.wait_for_timeout(random.Random(state).randrange(1000))
        cache.fail_node(3, lose_memory=lose_memory)
        failed_at = time.monotonic()
        page.wait_for_selector("#ring path.gone", state="attached")
        wait_for_text(page, "#nodes tr:nth-child(4)", state)
        assert time.monotonic() - failed_at < 2
        assert page.locator("#ring .down").text_content() == f"3 {state}"
        assert page.locator("#ring-live").text_content() == "4 of 5"
        assert "node 3" in page.locator("#ring-said").text_content()
        assert "node is down" in page.locator("#verdict").text_content()
        cache.recover_node(3)
        wait_for_text(page, "#ring-live", "5 of 5")
        page.wait_for_selector("#ring path.gone", state="detached")
        wait_for_text(page, "#nodes tr:nth-child(4)", "live")


def test_nodes_come_and_go(cache: Cache, server: Server, open_page: Any) -> None:
    page = open_page(server)
    cache.add_node()
    wait_for_text(page, "#summary", "6 nodes")
    assert page.locator("#nodes tr").count() == page.locator("#ring path.track").count() == 6
    cache.remove_node(0)
    wait_for_text(page, "#summary", "5 nodes")
    page.wait_for_function("() => document.querySelectorAll('#ring path.track').length === 5")
    assert page.locator("#nodes tr td:first-child").all_text_contents() == ["1", "2", "3", "4", "5"]


def explain(page: Any, key: str) -> str:
    page.fill("#key", key)
    page.press("#key", "Enter")
    # Characters that are not seen, or turn the direction of reading, are written out.
    seen = "".join(char if char.isprintable() else f"\\u{{{ord(char):x}}}" for char in key[:50])
    page.wait_for_function("key => document.querySelector('#said').textContent.includes(key)", arg=seen)
    return page.locator("#said").text_content()  # type: ignore[no-any-return]


def test_the_key_explorer_answers(cache: Cache, server: Server, open_page: Any) -> None:
    page = open_page(server)
    cache.put("user:1", "Ada", 2**62 + 1)
    assert f"A get finds the value of timestamp {2**62 + 1}." in explain(page, "user:1")
    assert page.locator("#owner-rows tr").count() == 3
    assert page.locator("#owner-rows tr").first.locator("td").all_text_contents()[1:5] == [
        "live", "yes", "the value", f"{2**62 + 1}",
    ]  # fmt: skip
    assert "no live node knows of it" in explain(page, "nobody")
    cache.remove("user:2")
    assert "the key was removed" in explain(page, "user:2")
    cache.fail_node(cache.owners("user:3")[0])
    explain(page, "user:3")
    assert "does not answer" in page.locator("#owner-rows").text_content()


def test_hostile_keys_are_text(cache: Cache, server: Server, open_page: Any) -> None:
    page = open_page(server)
    markup = ("<img src=x onerror=document.title=1>", "</script><script>document.title=1</script>")
    for key in (*markup, "a&b=c#d+e %41 \u202e日本"):
        cache.put(key, 1)
        assert "A get finds the value" in explain(page, key)
    assert page.title() == "Cache"
    assert page.locator("#said img, #said script").count() == 0


def test_what_is_no_answer_is_said(server: Server, open_page: Any) -> None:
    # The browser itself tells its console of every answer that is an error.
    page = open_page(server, may_complain=True)
    page.fill("#key", "k" * 70_000)
    page.click("button")
    page.wait_for_selector("#said[data-kind=wrong]")
    assert page.locator("#owners").is_hidden()


def test_a_lost_connection_is_said_and_found_again(cache: Cache, open_page: Any) -> None:
    server = cache.serve()
    page = open_page(server, may_complain=True)
    server.close()
    page.wait_for_selector("#connection[data-state=lost]")
    assert page.locator("#lost").is_visible()
    assert "Connection lost: the server does not answer." in page.locator("#lost").text_content()
    assert page.locator("#lost").get_attribute("role") == "alert"
    again = cache.serve(port=server.port)
    page.wait_for_selector("#connection[data-state=live]")
    assert page.locator("#lost").is_hidden()
    again.close()
    # Another cache at the same address begins anew.
    with Cache(2, 1) as other, other.serve(port=server.port):
        wait_for_text(page, "#summary", "2 nodes, 1 copy of each entry")
        assert page.locator("#nodes tr").count() == 2


def test_nothing_is_touched_while_nothing_changes(open_page: Any) -> None:
    with Cache(3, gossip_interval=None) as cache:
        cache.put("key", 1)
        server = cache.serve()
        page = open_page(server)
        polls = []
        page.on("response", lambda response: polls.append(response.url))
        # The gauges and the rates of the first seconds.
        page.wait_for_timeout(3500)
        page.evaluate(
            """() => {
                window.touched = [];
                const name = (one) => one.type + " " + (one.target.id || one.target.outerHTML);
                const all = { subtree: true, childList: true, attributes: true, characterData: true };
                new MutationObserver((list) => window.touched.push(...list.map(name))).observe(document, all);
            }"""
        )
        polls.clear()
        page.wait_for_timeout(4000)
        assert 3 <= len(polls) <= 5, polls
        assert page.evaluate("window.touched") == []
        # And the eye of the test is open.
        cache.put("key", 2)
        page.wait_for_function("() => window.touched.length > 0")


def test_it_rests_while_it_is_not_seen(server: Server, open_page: Any) -> None:
    page = open_page(server)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    hide = """hidden => {
        Object.defineProperty(document, "hidden", { get: () => hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(hide, True)
    page.wait_for_selector("#connection[data-state=paused]")
    asked.clear()
    page.wait_for_timeout(2500)
    assert asked == []
    page.evaluate(hide, False)
    page.wait_for_selector("#connection[data-state=live]")
    assert asked


CONTRAST = """() => {
    const parse = (color) => color.match(/[\\d.]+/g).map(Number);
    const luminance = ([r, g, b]) => {
        const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        const [x, y, z] = [r, g, b].map((v) => linear(v / 255));
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const behind = (node) => {
        for (; node; node = node.parentElement) {
            const color = parse(getComputedStyle(node).backgroundColor);
            if (color.length === 3 || color[3] === 1) return color;
        }
        return [255, 255, 255];
    };
    const low = [];
    const all = "h1, h2, p, dt, dd, th, td, span, button, input, figcaption, footer, a";
    for (const node of document.querySelectorAll(all)) {
        if (!node.textContent.trim() || !node.checkVisibility()) continue;
        const [a, b] = [luminance(parse(getComputedStyle(node).color)), luminance(behind(node))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) low.push(`${ratio.toFixed(2)} ${node.outerHTML.slice(0, 80)}`);
    }
    return low;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_can_be_read(scheme: str, cache: Cache, server: Server, open_page: Any) -> None:
    page = open_page(server, color_scheme=scheme)
    cache.fail_node(2)
    page.wait_for_selector("#ring path.gone", state="attached")
    explain(page, "user:1")
    (red, *_) = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (red < 64) == (scheme == "dark")
    assert page.evaluate(CONTRAST) == []


@pytest.mark.parametrize("width", [320, 390, 768])
def test_it_fits_a_small_screen(width: int, server: Server, open_page: Any) -> None:
    page = open_page(server, viewport=PHONE | {"width": width}, has_touch=True)
    explain(page, "user:1")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Wide tables scroll in their own frame, and nothing else is cut off.
    cut = page.evaluate(
        """() => [...document.querySelectorAll("h1, h2, dd, dt, button, .tiles dd, .axis span")]
            .filter((node) => node.scrollWidth > node.clientWidth + 1 && getComputedStyle(node).display !== "inline")
            .map((node) => node.outerHTML.slice(0, 80))"""
    )
    assert cut == []
    for selector in ("#key", "button"):
        assert page.locator(selector).bounding_box()["height"] >= 36, "big enough for a finger"


def large(value: Any, name: str = "") -> Any:
    """A report with every number large, and its latencies as they are."""
    if isinstance(value, list) and not name.startswith("latency"):
        return [large(one) for one in value]
    if isinstance(value, dict):
        return {name: large(one, name) for name, one in value.items()}
    is_count = type(value) is int and name not in {"id", "epoch", "replicas"}
    return value * 123_456_789 + 98_765_432_101 if is_count else value


@pytest.mark.parametrize("width", [320, 390, 800])
def test_large_numbers_and_long_names_run_over_nothing(
    width: int, cache: Cache, server: Server, open_page: Any
) -> None:
    cache.fail_node(2)
    page = open_page(server, viewport=PHONE | {"width": width})
    with urllib.request.urlopen(f"{server.url}api/stats.json") as answer:
        stats = large(json.load(answer))
    stats["process"]["program"] = "python3 " + "name" * 12
    page.route("**/api/stats.json", lambda route: route.fulfill(json=stats))
    explain(page, "user:" + "x" * 300)
    page.wait_for_function("() => document.querySelector('#keys').textContent.endsWith('B')")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    over = page.evaluate(
        """() => [...document.querySelectorAll("h1, h2, p, dd, dt, td, th, span, button")].filter((node) => {
            const right = (node.closest(".card") ?? document.body).getBoundingClientRect().right;
            return !node.closest(".wide") && node.getBoundingClientRect().right > right + 1;
        }).map((node) => node.outerHTML.slice(0, 80))"""
    )
    assert over == []
    page.unroute_all(behavior="ignoreErrors")


def test_whole_numbers_arrive_whole_and_odd_characters_are_written_out(
    cache: Cache, server: Server, open_page: Any
) -> None:
    page = open_page(server)
    key = 'a\x1b[2J\u202e"1234567890123456789"\\'
    for timestamp in (2**53 + 1, 2**63 - 1):
        cache.put(key, 1, timestamp=timestamp)
        explain(page, key)
        wait_for_text(page, "#said", f"timestamp {timestamp}")
        wait_for_text(page, "#owner-rows tr:first-child", str(timestamp))
    said = page.locator("#said").text_content()
    assert r"a\u{1b}[2J\u{202e}" in said
    assert '"1234567890123456789"' in said
    assert said.isprintable()


def test_it_says_which_process_it_shows_and_does_not_count_memory_that_is_lost(
    cache: Cache, server: Server, open_page: Any
) -> None:
    page = open_page(server)
    wait_for_text(page, "#summary", f"process {os.getpid()}, py")
    wait_for_text(page, "#memory-note", "of 1.22 MiB")
    cache.fail_node(1)
    wait_for_text(page, "#memory-note", "of 0.977 MiB")
    wait_for_text(page, "#nodes tr:nth-child(2)", "none: it is lost")


def test_it_can_be_used_by_keyboard(server: Server, open_page: Any) -> None:
    page = open_page(server)
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            """() => { const at = document.activeElement;
                const name = at.id || at.getAttribute("href") || at.className || at.tagName;
                return [name, getComputedStyle(at).outlineStyle]; }"""
        )
        if name == "BODY":
            break
        assert outline != "none", f"{name} shows no focus"
        reached.append(name)
        if name == "key":
            page.keyboard.type("user:1")
            page.keyboard.press("Enter")
            page.wait_for_selector("#said[data-kind=hit]")
    assert [name for name in reached if name != "owners"] == [
        "wide", "key", "BUTTON", "/metrics", "/api/stats.json", "/api/ring.json",
    ]  # fmt: skip
    assert "owners" in reached
    assert page.locator("#connection").get_attribute("aria-live") == "polite"
    unnamed = page.locator("svg[role=img]:not([aria-label]):not([aria-labelledby])").count()
    assert unnamed == 0


def test_a_screenshot_for_people_to_look_at(tmp_path: Path, open_page: Any) -> None:
    """SCREENSHOT=docs/dashboard.png keeps it."""
    kept = os.environ.get("SCREENSHOT")
    chance = random.Random(1)
    with Cache(5, 3, "256KiB", gossip_interval=0.05) as cache:
        ended = threading.Event()

        def work() -> None:
            while not ended.wait(chance.uniform(0.002, 0.02)):
                for _ in range(chance.randrange(20, 60)):
                    key = f"user:{int(chance.paretovariate(0.6)) % 6000}"
                    if cache.get(key)[1] < 0:
                        cache.put(key, chance.randbytes(chance.randrange(20, 400)))
                cache.remove(f"user:{chance.randrange(6000)}")

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        page = open_page(cache.serve(), color_scheme="light")
        try:
            page.wait_for_timeout(45_000 if kept else 2_000)
            cache.fail_node(3)
            page.wait_for_selector("#ring path.gone", state="attached")
            page.wait_for_timeout(9_000 if kept else 100)
            explain(page, "user:7")
            path = Path(kept) if kept else tmp_path / "dashboard.png"
            page.screenshot(path=path, full_page=True)
        finally:
            ended.set()
            thread.join(30)
    assert 20_000 < path.stat().st_size < 300_000
