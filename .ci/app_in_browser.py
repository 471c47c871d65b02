"""Drive `crystens app` in chromium: `app_in_browser.py OUT`, with the released models.

Three questions are asked, one of them bad, and a fourth is stopped. Every page is checked: it asks nobody but its own
server, has no error in its scripts, is not wider than the window, and shows no path of this machine.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

OPTIONS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
WIDE, NARROW = {"width": 1300, "height": 900}, {"width": 400, "height": 800}
PATIENCE = 300_000  # milliseconds, on a busy machine


def check(true: bool, text: str) -> None:
    """End with a text unless something is true."""
    if not true:
        sys.exit(f"failed: {text}")
    print(f"ok: {text}", flush=True)


def ask(page: Page, **fields: str) -> None:
    """Fill fields of the form and send it."""
    for name, text in fields.items():
        page.fill(f"[name='{name if name in ('num_samples', 'seed') else f'condition.{name}'}']", text)
    page.click("text=Make crystals")


def shown(page: Page) -> str:
    """Wait for the answer and its 3D view; return the page's text."""
    page.wait_for_selector("#answer", timeout=PATIENCE)
    page.wait_for_selector("#viewer[data-state=shown]", timeout=PATIENCE)
    return page.inner_text("main")


def drive(page: Page, address: str, out: Path) -> None:
    """Ask the questions."""

    def look(text: str) -> None:
        content = page.content()
        check(str(Path.cwd()) not in content and "Traceback" not in content, f"{text}: no path and no traceback")
        for size in (NARROW, WIDE):
            page.set_viewport_size(size)
            page.wait_for_timeout(500)  # the 3D view follows the window
            width = page.evaluate("document.documentElement.scrollWidth")
            check(width <= size["width"], f"{text}: {width} px wide in a window of {size['width']} px")

    page.goto(address)
    look("form")
    ask(page, chemical_system="Sr-Ti-O", space_group="62", num_samples="4")
    check("4 samples of" in shown(page), "a question is answered")
    top = page.evaluate("document.getElementById('job').getBoundingClientRect().top")
    check(0 <= top < 100, f"the answer is in sight, {top:.0f} px below the top")
    check(page.locator("#crystals-table tbody tr").count() == page.locator("figure").count() > 0, "crystals are listed")
    look("answer")
    page.screenshot(path=out / "asked.png", full_page=True)
    with page.expect_download() as download:
        page.click("#zip")
    with zipfile.ZipFile(download.value.path()) as file:
        check("crystals.csv" in file.namelist() and len(file.namelist()) > 2, "a zip of CIFs is taken home")
    with page.expect_download() as download:
        page.click("#crystals-table a >> nth=0")
    check("_cell_length_a" in Path(download.value.path()).read_text(), "one CIF is taken home")

    ask(page, chemical_system="", formula="SrTiO3", space_group="Fm-3q")
    error = page.inner_text("#error")
    check(error.startswith("condition.space_group=Fm-3q is no space group"), f"a bad question is answered: {error}")
    look("bad question")
    page.screenshot(path=out / "bad_question.png", full_page=True)

    page.click("nav >> text=perov_5")
    check("cannot be asked for anything" in page.inner_text("form"), "a model that cannot be asked says so")
    ask(page, num_samples="8", seed="3")
    check("8 samples of perov_5" in shown(page), "another model makes crystals")
    look("answer of perov_5")
    page.screenshot(path=out / "answer.png", full_page=True)
    page.set_viewport_size(NARROW)
    page.screenshot(path=out / "answer_narrow.png", full_page=True)

    ask(page, num_samples="100")
    page.wait_for_selector("#progress")
    look("progress")
    page.click("text=Stop")
    page.wait_for_selector("#stopped", timeout=PATIENCE)
    check("Nothing of it is kept" in page.inner_text("#stopped"), "work is stopped")


def main(out: Path) -> None:
    """Start the page, drive it, and end it."""
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", "import sys; from crystens.cli import main; sys.exit(main())", "app"]
    with tempfile.TemporaryFile("w+") as errors:
        server = subprocess.Popen(
            [*command, "--no-browser", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            address = (server.stdout.readline().split() or [""])[0]
            errors.seek(0)
            check(address.startswith("http://127.0.0.1:"), f"the page is open: {address or errors.read()}")
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=OPTIONS)
                page, faults = browser.new_page(viewport=WIDE), []
                page.on("pageerror", lambda error: faults.append(str(error)))
                page.on("console", lambda told: faults.append(told.text) if told.type == "error" else None)
                page.on("request", lambda asked: faults.append(asked.url) if _is_foreign(asked.url, address) else None)
                drive(page, address, out)
                browser.close()
            # Chromium calls the status of the page that answers a bad question an error.
            faults = [fault for fault in faults if "422 (Unprocessable Entity)" not in fault]
            check(not faults, f"no request elsewhere and no error of a script {faults}")
        finally:
            server.terminate()
            server.wait(60)
        errors.seek(0)
        said = errors.read()
        check("Traceback" not in said, f"the server says nothing of failures {said}")


def _is_foreign(url: str, address: str) -> bool:
    """Return whether a request goes elsewhere than to the server of the page."""
    return not url.startswith((f"{address}/", "data:", "blob:"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
