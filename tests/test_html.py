"""HTML pages: their structure, escaping, size and bytes; `docs/check_pages.py` checks them in a browser."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from pages_of import HOSTILE, make_cell_report, make_cells, make_found, make_issues, make_maps, write_pages

import cellscan

EMPTY = {"meta", "link", "img", "input"}
KINDS = ("detections", "label_issues", "report", "smear", "smears", "study")


class Page(HTMLParser):
    """The elements of a page, with their attributes and their text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), "an attribute occurs twice"
        self.elements.append((tag, dict(attrs)))
        self.open += [] if tag in EMPTY else [tag]

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        """Return the attributes of the elements of a kind that have these attributes."""
        return [own for name, own in self.elements if name == tag and attributes.items() <= own.items()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    assert [file.stem for file in write_pages(folder)] == list(KINDS)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_has_landmarks_headings_and_alternative_texts(kind, folder) -> None:
    page = Page((folder / f"{kind}.html").read_text())
    assert page.all("html", lang="en")
    for landmark in ("header", "main", "footer", "h1"):
        assert len(page.all(landmark)) == 1, landmark
    ids = [own["id"] for _, own in page.elements if "id" in own]
    assert len(ids) == len(set(ids))
    assert {own["aria-labelledby"] for own in page.all("section")} <= set(ids)
    assert {own["href"] for own in page.all("a")} <= {f"#{name}" for name in ids}
    assert all(own["alt"] for own in page.all("img"))
    assert all(own["aria-label"] for own in page.all("svg"))
    assert len(page.all("caption")) == len(page.all("table")) > 0
    assert all(own["scope"] in ("col", "row") for own in page.all("th"))
    assert "Research use only, not a medical device." in page.texts["p"][0]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_breaks_out_of_a_page_or_is_loaded(kind, folder) -> None:
    text = (folder / f"{kind}.html").read_text()
    page = Page(text)
    assert not {"b", "i", "form", "iframe", "object", "base"} & {tag for tag, _ in page.elements}
    assert not any(name.startswith("on") or name in ("style", "srcset") for _, own in page.elements for name in own)
    own = [attributes for attributes in page.all("script") if "type" not in attributes]
    assert len(own) == 1
    addresses = [one[name] or "" for _, one in page.elements for name in ("src", "href", "action") if name in one]
    assert all(address.startswith(("data:image/", "data:,", "#")) for address in addresses)
    pictures = [one["src"] or "" for one in page.all("img")]
    assert all(picture.startswith("data:image/") for picture in pictures)
    assert not re.search("https?:", re.sub(r"data:image/[^\"]*", "", text))
    assert "\u202e" not in text
    assert "\x00" not in text


@pytest.mark.parametrize("kind", KINDS)
def test_the_policy_allows_one_script_and_one_style(kind, folder) -> None:
    page = Page((folder / f"{kind}.html").read_text())
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"] or ""
    assert "default-src 'none'; img-src data:;" in policy
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        body = page.texts[tag][-1]
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_a_report_has_metrics_patients_and_the_least_probable_cells(tmp_path) -> None:
    cells = make_cells()
    report = make_cell_report(cells)
    report.to_html(tmp_path / "a.html", cells=cells, explain=make_maps, count=5)
    page = Page((tmp_path / "a.html").read_text())
    jpeg = [own for own in page.all("img") if (own["src"] or "").startswith("data:image/jpeg")]
    assert len(jpeg) == 10  # a picture and a map for each cell
    assert f"{report.accuracy:.4f}" in page.texts["td"]
    assert {f"p{n}" for n in range(5)} <= {text[:2] for text in page.texts["th"]}
    worst = report.probabilities[np.arange(len(cells)), report.labels].min()
    assert f"P(label) {worst:.4f}" in page.texts["p"]
    report.to_html(tmp_path / "b.html")
    text = (tmp_path / "b.html").read_text()
    assert "A report keeps no pictures" in text
    assert "data:image/jpeg" not in text
    with pytest.raises(cellscan.DataError, match=r"cells has no '.*'; expected the cells that were evaluated"):
        report.to_html(tmp_path / "c.html", cells=cells[:3])
    with pytest.raises(cellscan.ArgumentError, match="pass cells="):
        report.to_html(tmp_path / "c.html", explain=make_maps)
    assert not (tmp_path / "c.html").exists()


def test_the_data_for_the_csv_file_are_those_of_to_csv(tmp_path) -> None:
    issues = make_issues(make_cells())
    issues.to_html(tmp_path / "a.html", count=30)
    text = (tmp_path / "a.html").read_text()
    data = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)[0])
    assert data["columns"] == ["name", "patient", "label_name", "suggested", "probability"]
    assert [row[0] for row in data["rows"]] == issues.names[:30].tolist()
    page = Page(text)
    assert len(page.all("input", type="checkbox")) == 30
    assert "The first 30 of 40 cells, worst first." in page.texts["p"]
    issues[:0].to_html(tmp_path / "none.html")
    assert "There are none." in (tmp_path / "none.html").read_text()


def test_a_smear_has_its_warnings_first(folder) -> None:
    text = (folder / "smear.html").read_text()
    assert text.index("are odd.") < text.index("Not enough cells") < text.index("<table") < text.index("20.00%")
    page = Page(text)
    assert "10.00% to 30.00%" in page.texts["td"]
    assert len(page.all("rect")) == 24  # the third field cannot be read
    assert any(line.startswith("no picture: 2 ") and "there is no such file" in line for line in page.texts["p"])


def test_boxes_are_in_pixels_of_the_field(tmp_path) -> None:
    found = make_found(2)[:1]
    found.to_html(tmp_path / "a.html")
    page = Page((tmp_path / "a.html").read_text())
    rects = page.all("rect")
    assert [own["data-score"] for own in rects] == [f"{score:.4f}" for score in found[0].scores]
    sides = np.array([[float(own[name] or 0) for name in ("x", "y", "width", "height")] for own in rects])
    np.testing.assert_allclose(sides[:, :2] + sides[:, 2:], found[0].boxes[:, 2:], atol=0.11)
    assert page.all("svg", viewbox="0 0 240 180")
    found[0].to_html(tmp_path / "b.html")
    assert len(Page((tmp_path / "b.html").read_text()).all("rect")) == len(rects)


def test_five_hundred_pictures_are_less_than_five_megabytes(tmp_path) -> None:
    cells = make_cells(500, side=140)
    make_issues(cells).to_html(tmp_path / "a.html")
    text = (tmp_path / "a.html").read_bytes()
    assert text.count(b"data:image/jpeg") == 500
    assert len(text) < 5e6


def test_equal_results_give_equal_bytes_and_replace_a_file(folder, tmp_path) -> None:
    (tmp_path / "report.html").write_text("old")
    for file in write_pages(tmp_path):
        assert file.read_bytes() == (folder / file.name).read_bytes(), file.name
    assert sorted(file.stem for file in tmp_path.iterdir()) == list(KINDS)  # and no part of a file


def test_a_file_that_cannot_be_written_is_named_and_kept(tmp_path, monkeypatch) -> None:
    found = make_found()
    with pytest.raises(cellscan.DataError, match=r"absent.a\.html: there is no folder"):
        found.to_html(tmp_path / "absent" / "a.html")
    with pytest.raises(cellscan.ArgumentError, match="path is 3; expected a path"):
        found.to_html(3)  # type: ignore[arg-type]
    with pytest.raises(cellscan.ArgumentError, match="count is 0"):
        found.to_html(tmp_path / "a.html", count=0)
    (tmp_path / "a.html").write_text("old")

    def fail(*_) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(cellscan.DataError, match=r"a\.html: the file cannot be written"):
        found.to_html(tmp_path / "a.html")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.html", "old")]


def test_hostile_texts_are_shown(folder) -> None:
    page = Page((folder / "label_issues.html").read_text())
    shown = " ".join(page.texts["bdi"])
    assert HOSTILE[0] in shown
    assert HOSTILE[1] in shown
    assert "a[U+202E]gnp.exe" in shown
    assert "[U+DCFF].png" in shown
    assert "细胞.png" in shown
