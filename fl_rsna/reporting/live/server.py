"""Serve the live page to this machine alone: two paths, GET only, no name but a loopback's.

The events of a run's folder are followed, on this machine or on a disk it shares, for any number of readers.
"""

import base64
import contextlib
import hashlib
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fl_rsna.federation.site.heartbeat import read_beats
from fl_rsna.reporting.live.page import Seen, digest, page, render_sections
from fl_rsna.reporting.live.state import State, reduce_events
from fl_rsna.reporting.record.events import EVENTS, EventLog

PLACES = (EVENTS, f"*/{EVENTS}", f"alone/*/{EVENTS}", f"*/alone/*/{EVENTS}")  # of a run, or of one that is several
LOOPBACK = ("127.0.0.1", "localhost")
IDLE_S = 30  # before a connection that says nothing is closed


class Watcher:
    """Reads what is new whenever asked; a folder that is not there, yet or any more, is waited for."""

    def __init__(self, run: Path) -> None:
        self._run, self._name = run, run.absolute().name
        self._parts: dict[str, _Part] = {}
        self._lock = threading.Lock()

    def look(self, asked: str | None = None) -> Seen:
        """The run as it is now: the part that is asked for, else that with the newest event."""
        with self._lock:
            logs = {_name_part(log.parent.relative_to(self._run)): log for log in find_logs(self._run)}
            newest = max(logs, key=lambda name: _read_mtime(logs[name]), default="")
            name = asked if asked is not None and asked in logs else newest
            part = self._parts.setdefault(name, _Part(logs[name].parent if logs else self._run))
            part.look()
            with contextlib.suppress(OSError):
                self._name = self._run.resolve().name
            return Seen(
                name=self._name,
                state=part.state,
                beats=part.beats,
                silent_s=part.silent_s(),
                part=name,
                parts=tuple(sorted(logs)),
                trouble=part.trouble,
                damaged=part.num_damaged,
            )


def find_logs(run: Path) -> list[Path]:
    """Those that the disk shows at this moment."""
    found: list[Path] = []
    for place in PLACES:
        with contextlib.suppress(OSError):  # gone while it was looked at, not ours to read, or a disk that is away
            found += run.glob(place)
    return found


def _name_part(part: Path) -> str:
    """What a part is called on the page: its path below the run's folder, which need not be UTF-8; none of the run itself."""
    return "" if part == Path() else part.as_posix().encode(errors="backslashreplace").decode()


def _read_mtime(log: Path) -> float:
    try:
        return log.stat().st_mtime
    except OSError:
        return 0.0


class _Part:
    """One events.jsonl: its state so far, and since when it is silent by this machine's clock."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._log = folder, EventLog(folder / EVENTS)
        self._begun = self._log.begun
        self.state, self.beats = State(), read_beats(folder)
        self._heard: float | None = None  # by the monotonic clock; what is found first may be old
        self._silent_before = 0.0

    @property
    def trouble(self) -> str | None:
        return self._log.trouble

    def look(self) -> None:
        came = False
        while True:
            events = self._log.new()
            if self._log.begun != self._begun:  # another run under this name, or none any more
                self._begun, self.state, self._heard, self._silent_before = self._log.begun, State(), None, 0.0
            if not events:
                break
            self.state, came = reduce_events(self.state, events), True
        first, beats = self._heard is None, read_beats(self._folder)
        alive = came or (not first and beats != self.beats)
        self.beats = beats
        if alive:
            self._heard = time.monotonic()
            self._silent_before = max(0.0, time.time() - (self.state.last or time.time())) if first else 0.0

    @property
    def num_damaged(self) -> int:
        return self._log.damaged

    def silent_s(self) -> float:
        return 0.0 if self._heard is None else self._silent_before + time.monotonic() - self._heard


def make_server(watcher: Watcher, port: int) -> ThreadingHTTPServer:
    """A server on 127.0.0.1, not yet serving; port 0 is any. Raises OSError when the port is taken."""
    handler = type("Handler", (_Handler,), {"watcher": watcher})
    server = _Server(("127.0.0.1", port), handler)
    server.daemon_threads = True
    return server


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that left before its answer is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    watcher: Watcher
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "fl_rsna", ""
    timeout = IDLE_S

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        words = {name: values[-1] for name, values in parse_qs(asked.query).items()}
        if not self._is_local():
            self._send(403, "text/plain", "this page is for this machine alone\n")
        elif asked.path == "/":
            self._send(200, "text/html", page(self.watcher.look(words.get("part"))))
        elif asked.path == "/state":
            self._send(200, "application/json", self._state(words))
        else:
            self._send(404, "text/plain", "there is nothing here\n")

    def _refuse(self) -> None:
        self.close_connection = True  # what it sent is not read
        self._send(405, "text/plain", "this page is only read\n")

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse

    def _is_local(self) -> bool:
        """Whether the browser means this server: another site's name that leads here (DNS rebinding) is refused."""
        port = self.connection.getsockname()[1]
        return self.headers.get("Host", "") in {f"{name}:{port}" for name in LOOPBACK}

    def _state(self, words: dict[str, str]) -> str:
        """The sections that are not as the page has them."""
        named, drawn = render_sections(self.watcher.look(words.get("part")))
        found = {name: {"html": html, "digest": digest(html)} for name, html in drawn.items()}
        changed = {name: section for name, section in found.items() if words.get(name) != section["digest"]}
        return json.dumps({"title": named, "sections": changed})

    def _send(self, code: int, kind: str, text: str) -> None:
        content = text.encode(errors="backslashreplace")  # a path need not be UTF-8
        self.send_response(code)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Content-Security-Policy", policy(text))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


def policy(text: str) -> str:
    """What the page may do: its own script and styles, and ask this server."""
    script = text.partition("<script>")[2].rpartition("</script>")[0]
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{allowed}'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
