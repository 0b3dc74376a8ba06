"""Headless Chromium for tests, spoken to over a pipe: no package and no port is needed."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-extensions", "--disable-dev-shm-usage", "--mute-audio",
    "--force-color-profile=srgb", "--remote-debugging-pipe",
)
TRAMPOLINE = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); "
    "os.execv(sys.argv[3], sys.argv[3:])"
)
PATIENCE = 60.0  # seconds for one answer


class Tab:
    """One page. ``problems`` collects errors of scripts, of the console and of loading."""

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe = pipe
        target = pipe.ask("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = pipe.ask(
            "Target.attachToTarget", {"targetId": target, "flatten": True}
        )["sessionId"]
        self.problems: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, given: dict | None = None) -> dict:
        found = self._pipe.ask(method, given or {}, self._session)
        self._note()
        return found

    def _note(self) -> None:
        """Keep what went wrong among the events."""
        for event in self._pipe.events_of(self._session):
            kind, told = event["method"], event["params"]
            if kind == "Runtime.exceptionThrown":
                detail = told["exceptionDetails"]
                text = detail.get("exception", {}).get("description", detail["text"])
                self.problems.append(f"script: {text}")
            elif kind == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
                self.problems.append(f"log: {told['entry']['text']}")
            elif kind == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning"):
                said = [a.get("value", a.get("description")) for a in told["args"]]
                self.problems.append(f"console: {said}")
            elif kind == "Network.loadingFailed" and not told.get("canceled"):
                self.problems.append(f"load: {told['errorText']}")
            elif kind == "Network.requestWillBeSent":
                url = told["request"]["url"]
                if not url.startswith(("file:", "data:", "about:", "blob:")):
                    self.problems.append(f"request: {url}")

    def look(self, width: int, height: int = 900, *, scheme: str = "light", media: str = "",
             scale: float = 1) -> None:
        """Set the window, the colour scheme and the medium (``print``)."""
        self.ask("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": scale, "mobile": False})
        self.ask("Emulation.setEmulatedMedia", {
            "media": media, "features": [{"name": "prefers-color-scheme", "value": scheme},
                                         {"name": "prefers-reduced-motion", "value": "reduce"}]})

    def open(self, file: Path) -> None:
        """Load a file and wait until it is there."""
        self.problems.clear()
        self.ask("Page.navigate", {"url": file.resolve().as_uri()})
        self.wait("document.readyState === 'complete'")

    def run(self, script: str) -> object:
        """Return the value of an expression; a promise is waited for."""
        found = self.ask("Runtime.evaluate", {
            "expression": script, "returnByValue": True, "awaitPromise": True})
        if "exceptionDetails" in found:
            raise RuntimeError(json.dumps(found["exceptionDetails"])[:2000])
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true."""
        until = time.monotonic() + PATIENCE
        while not self.run(condition):
            if time.monotonic() > until:
                raise TimeoutError(condition)
            time.sleep(0.02)

    def mouse(self, kind: str, x: float, y: float, *, buttons: int = 0) -> None:
        """Send a mouse event: ``mouseMoved``, ``mousePressed``, ``mouseReleased``."""
        self.ask("Input.dispatchMouseEvent", {
            "type": kind, "x": x, "y": y, "buttons": buttons, "clickCount": 1,
            "button": "left" if buttons or kind != "mouseMoved" else "none"})

    def press(self, key: str) -> None:
        """Press and release a named key (``Enter``, ``ArrowLeft``)."""
        code = {"Enter": 13, "Tab": 9, "ArrowLeft": 37, "ArrowRight": 39, "ArrowUp": 38,
                "ArrowDown": 40}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", {
                "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code,
                **(text if kind == "keyDown" else {})})

    def picture(
        self, to: Path, box: dict[str, float] | None = None, *, whole: bool = False
    ) -> Path:
        """Save a screenshot: of the window, of a box of the page, or of the whole page."""
        given: dict = {"format": "png", "captureBeyondViewport": whole or box is not None}
        if whole:
            size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
            box = {"x": 0, "y": 0, "width": size["width"], "height": size["height"]}
        if box is not None:
            given["clip"] = {**box, "scale": 1}
        to.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", given)["data"]))
        return to

    def pdf(self, to: Path) -> Path:
        """Print the page on A4."""
        found = self.ask("Page.printToPDF", {
            "paperWidth": 8.27, "paperHeight": 11.69, "printBackground": False})
        to.write_bytes(base64.b64decode(found["data"]))
        return to


class _Pipe:
    """Messages to and from the browser, each ended by a zero byte."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._rest = b""
        self._number = 0
        self._events: list[dict] = []

    def ask(self, method: str, given: dict, session: str | None = None) -> dict:
        """Send a command and return its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": given}
        if session is not None:
            message["sessionId"] = session
        self._send(json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._number:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']}")
                return found["result"]
            if "method" in found:
                self._events.append(found)

    def events_of(self, session: str) -> list[dict]:
        """Take the events of a tab."""
        mine = [e for e in self._events if e.get("sessionId") == session]
        self._events = [e for e in self._events if e.get("sessionId") != session]
        return mine

    def _send(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._write, data):]

    def _next(self) -> dict:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], PATIENCE)
            chunk = os.read(self._read, 1 << 20) if ready else b""
            if not chunk:
                raise TimeoutError("the browser does not answer")
            self._rest += chunk
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)


def program() -> str | None:
    """Return the browser's path; None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((found for name in names if (found := shutil.which(name))), None)


@contextlib.contextmanager
def started(profile: Path) -> Iterator[_Pipe]:
    """Start the browser; `Tab` takes what this yields."""
    to_child, from_us = os.pipe()
    to_us, from_child = os.pipe()
    # The browser reads from descriptor 3 and writes to 4.
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (to_child, from_child)]
    process = subprocess.Popen(
        [sys.executable, "-ISc", TRAMPOLINE, *map(str, high), str(program()), *FLAGS,
         f"--user-data-dir={profile}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=high,
    )
    for fd in (to_child, from_child, *high):
        os.close(fd)
    pipe = _Pipe(from_us, to_us)
    try:
        yield pipe
    finally:
        with contextlib.suppress(OSError, RuntimeError, TimeoutError):
            pipe.ask("Browser.close", {})
        for fd in (from_us, to_us):
            os.close(fd)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
