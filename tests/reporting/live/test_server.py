"""The live page serves this machine alone, follows a growing log, and stays whole in a browser."""

import json
import os
import re
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from logs import whole_run, write_log

from fl_rsna.reporting.live.server import Watcher, make_server

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Of a server that watches tmp_path/run, which is not there yet."""
    server = make_server(Watcher(tmp_path / "run"), 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def get(url: str, host: str | None = None, method: str = "GET") -> tuple[int, str]:
    asked = urllib.request.Request(url, method=method, headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(asked) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_it_waits_then_follows_and_ends_with_the_run(address: str, tmp_path: Path) -> None:
    events = whole_run()
    assert "waiting for the run to begin" in get(f"{address}/")[1]
    write_log(tmp_path / "run", events[:4])
    first = json.loads(get(f"{address}/state")[1])
    assert set(first["sections"]) == {"head", "curves", "rounds", "sites", "failures", "events"}
    assert "1 of 3" in first["sections"]["head"]["html"]
    with (tmp_path / "run" / "events.jsonl").open("a") as file:
        file.write("".join(json.dumps(event) + "\n" for event in events[4:]) + '{"time": "torn')
    last = json.loads(get(f"{address}/state")[1])
    assert "finished" in last["sections"]["head"]["html"]
    assert "3 of 3" in get(f"{address}/")[1]


def test_a_page_gets_only_the_sections_it_does_not_have(address: str, tmp_path: Path) -> None:
    write_log(tmp_path / "run", whole_run())
    sections = json.loads(get(f"{address}/state")[1])["sections"]
    have = "&".join(f"{name}={section['digest']}" for name, section in sections.items())
    assert json.loads(get(f"{address}/state?{have}")[1])["sections"] == {}
    assert list(json.loads(get(f"{address}/state?{have}&sites=0")[1])["sections"]) == ["sites"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1.evil.example"])
def test_another_name_for_this_machine_is_refused(address: str, host: str) -> None:
    assert get(f"{address}/", host)[0] == get(f"{address}/state", host)[0] == 403
    assert get(f"{address}/", address.replace("http://127.0.0.1", "localhost"))[0] == 200


@pytest.mark.parametrize("path", ["/events.jsonl", "/../config.yaml", "/state/", "/%2e%2e/x", "/favicon.ico"])
def test_only_its_own_paths(address: str, path: str) -> None:
    assert get(address + path)[0] == 404


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_it_is_only_read(address: str, method: str) -> None:
    assert get(f"{address}/", method=method)[0] == 405


def test_a_part_that_is_not_there_opens_nothing(address: str, tmp_path: Path) -> None:
    write_log(tmp_path / "other", whole_run())
    write_log(tmp_path / "run", whole_run()[:3])
    assert "1 of 3" in get(f"{address}/?part=../other")[1]


def test_of_a_run_of_parts_the_newest_is_shown_and_any_can_be_asked_for(address: str, tmp_path: Path) -> None:
    old = write_log(tmp_path / "run" / "federated", whole_run())
    write_log(tmp_path / "run" / "central", whole_run()[:3])
    os.utime(old, (1, 1))
    page = get(f"{address}/")[1]
    assert "part central" in page
    assert re.findall(r'href="\?part=([^"]+)"', page) == ["central", "federated"]
    assert "finished" in get(f"{address}/?part=federated")[1]


def later(events: list[dict[str, object]]) -> list[dict[str, object]]:
    """The events of a run that began an hour later."""
    return [{**event, "time": str(event["time"]).replace("T00", "T01")} for event in events]


@pytest.mark.parametrize("looked_between", [False, True])
@pytest.mark.parametrize("count", [3, 9, 100])
def test_another_run_of_the_same_name_is_shown(address: str, tmp_path: Path, count: int, looked_between: bool) -> None:
    """Whether its log is shorter than the old one, or longer."""
    write_log(tmp_path / "run", whole_run())
    assert ">finished<" in get(f"{address}/")[1]
    shutil.rmtree(tmp_path / "run")
    if looked_between:
        assert "waiting for the run to begin" in get(f"{address}/")[1]
    events = [
        {"time": "2026-01-01T01:00:00.000+00:00", "event": "warning", "text": "long " * 3000},
        *later(whole_run()),
    ]
    write_log(tmp_path / "run", events[:count])
    page = get(f"{address}/")[1]
    assert (">finished<" in page) == (count == 100)
    assert "long long" in page


def test_a_new_run_that_has_only_begun_its_first_line_is_not_the_old_one(address: str, tmp_path: Path) -> None:
    write_log(tmp_path / "run", whole_run())
    assert ">finished<" in get(f"{address}/")[1]
    (tmp_path / "run" / "events.jsonl").write_text('{"time": "2026')
    assert ">finished<" not in get(f"{address}/")[1]
    write_log(tmp_path / "run", later(whole_run()[:5]))
    page = get(f"{address}/")[1]
    assert "1 of 3" in page
    assert ">finished<" not in page


def test_what_the_disk_throws_is_said_and_the_watch_goes_on(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_log(tmp_path / "run", whole_run()[:5])
    assert "1 of 3" in get(f"{address}/")[1]

    def stale(*words: object, **more: object) -> None:
        raise OSError(116, "Stale file handle")

    for name in ("open", "glob", "iterdir", "resolve", "stat"):
        with monkeypatch.context() as broken:
            broken.setattr(Path, name, stale)
            code, page = get(f"{address}/")
        assert code == 200, name
        assert ("Stale file handle" in page) == (name == "open")
        assert "1 of 3" in page
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").write_text("a file")
    assert "waiting for the run to begin" in get(f"{address}/")[1]
    (tmp_path / "run").unlink()
    write_log(tmp_path / "run", whole_run())
    assert ">finished<" in get(f"{address}/")[1]


@pytest.mark.parametrize("odd", [7, "words", None, [1], {"a": [1]}, float("nan"), 1e400, "\ud800", {}])
def test_an_event_of_any_content_leaves_a_page(address: str, tmp_path: Path, odd: object) -> None:
    for place, event in enumerate(whole_run()[:6]):
        for key in event:
            if key != "event":
                changed = [*whole_run()[:place], {**event, key: odd}, *whole_run()[place + 1 :]]
                write_log(tmp_path / "run", changed)
                code, page = get(f"{address}/")
                assert (code, "finished" in page) == (200, True), (event["event"], key)


def test_the_page_may_ask_nobody_else(address: str, tmp_path: Path) -> None:
    write_log(tmp_path / "run", whole_run())
    with urllib.request.urlopen(f"{address}/") as answer:
        policy, page = answer.headers["Content-Security-Policy"], answer.read().decode()
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert re.findall(r"""(?:src|href)=["']?(?!data:|#|\?)[^"'> ]+""", page) == []


def test_two_servers_do_not_share_a_port(tmp_path: Path) -> None:
    with make_server(Watcher(tmp_path), 0) as first, pytest.raises(OSError, match="in use"):
        make_server(Watcher(tmp_path), first.server_address[1])


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no browser here")
def test_in_a_browser_it_is_whole_and_follows(address: str, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    log = write_log(tmp_path / "run", whole_run()[:9])
    errors: list[str] = []
    requests: list[str] = []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"{address}/")
        for width in (390, 1440):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        with log.open("a") as file:
            file.write("".join(json.dumps(event) + "\n" for event in whole_run()[9:]))
        page.wait_for_selector(".state.finished")  # by its own asking
        assert "3 of 3" in page.inner_text("#head")
        browser.close()
    assert errors == []
    assert all(url.startswith(f"{address}/") for url in requests)
