"""The page as a real browser shows it, and as it is used without a mouse."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path")


def command(folder: Path, *options: str) -> list[str]:
    """Starts the browser with an empty profile and without any network."""
    assert CHROMIUM is not None
    return [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", *options]


def chromium(folder: Path, page: Path, *options: str) -> str:
    """Runs the browser on a file and returns what it prints."""
    line = command(folder, "--hide-scrollbars", *options, page.as_uri())
    return subprocess.run(line, check=True, capture_output=True, text=True, timeout=120).stdout


MEASURE = """<script>
addEventListener("load", () => {
  const frame = document.querySelector("iframe"), inner = frame.contentDocument, root = inner.documentElement;
  inner.querySelectorAll("details").forEach(d => d.open = true);
  const wide = [...inner.body.querySelectorAll("*")].filter(e => !e.closest(".scroll") && !e.closest(".skip")
    && e.getBoundingClientRect().right > frame.clientWidth + 1).map(e => e.tagName + "." + e.getAttribute("class"));
  document.title = JSON.stringify({
    width: root.clientWidth, scroll: root.scrollWidth, wide: wide,
    pictures: [...inner.images].filter(i => i.complete && i.naturalWidth > 0).length,
    requests: frame.contentWindow.performance.getEntriesByType("resource").map(e => e.name)
      .filter(name => !name.startsWith("data:")),
    ground: frame.contentWindow.getComputedStyle(inner.body).backgroundColor});
});
</script>"""


both_pages = pytest.mark.parametrize("shown", ["page", "lesion_page"], indirect=True)


@pytest.mark.parametrize("shown", ["page", "lesion_page", "query_page"], indirect=True)
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_lays_it_out(shown: Path, tmp_path: Path, width: int, scheme: str) -> None:
    """Nothing is wider than the window, all pictures decode, nothing is asked for, and dark is dark."""
    text = shown.read_text("utf-8")
    frame = f'<iframe width="{width}" height="900" style="border:0" srcdoc="{html.escape(text)}">'
    outer = tmp_path / "outer.html"
    outer.write_text(f'<!doctype html><meta charset="utf-8"><title>-</title>{frame}</iframe>{MEASURE}', "utf-8")
    preference = f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"
    dom = chromium(tmp_path, outer, "--window-size=1400,1000", preference, "--dump-dom")
    found = re.search(r"<title>(.*?)</title>", dom)
    assert found is not None
    measured = json.loads(html.unescape(found[1]))
    assert measured["width"] == width and measured["scroll"] == width and measured["wide"] == []
    assert measured["pictures"] == text.count("<img ") > 4 and measured["requests"] == []
    brightness = sum(int(n) for n in re.findall(r"\d+", measured["ground"])[:3]) / 3
    assert brightness < 60 if scheme == "dark" else brightness > 200


def test_a_browser_paints_it(page: Path, tmp_path: Path) -> None:
    chromium(tmp_path, page, "--window-size=1280,3000", f"--screenshot={tmp_path / 'shot.png'}")
    shot = np.asarray(Image.open(tmp_path / "shot.png").convert("RGB")).astype(int)
    assert shot.shape == (3000, 1280, 3)
    # The outline of the whole tumour, in a picture on the page.
    blue = np.abs(shot - [0x56, 0xB4, 0xE9]).sum(axis=2) < 60
    assert blue.sum() > 200 and (shot == 0).all(axis=2).mean() > 0.1


KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " "), "ArrowRight": (39, "")}


class Keyboard:
    """The keyboard of a browser that shows a page.

    Keys go through the debugging pipe (the browser's files 3 and 4; JSON ended by a zero byte), so that they do what
    a user's keys do; events made by a script move no focus.
    """

    def __init__(self, commands: int, replies: int) -> None:
        self.commands, self.replies = os.fdopen(commands, "wb"), os.fdopen(replies, "rb")
        self.number, self.session = 0, ""

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.commands.write(json.dumps(message).encode() + b"\0")
        self.commands.flush()
        while True:
            text = bytearray()
            while (byte := self.replies.read(1)) != b"\0":
                assert byte, "the browser has gone"
                text += byte
            reply = json.loads(text)
            if reply.get("id") == self.number:
                assert "error" not in reply, reply
                return dict(reply["result"])

    def open(self, page: Path) -> None:
        target = next(t for t in self.send("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        self.send("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=False)
        self.send("Emulation.setFocusEmulationEnabled", enabled=True)
        self.send("Page.navigate", url=page.as_uri())
        self.ask("new Promise(done => document.readyState == 'complete' ? done() : addEventListener('load', done))")

    def ask(self, expression: str) -> Any:
        """What a JavaScript expression gives, or the promise that it gives."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, times: int = 1) -> None:
        code, text = KEYS[key]
        about = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code}
        for _ in range(times):
            self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
            self.send("Input.dispatchKeyEvent", type="keyUp", **about)


@pytest.fixture
def keyboard(shown: Path, tmp_path: Path) -> Iterator[Keyboard]:
    """Of a browser as wide as a phone that shows the page, nothing focused yet."""
    (commands_out, commands_in), (replies_out, replies_in) = os.pipe(), os.pipe()

    def connect() -> None:
        os.dup2(commands_out, 3)
        os.dup2(replies_in, 4)

    line = command(tmp_path, "--remote-debugging-pipe", "about:blank")
    browser = subprocess.Popen(line, pass_fds=(3, 4), preexec_fn=connect, stderr=subprocess.DEVNULL)
    os.close(commands_out)
    os.close(replies_in)
    watchdog = threading.Timer(100, browser.kill)
    watchdog.start()
    try:
        keys = Keyboard(commands_in, replies_out)
        keys.open(shown)
        yield keys
        keys.session = ""
        keys.send("Browser.close")
    finally:
        watchdog.cancel()
        browser.kill()
        browser.wait()


INTERACTIVE = """[...document.querySelectorAll("a, summary, .scroll, button, input, select, textarea")]
  .filter(e => e.checkVisibility())"""
NAMED = "e => e.tagName + ' ' + (e.ariaLabel || e.textContent).trim().slice(0, 60)"
FOCUS = f"""(() => {{
  const e = document.activeElement, style = getComputedStyle(e), box = e.getBoundingClientRect();
  return {{
    name: ({NAMED})(e),
    outlined: style.outlineStyle != "none" && parseFloat(style.outlineWidth) >= 2,
    inside: box.right > 0 && box.left < innerWidth && box.bottom > 0 && box.top < innerHeight}};
}})()"""


@both_pages
def test_tab_reaches_everything_in_order_and_shows_where_it_is(keyboard: Keyboard, shown: Path) -> None:
    expected = keyboard.ask(f"{INTERACTIVE}.map({NAMED})")
    # Skip, tables and what can be opened.
    tables, summaries = (2, 9) if shown.name == "lesions.html" else (1, 3)
    assert expected[0].startswith("A Skip") and sum(name.startswith("SUMMARY") for name in expected) == summaries
    assert sum(name.startswith("DIV") for name in expected) == tables and len(set(expected)) == len(expected)
    seen = []
    for _ in expected:
        keyboard.press("Tab")
        seen.append(keyboard.ask(FOCUS))
    assert [focus["name"] for focus in seen] == expected
    assert [focus["name"] for focus in seen if not focus["outlined"]] == []
    assert [focus["name"] for focus in seen if not focus["inside"]] == []


def test_keys_open_close_skip_and_scroll(keyboard: Keyboard) -> None:
    keyboard.press("Tab")
    keyboard.press("Enter")
    assert keyboard.ask("document.querySelector(':target').tagName") == "MAIN"
    keyboard.press("Tab", times=2)
    assert keyboard.ask(FOCUS)["name"] == "DIV Dice and HD95 by case"
    for _ in range(100):  # scrolling follows the key after some frames, on a busy machine after many
        keyboard.press("ArrowRight")
        if keyboard.ask("document.activeElement.scrollLeft > 0"):
            break
        time.sleep(0.1)
    assert keyboard.ask("document.activeElement.scrollLeft > 0")
    keyboard.press("Tab")
    assert keyboard.ask(FOCUS)["name"] == "SUMMARY All scores"
    assert not keyboard.ask("document.activeElement.parentElement.open")
    keyboard.press("Enter")
    assert keyboard.ask("document.activeElement.parentElement.open")
    keyboard.press("Tab")
    assert keyboard.ask(FOCUS)["name"] == "DIV All scores by case and region"
    keyboard.press("Tab")
    assert keyboard.ask("document.activeElement.parentElement.id") == "case-1"
    keyboard.press(" ")
    assert not keyboard.ask("document.activeElement.parentElement.open")
    keyboard.press(" ")
    assert keyboard.ask("document.activeElement.parentElement.open")
