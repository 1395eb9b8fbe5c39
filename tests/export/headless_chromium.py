"""Headless Chromium over its DevTools protocol: open a page, ask it things, take its picture."""

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """One page of a running browser; `complaints` collects its console errors and uncaught exceptions."""

    def __init__(self, socket: Any):
        self._socket, self._count, self.complaints, self.requests = socket, 0, [], []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            self._note(message)
            if message.get("id") == self._count:
                assert "error" not in message, message["error"]
                return message["result"]

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(parameters["exceptionDetails"]["text"])
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "warning", "assert"):
                self.complaints.append(str(parameters["args"]))
            case "Log.entryAdded" if parameters["entry"]["level"] in ("error", "warning"):
                self.complaints.append(parameters["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"][:80])

    def ask(self, expression: str) -> Any:
        """Evaluate JavaScript (promises are awaited) and return its value."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 20.0) -> bool:
        """Poll until a JavaScript expression is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.ask(f"Boolean({expression})"):
                return True
            time.sleep(0.05)
        return False

    def screenshot(self, file: Path) -> None:
        """Save the whole page as a picture."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def open_page(file: Path, width: int = 1400, height: int = 1000, dark: bool = False) -> Iterator[Page]:
    """Open a local file in a fresh browser that has no network, and close it afterwards."""
    from websockets.sync.client import connect

    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--mute-audio"]
        flags += ["--enable-unsafe-swiftshader"]  # WebGL without a GPU
        flags += ["--remote-debugging-port=0", f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        flags += ["--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking", "about:blank"]
        process = subprocess.Popen([CHROMIUM, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port = _wait_for_port(Path(profile) / "DevToolsActivePort")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
                target = next(item for item in json.load(answer) if item["type"] == "page")
            with connect(target["webSocketDebuggerUrl"], max_size=None) as socket:
                page = Page(socket)
                for domain in ("Page", "Runtime", "Log", "Network"):
                    page.call(f"{domain}.enable")
                scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
                page.call("Emulation.setEmulatedMedia", features=scheme)
                page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
                page.call("Page.navigate", url=file.resolve().as_uri())
                assert page.wait_for("document.readyState === 'complete' && location.protocol === 'file:'")
                yield page
        finally:
            process.terminate()
            process.wait(timeout=20)


def _wait_for_port(file: Path) -> int:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if file.is_file() and file.read_text().strip():
            return int(file.read_text().split()[0])
        time.sleep(0.05)
    raise TimeoutError("Chromium did not open its DevTools port within 30 s")
