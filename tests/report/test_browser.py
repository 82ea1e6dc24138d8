"""report.html in a real browser, offline: light, dark, on a telephone and on paper; no error, and nothing asked of a network."""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest
from PIL import Image

from reports import write_page
from sample_reports import sample_events, sample_report

pytestmark = pytest.mark.slow
INSTALL = {"chromium": "apt-get install -y chromium", "pdftoppm": "apt-get install -y poppler-utils"}
QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions",
    "--hide-scrollbars", "--enable-logging=stderr",
    "--disable-features=NetworkTimeServiceQuerying,OptimizationHints,MediaRouter",
    "--component-updater=url-source=http://127.0.0.1:9/",
]  # fmt: skip
OWN = (
    "clients2.google.com",
    "android.clients.google.com",
    "update.googleapis.com",
    "accounts.google.com",
    "www.google.com",
)  # what it asks without any page
FAULTS = {
    "<script>nothing.there()</script>": [],
    '<img src="http://127.0.0.2:8099/pixel.png">': ["127.0.0.2"],
    '<link rel="stylesheet" href="http://example.org/style.css">': ["example.org"],
}


class Proxy:
    """Stands where the network would be: takes each request of the browser, keeps whom it asks, and answers nothing."""

    def __enter__(self):
        self.asked, self._socket = [], socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    @property
    def flags(self):
        return [f"--proxy-server=127.0.0.1:{self._socket.getsockname()[1]}", "--proxy-bypass-list=<-loopback>"]

    def _serve(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                words = connection.recv(2000).decode("latin-1").split()  # none, where the browser ends before it asks
                hosts = [word.removeprefix("http://").split("/")[0].split(":")[0] for word in words[1:2]]
                self.asked += [host for host in hosts if host not in OWN]


def program(name):
    found = shutil.which(name)
    assert found, f"{name} is not installed, and nothing else can test the page in a browser: {INSTALL[name]}"
    return found


def browse(page, *flags):
    """Opens a page in a browser without a past; what it asked of the network, and what it logged about the page."""
    with Proxy() as proxy, tempfile.TemporaryDirectory() as profile:
        command = [program("chromium"), *QUIET, *proxy.flags, f"--user-data-dir={profile}", *flags, page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
    return proxy.asked, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def screenshot(page, width, height, *flags):
    path = page.with_name(f"{page.stem}-{width}{''.join(flags)}.png")
    asked, logged = browse(page, f"--window-size={width},{height}", f"--screenshot={path}", *flags)
    assert (asked, logged) == ([], [])
    with Image.open(path) as picture:
        return picture.convert("RGB")


def brightness(colour):
    return sum(colour) / 3


def num_colours(picture):
    return len(picture.getcolors(maxcolors=1 << 24))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    for status in ("complete", "degraded", "incomplete", "stopped", "failed"):
        report = sample_report(status)
        write_page(report, sample_events(report), folder / f"{status}.html")
    return folder


@pytest.mark.parametrize("status", ["complete", "degraded", "incomplete", "stopped", "failed"])
def test_a_page_opens_offline_without_an_error(pages, status):
    picture = screenshot(pages / f"{status}.html", 1200, 5000)
    assert picture.size == (1200, 5000)
    assert brightness(picture.getpixel((2, 2))) > 240
    assert num_colours(picture) > 200


def test_the_dark_page_is_dark_and_as_full(pages):
    light = screenshot(pages / "degraded.html", 1200, 5000)
    dark = screenshot(pages / "degraded.html", 1200, 5000, "--force-dark-mode")
    assert brightness(dark.getpixel((2, 2))) < 40
    assert num_colours(dark) > 0.5 * num_colours(light)


@pytest.mark.parametrize("status", ["complete", "failed"])
def test_nothing_is_wider_than_a_telephone(pages, status):
    picture = screenshot(pages / f"{status}.html", 390, 12000)
    assert picture.size == (390, 12000)
    assert num_colours(picture) > 200
    assert num_colours(picture.crop((380, 0, 390, 12000))) == 1, "something reaches into the margin"


def test_a_wide_page_is_noticed_on_a_telephone(pages):
    page = pages / "wide.html"
    page.write_text((pages / "complete.html").read_text().replace("<main>", '<main><p style="width: 30rem; background: red">wide'))
    picture = screenshot(page, 390, 12000)
    assert num_colours(picture.crop((380, 0, 390, 12000))) > 1


def test_paper_is_white_and_full_even_where_the_screen_is_dark(pages, tmp_path):
    paper = tmp_path / "report.pdf"
    asked, logged = browse(pages / "degraded.html", f"--print-to-pdf={paper}", "--no-pdf-header-footer", "--force-dark-mode")
    assert (asked, logged) == ([], [])
    subprocess.run([program("pdftoppm"), "-r", "50", "-png", paper, tmp_path / "sheet"], check=True)
    sheets = [Image.open(path).convert("RGB") for path in sorted(Path(tmp_path).glob("sheet*.png"))]
    assert 4 <= len(sheets) <= 14
    for sheet in sheets:
        assert brightness(sheet.getpixel((2, 2))) > 250
        assert num_colours(sheet) > 20


@pytest.mark.parametrize(("fault", "host"), FAULTS.items())
def test_a_page_that_asks_or_fails_is_noticed(pages, fault, host):
    page, text = pages / "faulty.html", (pages / "stopped.html").read_text()
    page.write_text(text.replace("<main>", f"<main>{fault}"))
    asked, logged = browse(page, f"--screenshot={pages / 'faulty.png'}")
    assert asked == [], "the page's own policy lets a request out"
    assert any("Content Security Policy" in line for line in logged)
    policy = next(line for line in text.splitlines() if "Content-Security-Policy" in line)
    page.write_text(page.read_text().replace(policy, ""))
    asked, logged = browse(page, f"--screenshot={pages / 'faulty.png'}")
    assert asked == host
    assert asked or logged
