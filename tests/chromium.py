"""A page in a headless Chromium: what it prints, and what a script finds in it."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
WHY_NOT = "no Chromium here: install chromium, or put it into PATH"
CONSOLE = re.compile(r"CONSOLE.*")


def evaluated(page: Path, script: str, *, width: int = 1280, is_dark: bool = False) -> Any:
    """What a script returns that runs in a page once it is loaded, as JSON has it.

    Fails where the page prints anything to the console, as errors are.

    Args:
        page: a file; it is copied, and shown in a frame, since no window is as narrow as a
            telephone.
        script: the body of an asynchronous function.
    """
    assert BROWSER is not None
    copy, frame = page.with_name("probed.html"), page.with_name("frame.html")
    probe = f"""<script>(async () => {{ {script} }})().then(
      (found) => parent.postMessage(found, "*"),
      (error) => parent.postMessage(String(error), "*"),
    );</script></body>"""
    source = page.read_text("utf-8")
    assert source.count("</body>") == 1
    copy.write_text(source.replace("</body>", probe), "utf-8")
    frame.write_text(
        f"""<!DOCTYPE html><pre></pre>
        <script>onmessage = (event) => {{
          document.querySelector("pre").textContent = JSON.stringify(event.data);
        }};</script>
        <iframe src="{copy.name}" style="width:{width}px;height:900px;border:0"></iframe>"""
    )
    done = subprocess.run(
        [
            BROWSER,
            "--headless=new",
            "--disable-gpu",
            "--enable-logging=stderr",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={page.parent / 'browser'}",
            f"--blink-settings=preferredColorScheme={0 if is_dark else 1}",
            "--window-size=1400,1000",
            "--virtual-time-budget=5000",
            "--dump-dom",
            *(["--no-sandbox"] if os.getuid() == 0 else []),
            frame.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert not CONSOLE.findall(done.stderr)
    (found,) = re.findall(r"<pre>(.+?)</pre>", done.stdout, re.S)
    return json.loads(html.unescape(found))
