"""Serves the live page to this machine alone: two paths, GET only, no name but a loopback's."""

import base64
import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fl_rsna.reporting.live_page import digest, page, titled_sections
from fl_rsna.reporting.watcher import Watcher

LOOPBACK = ("127.0.0.1", "localhost")
IDLE_S = 30  # before a connection that says nothing is closed


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
        named, drawn = titled_sections(self.watcher.look(words.get("part")))
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
