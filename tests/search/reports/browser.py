"""A headless browser that says what a page asks for and what it complains about.

It is spoken to by the DevTools protocol over two pipes, which needs no package.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--remote-debugging-pipe",
)
ANSWER_SECONDS: Final = 60.0


def found() -> str | None:
    """The program, or None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass
class Browser:
    """One page in a browser; `requests` and `complaints` are all since it was started."""

    to: int
    answers: int
    session: str = ""
    number: int = 0
    rest: bytes = b""
    requests: list[str] = field(default_factory=list[str])
    complaints: list[str] = field(default_factory=list[str])

    def open(self, path: Path, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
        """Show a file in a window of this size, until it is loaded."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Page.navigate", url=path.resolve().as_uri())
        while self.evaluate("document.readyState") != "complete":
            time.sleep(0.02)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, file: Path, *, clip: tuple[float, float, float, float] | None = None) -> None:
        """Write what is seen, or the part of the page at x, y of a width and height, as PNG."""
        given: dict[str, Any] = {"format": "png"}
        if clip is not None:
            x, y, width, height = clip
            given["clip"] = {"x": x, "y": y, "width": width, "height": height, "scale": 1}
            given["captureBeyondViewport"] = True
        data = self.ask("Page.captureScreenshot", **given)["data"]
        file.write_bytes(base64.b64decode(data))

    def ask(self, method: str, **given: Any) -> dict[str, Any]:
        """The answer to one request; what happens until it comes is noted."""
        self.number += 1
        whole: dict[str, Any] = {"id": self.number, "method": method, "params": given}
        if self.session:
            whole["sessionId"] = self.session
        os.write(self.to, json.dumps(whole).encode() + b"\0")
        end = time.monotonic() + ANSWER_SECONDS
        while True:
            message = self._message(end)
            if message.get("id") == self.number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _message(self, end: float) -> dict[str, Any]:
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.answers], [], [], end - time.monotonic())
            assert ready, "the browser does not answer"
            more = os.read(self.answers, 1 << 20)
            assert more, "the browser has gone"
            self.rest += more
        first, self.rest = self.rest.split(b"\0", 1)
        return json.loads(first)

    def _note(self, message: dict[str, Any]) -> None:
        given = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(given["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(given["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                self.complaints.append(json.dumps(given["args"]))
            case "Log.entryAdded":
                self.complaints.append(json.dumps(given["entry"]))
            case _:
                pass


@contextmanager
def browser(profile: Path) -> Generator[Browser]:
    """A browser with a profile of its own, ended at the end."""
    program = found()
    assert program is not None
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()

    inherit = ("bash", "-c", f'exec "$0" "$@" 3<&{to_read} 4>&{from_write}')
    process = subprocess.Popen(
        [*inherit, program, *OPTIONS, f"--user-data-dir={profile}", "about:blank"],
        pass_fds=(to_read, from_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(from_write)
    try:
        page = Browser(to=to_write, answers=from_read)
        targets = page.ask("Target.getTargets")["targetInfos"]
        target = next(t["targetId"] for t in targets if t["type"] == "page")
        page.session = page.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.ask(f"{domain}.enable")
        yield page
    finally:
        process.kill()
        process.wait()
        os.close(to_write)
        os.close(from_read)
