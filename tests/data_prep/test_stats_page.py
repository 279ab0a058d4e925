"""The page of `data-prep stats` in a browser: nothing is cut off, on a telephone as on a desk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from data_prep.cleaning import clean_corpus
from data_prep.corpus_folder import write_corpus
from data_prep.dedup_step import dedup_corpus
from data_prep.documents import Document
from data_prep.stats import corpus_stats, write_report

from .conftest import make_documents

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NAMES = ("сказки", "a source with a long and windy name", "<b>тег</b>", *(f"source {n}" for n in range(8)))


@pytest.fixture
def page_path(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    documents = [document for name in NAMES for document in make_documents(60, name)]
    documents += [Document(documents[0].text * 2000, "сказки", "long"), Document("!", "a source", "short")]
    write_corpus(tmp_path / "raw", documents)
    clean_corpus(tmp_path / "raw", tmp_path / "clean")
    dedup_corpus(tmp_path / "clean", tmp_path / "dedup")
    stats = corpus_stats(tmp_path / "dedup", [tmp_path / "clean"])
    return write_report(stats, tmp_path / "report")


def test_steps_and_samples_are_told_and_markup_is_escaped(page_path: Path) -> None:
    page = page_path.read_text()
    for words in ("Cleaning", "Deduplication", "Duplicates removed, by source", "quality", "stayed"):
        assert words in page
    assert "&lt;b&gt;тег" in page
    assert "<b>тег" not in page


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_fits_its_window(page_path: Path, width: int) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.goto(page_path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        cut = page.evaluate(
            "[...document.querySelectorAll('td, th, h2, .facts b, .column span')]"
            ".filter(e => e.offsetParent && e.scrollWidth > e.clientWidth + 1).map(e => e.innerText)"
        )
        assert cut == []
        for element in page.query_selector_all(".scroll"):
            assert element.evaluate("e => e.scrollWidth <= e.clientWidth + 1"), element.inner_text()
        browser.close()
