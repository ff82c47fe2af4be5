"""A page in a real browser without a network; where there is none the skip is loud."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import warnings
from html import unescape
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PROBE = """
<script>
addEventListener("load", async () => {
  const shown = selector => all(selector).filter(e => e.checkVisibility());
  const seen = {};
  await Promise.all(all("img").map(i => i.decode().catch(() => 0)));
  %s
  const probe = document.createElement("pre");
  probe.id = "probe";
  probe.textContent = JSON.stringify(seen);
  document.body.append(probe);
  console.error("the probe is through");
});
</script></body>
"""


def find_browser() -> str:
    """Skips the test where none is installed."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        reason = "no browser is installed (apt install chromium)"
        warnings.warn(f"the page was NOT looked at in a browser; {reason}", stacklevel=1)
        pytest.skip(reason)
    return browser


def look(page: Path, folder: Path, *more: str) -> tuple[str, list[str]]:
    """The page's DOM after its scripts, and the lines of its console. folder: for the browser's own
    files; more: options of it."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    options += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'user'}"]
    options += ["--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom"]
    command = [find_browser(), *options, *more, page.as_uri()]
    env = {**os.environ, "HOME": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def probe(page: Path, folder: Path, script: str) -> dict:
    """What `script`, which fills `seen`, finds on the page; nothing else may reach the console."""
    probed = folder / "probed.html"
    text = re.sub("script-src '[^']+'", "script-src 'unsafe-inline'", page.read_text("utf-8"))
    probed.write_text(text.replace("</body>", PROBE % script), "utf-8")
    dom, console = look(probed, folder)
    assert len(console) == 1 and "the probe is through" in console[0], console
    return json.loads(unescape(re.search(r'<pre id="probe">(.*?)</pre>', dom, re.S)[1]))
