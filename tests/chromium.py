"""Chromium without a screen, spoken to over a pipe in its DevTools protocol: what a person does and sees in a real browser."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from importlib.resources import files

INSTALL = "nothing else can test a page in a browser: apt-get install -y chromium"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--disable-default-apps", "--disable-extensions", "--hide-scrollbars", "--remote-debugging-pipe",
]  # fmt: skip


class Chromium:
    """One tab of a browser without a past, until the block ends. `asked` are the addresses that it asked for, `logged` what its
    console says of the page."""

    def __enter__(self):
        assert shutil.which("chromium"), INSTALL
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # helpers of the browser outlive it a moment
        there, self._writer = os.pipe()
        self._reader, back = os.pipe()
        command = f"exec chromium {' '.join(FLAGS)} --user-data-dir={self._profile.name} 3<&{there} 4>&{back}"
        self._process = subprocess.Popen(["bash", "-c", command], pass_fds=(there, back), stderr=subprocess.DEVNULL)
        os.close(there)
        os.close(back)
        self._number, self._waiting, self._left, self.asked, self.logged = 0, {}, b"", [], []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        os.close(self._writer)
        os.close(self._reader)
        self._profile.cleanup()

    def call(self, method, **parameters):
        """One command to the tab."""
        return self._call(method, self._session, **parameters)

    def open(self, url, *, width=1200, height=900, dark=False, script=True):
        """Opens a page, on a screen of that size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, expression):
        """What an expression is in the page."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, expression, within_s=15.0):
        """Waits until an expression is true in the page."""
        deadline = time.monotonic() + within_s
        while not self.value(expression):
            assert time.monotonic() < deadline, f"{expression} is not true within {within_s} s"
            time.sleep(0.05)

    def press(self, key):
        """A key, such as Tab."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode={"Tab": 9}.get(key, 0))

    def picture(self, *, whole=False):
        """The page as PNG: what is on the screen, or all of it."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"])

    def faults(self):
        """What axe-core finds: rule and first element of each, also of a rule that broke down. The policy does not bind it."""
        self.call("Runtime.evaluate", expression=files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
        found = self.value(
            "axe.run().then((found) => [...found.violations, ...found.incomplete.filter((one) => !one.nodes.length)]"
            ".map((one) => [one.id, one.nodes.length && one.nodes[0].html, one.help]))"
        )
        return [tuple(each) for each in found]

    def _call(self, method, session=None, **parameters):
        self._number += 1
        asked = {"id": self._number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self._writer, json.dumps(asked).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self._number:
                assert "error" not in told, told
                return told["result"]
            self._note(told)

    def _next(self):
        while b"\0" not in self._left:
            block = os.read(self._reader, 1 << 20)
            assert block, "the browser ended"
            self._left += block
        told, _, self._left = self._left.partition(b"\0")
        return json.loads(told)

    def _note(self, told):
        match told.get("method"):
            case "Network.requestWillBeSent":
                self.asked.append(told["params"]["request"]["url"])
            case "Log.entryAdded":
                self.logged.append(told["params"]["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.logged.append(told["params"]["exceptionDetails"]["text"])
