"""A headless Chromium for tests, driven by chromedriver.

The W3C's WebDriver commands are JSON over HTTP, so the standard library is enough. Debian's packages:
chromium, chromium-driver.
"""

import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

MISSING = [program for program in ("chromium", "chromedriver") if shutil.which(program) is None]
in_browser = pytest.mark.skipif(
    bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (apt: chromium chromium-driver)"
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # key of an element's id, by the W3C specification
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # 127.0.0.1, whatever proxy is set
KEYS = {"down": "\ue015", "up": "\ue013", "left": "\ue012", "right": "\ue014", "shift": "\ue008"}


@contextmanager
def browser(folder: Path, width: int = 1400, height: int = 900):
    """A browser that keeps profile and downloads below `folder`; a second one there is the same user's."""
    downloads = folder / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "HOME": str(folder)}
    driver = subprocess.Popen(
        ["chromedriver", "--port=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    try:
        port = next(
            found[1] for line in driver.stdout if (found := re.search(r"successfully on port (\d+)", line))
        )
        page = Browser(f"http://127.0.0.1:{port}", downloads)
        flags = [*FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}"]
        options = {"args": flags, "prefs": {"download.default_directory": str(downloads)}}
        options["binary"] = shutil.which("chromium")
        asked = {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}}
        page.session = "/session/" + page.call("POST", "/session", asked)["sessionId"]
        try:
            yield page
        finally:
            page.call("DELETE", page.session)
    finally:
        driver.kill()
        driver.wait()
        driver.stdout.close()


class Browser:
    def __init__(self, address: str, downloads: Path) -> None:
        self.address, self.downloads, self.session = address, downloads, ""

    def call(self, method: str, path: str, values: dict | None = None):
        content = json.dumps(values or {}).encode() if method == "POST" else None
        request = urllib.request.Request(self.address + path, content, method=method)
        try:
            with DIRECT.open(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None

    def post(self, path: str, **values):
        return self.call("POST", self.session + path, values)

    def open(self, file: Path) -> None:
        self.post("/url", url=file.resolve().as_uri())

    def reload(self) -> None:
        """The page again, in the same process of the browser: another one may not have its storage yet."""
        self.post("/refresh")

    def run(self, script: str, *values):
        """The value that a script returns."""
        return self.post("/execute/sync", script=script, args=list(values))

    def wait(self, script: str):
        """The first value that is true of a script run again and again."""
        for _ in range(100):
            if value := self.run(script):
                return value
        raise AssertionError(f"never true: {script}")

    def text(self, selector: str) -> str:
        return self.run("return document.querySelector(arguments[0]).textContent", selector)

    def find(self, selector: str) -> str:
        return self.post("/element", using="css selector", value=selector)[ELEMENT]

    def click(self, selector: str) -> None:
        """A real click: fails where the element is hidden or covered."""
        self.post(f"/element/{self.find(selector)}/click")

    def type(self, selector: str, text: str) -> None:
        """Into a field; for a file field, the path."""
        self.post(f"/element/{self.find(selector)}/value", text=text)

    def press(self, *keys: str) -> None:
        """Keys one after another, to whatever has the focus: "a", "down", "shift+R"."""
        actions = []
        for key in keys:
            held = [KEYS.get(part, part) for part in (key.split("+") if len(key) > 1 else [key])]
            actions += [{"type": "keyDown", "value": part} for part in held]
            actions += [{"type": "keyUp", "value": part} for part in reversed(held)]
        self.post("/actions", actions=[{"type": "key", "id": "keyboard", "actions": actions}])

    def downloaded(self, name: str) -> Path:
        """A download that has ended."""
        file = self.downloads / name
        for _ in range(100):
            if file.exists() and not list(self.downloads.glob("*.crdownload")):
                return file
            time.sleep(0.1)
        raise AssertionError(f"no download {name}; there are {[f.name for f in self.downloads.iterdir()]}")
