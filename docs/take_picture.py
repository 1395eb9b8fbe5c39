"""Take the picture of the README: the top of the newest demo report, in headless Chromium.

python docs/take_picture.py worldline-data/reports docs/images/report.jpg
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

TOP, BOTTOM = 636, 1466  # of the four videos, in a window 1300 pixels wide


def main() -> None:
    """Write the picture named by the second argument."""
    reports, destination = Path(sys.argv[1]), Path(sys.argv[2])
    newest = max(reports.glob("pseudo_labels-*.html"), key=lambda page: int(page.stem.rsplit("-", 1)[1]))
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("take_picture: chromium is not installed: apt install chromium")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "page.png"
        flags = ["--headless=new", "--no-sandbox", "--hide-scrollbars", "--window-size=1300,1800", "--virtual-time-budget=9000"]
        page = f"{newest.resolve().as_uri()}#t=3.5"
        subprocess.run([browser, *flags, f"--screenshot={shot}", page], check=True, stderr=subprocess.DEVNULL)
        picture = Image.open(shot).convert("RGB").crop((0, TOP, 1300, BOTTOM))
    picture.save(destination, quality=88, optimize=True)
    print(destination, destination.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
