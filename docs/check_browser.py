"""Open the built site in headless Chromium, and fail on what a reader would trip over.

    python docs/check_browser.py docs/_build/html

An error in the console, an image that is not there, a word that the search does not find, a page that is wider than a
phone. Needs Chromium and the package websocket-client. --pictures FOLDER keeps a picture of every page.
"""

import argparse
import base64
import functools
import http.server
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAGES = (
    "index.html", "get_started.html", "howto.html", "explanation.html", "truth.html", "looking.html", "studies.html",
    "fields.html", "gallery/index.html", "gallery/plot_a_tutorial.html", "gallery/plot_j_explain.html",
    "gallery/plot_q_html_pages.html", "reference.html", "generated/cellscan.Classifier.html", "results.html",
    "model_card.html", "about.html",
)  # fmt: skip
WORD = "calibration"
PHONE, DESK = (390, 844), (1280, 900)


class Browser:
    """One tab, spoken to by the DevTools protocol."""

    def __init__(self, folder: str) -> None:
        import websocket

        name = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if name is None:
            raise SystemExit("there is no Chromium; install it: apt-get install chromium")
        self.process = subprocess.Popen(
            [name, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
             "--remote-allow-origins=*", f"--user-data-dir={folder}", "about:blank"],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stderr is not None
        port = next(line.split(":")[-1].split("/")[0] for line in self.process.stderr if "DevTools listening" in line)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            tab = next(tab for tab in json.load(answer) if tab["type"] == "page")
        self.socket = websocket.create_connection(tab["webSocketDebuggerUrl"], timeout=60)
        self.number, self.events = 0, []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result; what else comes is kept."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.number:
                return message.get("result", {})
            self.events.append(message)

    def value(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def open(self, url: str, size: tuple[int, int]) -> list[str]:
        """Open a page, wait until it is whole, and return the errors of its console."""
        width, height = size
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")
        self.value("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
        self.wait("[...document.images].every(image => image.complete)")
        return self.errors()

    def errors(self) -> list[str]:
        """Return the errors of the console since the page was opened."""
        errors = []
        for event in self.events:
            entry = event.get("params", {}).get("entry", {})
            if event["method"] == "Runtime.exceptionThrown":
                errors.append(str(event["params"]["exceptionDetails"].get("text")))
            elif event["method"] == "Log.entryAdded" and entry["level"] == "error":
                errors.append(f"{entry['text']} {entry.get('url', '')}")
        return errors

    def wait(self, script: str, seconds: float = 20) -> bool:
        """Wait until an expression is true."""
        return wait_for(lambda: bool(self.value(script)), seconds)

    def close(self) -> None:
        """End the browser."""
        self.socket.close()
        self.process.terminate()
        self.process.wait(20)


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> bool:
    """Wait until a condition is true; return False if it is not after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server that prints nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def check(browser: Browser, base: str, pictures: Path | None) -> list[str]:
    """Return what is wrong with the site."""
    wrong = []
    for page in PAGES:
        wrong += [f"{page}: console: {error}" for error in browser.open(base + page, DESK)]
        missing = browser.value("[...document.images].filter(i => !i.naturalWidth).map(i => i.src).join(' ')")
        wrong += [f"{page}: image missing: {missing}"] if missing else []
        if pictures:
            shot = browser.call("Page.captureScreenshot")["data"]
            (pictures / f"{page.replace('/', '-')}.png").write_bytes(base64.b64decode(shot))
        browser.open(base + page, PHONE)
        wide = browser.value("document.documentElement.scrollWidth")
        wrong += [f"{page}: {wide} px wide on a phone of {PHONE[0]}"] if wide > PHONE[0] else []
    browser.open(f"{base}search.html?q={WORD}", DESK)
    if not browser.wait("document.querySelectorAll('#search-results li a').length > 0"):
        wrong.append(f"the search does not find {WORD!r}")
    return wrong


def main() -> int:
    """Serve the site, look at it, and say what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path)
    parser.add_argument("--pictures", type=Path)
    args = parser.parse_args()
    if args.pictures:
        args.pictures.mkdir(parents=True, exist_ok=True)
    handler = functools.partial(Quiet, directory=str(args.site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            browser = Browser(folder)
            try:
                wrong = check(browser, f"http://127.0.0.1:{server.server_address[1]}/", args.pictures)
            finally:
                browser.close()
        server.shutdown()
    print("\n".join(wrong) or f"{len(PAGES)} pages: no error, no missing image, found by search, no wider than a phone")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
