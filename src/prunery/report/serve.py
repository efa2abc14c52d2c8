"""The page on loopback, up to date while runs go on: two addresses, read only, of the disk nothing but the steps."""

import json
import math
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ..runs import ASKED, ENV, METRICS, RESULT, SPEC, TIMES, WEIGHTS, Runs, Step
from ..spec import Refused
from .more import More
from .page import NOTHING, page
from .pictures import Drawn, gallery
from .records import gather
from .times import readings

HOST = "127.0.0.1"
LARGEST_PORT = 65535
SECONDS = 10
"""that a client may take over a request"""
TAIL = 1 << 16
"""bytes of the newest metrics that are looked at"""
HEADERS = {
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}  # fmt: skip
FRAMELESS = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
POLICIES = {"text/html": f"{FRAMELESS}; object-src 'none'"}
"""beside what the page itself lays down; of all other answers, nothing may be loaded"""
WAITING = """<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="2">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<title>Prunery</title><h1>Prunery</h1><p role="status">{}</p></html>
"""


@dataclass
class Site:
    """What is served: the page of a folder of runs, made anew when a step was finished."""

    runs: Path
    more: More = NOTHING
    look: Callable[[Iterable[Step]], Iterable[tuple[str, Drawn]]] | None = None
    """draws what is in the weights of steps, where that is asked for"""
    made: tuple[str, str] = ("", "")
    lock: threading.Lock = field(default_factory=threading.Lock)

    def version(self) -> str:
        """Changes when a step is finished or removed, or timed, or asked for under another name."""
        kinds = (f"*-*/{ENV}", f"{TIMES}/*.json", f"{ASKED}/*.json")
        found = sorted(p for kind in kinds for p in self.runs.glob(kind)) if self.runs.is_dir() else []
        told = "\n".join(f"{p.parent.name} {p.name} {_changed(p)}" for p in found)
        return sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def text(self) -> tuple[int, str]:
        """Status and page."""
        with self.lock:  # one at a time makes it, and all others get the same
            version = self.version()
            if self.made[0] != version:
                steps = [s for s in Runs(self.runs).steps() if inside(s.folder, self.runs)]
                if not steps:
                    return 200, WAITING.format("No step is finished yet; this page waits for the first.")
                try:
                    album = gather(steps, allowed=partial(inside, root=self.runs))
                    self.made = version, page(album, "Prunery", self._more(steps), live=version)
                except Refused as refusal:
                    return 500, WAITING.format(escape(str(refusal)))
            return 200, self.made[1]

    def _more(self, steps: list[Step]) -> More:
        """What the page shows beside the steps, as it is now."""
        root = self.runs.resolve()
        own = lambda path: path.resolve().is_relative_to(root)  # noqa: E731
        drawn = self.look([s for s in steps if own(s.folder / WEIGHTS)]) if self.look else []
        read = readings([self.runs], [s.name for s in steps], own)
        return replace(self.more, times=read, pictures=gallery(drawn) if self.look else {})

    def state(self) -> dict[str, Any]:
        """The version, and how far the steps are that are being made."""
        return {"version": self.version(), "working": [w for f in self._working() if (w := _progress(f))]}

    def _working(self) -> list[Path]:
        folder = self.runs / ".work"
        found = [f for f in folder.glob("*-*") if f.is_dir()] if folder.is_dir() else []
        return sorted(f for f in found if inside(f, self.runs))


def inside(folder: Path, root: Path) -> bool:
    """Whether a step's folder and the files read of it lie in the folder of runs, whatever links say."""
    real = root.resolve()
    files = [folder, *(folder / name for name in (SPEC, ENV, RESULT, METRICS))]
    return all(path.resolve().is_relative_to(real) for path in files)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # removed in the meantime
        return 0


def _progress(folder: Path) -> dict[str, Any] | None:
    """The newest row of the metrics of a step in the making."""
    try:
        rows = _tail(folder / METRICS)
        row = {k: v for k, v in rows[-1].items() if _finite(v)} if rows else {}
    except (OSError, ValueError):  # finished in the meantime
        return None
    return {"name": folder.name, "row": row}


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _tail(path: Path) -> list[dict[str, Any]]:
    """The last rows, without reading a long file."""
    if not path.exists():
        return []
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        lines = file.read().decode("utf-8", "replace").split("\n")[:-1]
    return [row for row in (json.loads(line) for line in lines[-1:] if line) if isinstance(row, dict)]


# --- answers ----------------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """GET and HEAD of the page and of its state; everything else is refused."""

    site: Site
    server: "Server"
    server_version, sys_version, timeout = "prunery", "", SECONDS
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if not self._ours():
            return self._say(403, "this address is not served; open the one that prunery ui printed")
        path = self.path.partition("?")[0]
        if path == "/":
            return self._answer(*self.site.text(), "text/html")
        if path == "/state.json":
            return self._answer(200, json.dumps(self.site.state(), allow_nan=False), "application/json")
        return self._say(404, "there is nothing here; the page is at /")

    do_HEAD = do_GET

    def __getattr__(self, name: str) -> Any:
        """Every other method, whatever it is called."""
        if name.startswith("do_"):
            return self._only_reads
        raise AttributeError(name)

    def _only_reads(self) -> None:
        self.close_connection = True  # what a body holds is not read
        self._say(405, "this server only reads; expected GET or HEAD", Allow="GET, HEAD")

    def _ours(self) -> bool:
        """Asked for by its own name: a page elsewhere that points a name of its own at this machine is not."""
        port = self.server.server_port
        names = (f"{HOST}:{port}", f"localhost:{port}")
        hosts, origin = self.headers.get_all("Host") or [], self.headers.get("Origin")
        return len(hosts) == 1 and hosts[0] in names and origin in (None, *(f"http://{name}" for name in names))

    def _say(self, status: int, words: str, **more: str) -> None:
        self._answer(status, words + "\n", "text/plain", more)

    def _answer(self, status: int, text: str, kind: str, more: dict[str, str] | None = None) -> None:
        body = text.encode("utf-8", "replace")
        tag = f'"{sha256(body).hexdigest()[:20]}"'
        same = status == 200 and self.headers.get("If-None-Match") == tag
        self.send_response(304 if same else status)
        policy = POLICIES.get(kind, f"default-src 'none'; {FRAMELESS}")
        about = {"Content-Type": f"{kind}; charset=utf-8", "ETag": tag, "Content-Security-Policy": policy}
        for key, value in (HEADERS | about | (more or {})).items():
            self.send_header(key, value)
        self.send_header("Content-Length", "0" if same else str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and not same:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


class Server(ThreadingHTTPServer):
    """Threads that do not outlive it; a client that goes away is nobody's error."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


@contextmanager
def served(site: Site, port: int = 0) -> Iterator[Server]:
    """A server on loopback; 0 is any free port."""
    if not 0 <= port <= LARGEST_PORT:
        raise Refused(f"--port = {port} is not allowed; expected 0 (any that is free) to {LARGEST_PORT}")
    handler = type("Handler", (Handler,), {"site": site})
    try:
        server = Server((HOST, port), handler)
    except OSError as error:
        why = error.strerror or error
        raise Refused(f"--port = {port} cannot be used: {why}; choose another, or 0 for any that is free") from None
    with server:
        yield server


def address(server: Server) -> str:
    return f"http://{HOST}:{server.server_port}/"
