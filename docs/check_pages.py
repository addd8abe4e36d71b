"""Open HTML pages of results in headless Chromium, use them as a reader would, and fail on what does not work.

    python docs/check_pages.py --pictures FOLDER

The pages are those of `tests/pages_of.py`, whose names try to break out of a page. Sorting, filters, check boxes, the
CSV file and the switches of boxes are used by clicks or with the keyboard, at two widths. Needs Chromium and the
package websocket-client. --pictures keeps pictures of every page, light and dark. --axe FILE also runs a copy of
axe.min.js, which finds errors of accessibility.
"""

import argparse
import base64
import csv
import re
import sys
import tempfile
from pathlib import Path

from check_browser import PHONE, Browser, wait_for

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from pages_of import make_cells, make_issues, write_pages

DESK = (1400, 900)
SORT = """(() => {
  const table = document.querySelector("table.sortable"), button = table.querySelectorAll("thead button")[1];
  const first = () => table.tBodies[0].rows[0].cells[1].dataset.value;
  const values = [...table.tBodies[0].rows].map(row => row.cells[1].dataset.value).filter(value => value).map(Number);
  if (!values.length) return "";
  button.click();
  if (button.parentElement.getAttribute("aria-sort") !== "ascending") return "aria-sort is not ascending";
  if (Number(first()) !== Math.min(...values)) return "the least value is not first";
  button.click();
  if (button.parentElement.getAttribute("aria-sort") !== "descending") return "aria-sort is not descending";
  if (Number(first()) !== Math.max(...values)) return "the largest value is not first";
  return document.querySelectorAll("[aria-sort]").length === 1 ? "" : "several columns are sorted";
})()"""
FILTER = """(() => {
  const gallery = document.querySelector(".gallery"), cards = [...gallery.querySelectorAll("li")];
  const shown = () => cards.filter(card => card.checkVisibility()).length;
  const set = (input, value) => { input.value = value; input.dispatchEvent(new Event("input", { bubbles: true })); };
  const select = gallery.querySelector("select"), search = gallery.querySelector("input[type=search]");
  if (shown() !== cards.length) return "cards are missing";
  set(select, "0");
  const some = shown();
  if (!(some > 0 && some < cards.length)) return `the list chooses ${some} of ${cards.length}`;
  set(select, "");
  set(search, "<SCRIPT>");
  if (!(shown() > 0 && shown() < cards.length)) return `the text finds ${shown()} of ${cards.length}`;
  set(search, "no such cell");
  if (shown()) return "a text that no cell has finds cells";
  if (!gallery.querySelector("output").textContent.startsWith("0 of ")) return "the number shown is wrong";
  set(search, "");
  return "";
})()"""
BOXES = """(() => {
  const fields = document.querySelector(".fields"), boxes = [...fields.querySelectorAll("rect")];
  const shown = () => boxes.filter(box => getComputedStyle(box).display !== "none").length;
  if (shown() !== boxes.length) return "boxes are hidden at first";
  const input = fields.querySelector("input[type=checkbox]"), score = fields.querySelector("input[type=range]");
  input.click();
  if (shown() !== boxes.filter(box => box.dataset.label !== "0").length) return "a class is not switched off";
  input.click();
  score.value = 0.9;
  score.dispatchEvent(new Event("input", { bubbles: true }));
  if (shown() !== boxes.filter(box => Number(box.dataset.score) >= 0.9).length) return "the score has no effect";
  const picture = fields.querySelector("img").getBoundingClientRect();
  const svg = fields.querySelector("svg").getBoundingClientRect();
  return Math.abs(picture.width - svg.width) < 1 && Math.abs(picture.height - svg.height) < 1
    ? "" : "the boxes do not lie on the picture";
})()"""
AXE = """axe.run().then(found => found.violations.filter(one => ["serious", "critical"].includes(one.impact))
  .map(one => `${one.id}: ${one.nodes.map(node => node.target).join(" ")}`))"""


def press(browser: Browser, key: str, code: int, text: str = "") -> None:
    """Press a key."""
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text)


def use_keyboard(browser: Browser) -> str:
    """Sort a table with the keyboard alone; return what is wrong."""
    focused = ""
    for _ in range(60):
        press(browser, "Tab", 9)
        focused = browser.value("document.activeElement.closest('th') ? 'head' : document.activeElement.className")
        if focused == "head":
            break
    else:
        return f"no header of a table can be reached with the keyboard; the last focus was on {focused!r}"
    outline = browser.value("getComputedStyle(document.activeElement).outlineStyle")
    press(browser, "Enter", 13, "\r")
    sorted_by = browser.value("document.activeElement.closest('th').getAttribute('aria-sort')")
    if sorted_by != "ascending":
        return "Enter does not sort a table"
    return "" if outline != "none" else "the focus is not visible"


def download(browser: Browser, folder: Path) -> str:
    """Tick two cells, download the CSV file, and compare it with the cells; return what is wrong."""
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    browser.value("[...document.querySelectorAll('.cards input')].slice(1, 3).forEach(box => box.click())")
    told = browser.value("document.querySelector('.gallery output').textContent")
    if not told.endswith("2 ticked"):
        return f"two cells are ticked, and the page says {told!r}"
    browser.value("document.querySelector('[data-action=download]').click()")
    file = folder / "ticked.csv"
    if not wait_for(file.exists):
        return "no CSV file is downloaded"
    with open(file, newline="", encoding="utf-8") as lines:
        rows = list(csv.reader(lines))
    issues = make_issues(make_cells())
    # A browser writes U+FFFD for the bytes of a name that are not valid UTF-8.
    names = [re.sub("[\ud800-\udfff]", "\ufffd", issue.name) for issue in issues[1:3]]
    wanted = [
        [name, issue.patient, issue.label_name, issue.suggested] for name, issue in zip(names, issues[1:3], strict=True)
    ]
    return "" if [row[:4] for row in rows[1:]] == wanted else f"the CSV file has {rows[1:]}; expected {wanted}"


def check(browser: Browser, file: Path, pictures: Path | None, axe: str, folder: Path) -> list[str]:
    """Return what is wrong with a page."""
    wrong = []
    browser.call("Emulation.setScrollbarsHidden", hidden=True)  # so that pictures have the width of the screen
    for size in (DESK, PHONE):
        wrong += [f"console: {error}" for error in browser.open(file.as_uri(), size)]
        missing = browser.value("[...document.images].filter(i => !i.naturalWidth).map(i => i.alt).join(', ')")
        wrong += [f"picture missing: {missing}"] if missing else []
        wide = browser.value("document.documentElement.scrollWidth")
        wrong += [f"{wide} px wide on a screen of {size[0]}"] if wide > size[0] else []
        for scheme in ("dark", "light"):
            browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            if axe:
                browser.value(axe)
                found = browser.call("Runtime.evaluate", expression=AXE, returnByValue=True, awaitPromise=True)
                wrong += [f"{scheme}, {size[0]} px: {text}" for text in found["result"].get("value", ["axe failed"])]
            if pictures:
                shot = browser.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
                (pictures / f"{file.stem}-{size[0]}-{scheme}.png").write_bytes(base64.b64decode(shot))
        wrong.append(browser.value(SORT))
        if browser.value("!!document.querySelector('.gallery')"):
            wrong.append(browser.value(FILTER))
        if browser.value("!!document.querySelector('.fields')"):
            wrong.append(browser.value(BOXES))
    wrong += [f"console after use: {error}" for error in browser.errors()]
    browser.open(file.as_uri(), DESK)
    wrong.append(use_keyboard(browser))
    if browser.value("!!document.querySelector('[data-action=download]')"):
        wrong.append(download(browser, folder))
    return [f"{file.name}: {text}" for text in wrong if text != ""]


def main() -> int:
    """Write the pages, use them, and say what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--axe", type=Path)
    args = parser.parse_args()
    if args.pictures:
        args.pictures.mkdir(parents=True, exist_ok=True)
    axe = args.axe.read_text() if args.axe else ""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        pages, profile, downloads = (Path(folder, name) for name in ("pages", "profile", "downloads"))
        pages.mkdir()
        downloads.mkdir()
        files = write_pages(pages)
        browser = Browser(str(profile))
        try:
            wrong = [text for file in files for text in check(browser, file, args.pictures, axe, downloads)]
        finally:
            browser.close()
    print("\n".join(wrong) or f"{len(files)} pages: no error, and tables, filters, check boxes and boxes work")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
