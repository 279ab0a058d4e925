"""data-prep import: every kind of file, and files that are damaged."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.corpus_folder import read_corpus
from data_prep.damage import DamageReport
from data_prep.documents import Document
from data_prep.errors import DataError
from data_prep.import_step import import_documents
from data_prep.wikipedia import paragraphs

TEXTS = [f"Документ номер {index}: мама мыла раму." for index in range(300)]


def _imported(tmp_path: Path, *inputs: Path | str) -> tuple[list[Document], dict]:
    summary = import_documents([str(item) for item in inputs], tmp_path / "out")
    return list(read_corpus(tmp_path / "out")), summary


def _jsonl() -> bytes:
    lines = (json.dumps({"text": text, "id": str(i)}, ensure_ascii=False) for i, text in enumerate(TEXTS))
    return "\n".join(lines).encode() + b"\n"


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "jsonl.bz2", "jsonl.zst", "parquet"])
def test_rows(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"новости.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"text": TEXTS, "id": [str(i) for i in range(300)]}), path)
    elif kind.endswith("zst"):
        with pa.CompressedOutputStream(str(path), "zstd") as stream:
            stream.write(_jsonl())
    else:
        pack = {"jsonl": bytes, "jsonl.gz": gzip.compress, "jsonl.bz2": bz2.compress}[kind]
        path.write_bytes(pack(_jsonl()))
    documents, summary = _imported(tmp_path, path)
    assert documents == [Document(text, tmp_path.name, str(i)) for i, text in enumerate(TEXTS)]
    assert summary["damage"]["lost"] == 0


def test_bad_lines_are_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    lines = _jsonl().splitlines()
    lines[10] = b'{"text": "\xd0'
    lines[20] = b'{"body": "x"}'
    lines[30] = b'{"text": 5}'
    lines[40] = b'{"text": "half of a character: \\ud83d"}'
    lines[50] = b"[" * 100_000
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(lines))
    documents, summary = _imported(tmp_path, path)
    assert len(documents) == 295
    positions = [place["position"] for place in summary["damage"]["places"]]
    assert positions == [f"line {number}" for number in (11, 21, 31, 41, 51)]


def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    """Old archives and disks have names in Windows-1251."""
    name = "сказка.txt".encode("cp1251").decode("utf-8", "surrogateescape")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / name).write_text(TEXTS[0])
    with tarfile.open(tmp_path / "a" / "b.tar", "w") as archive:
        archive.add(tmp_path / "a" / name, name)
    (tmp_path / "a" / f"{name}.jsonl").write_text("{")
    documents, summary = _imported(tmp_path, tmp_path / "a")
    assert [document.id for document in documents] == ["??????.txt"] * 2
    assert summary["damage"]["places"][0]["file"].endswith("??????.txt.jsonl")


def test_files_that_hold_no_text(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "binary.txt").write_bytes(bytes(range(256)) * 9)
    (folder / "empty.txt").touch()
    (folder / "empty.jsonl.gz").touch()
    (folder / "no.parquet").write_bytes(b"PAR1")
    (folder / "no.zip").write_bytes(b"PK")
    (folder / "windows.txt").write_text(TEXTS[0], encoding="utf-16")
    documents, summary = _imported(tmp_path, folder)
    assert [document.text for document in documents] == [TEXTS[0]]
    damaged = {Path(place["file"]).name for place in summary["damage"]["places"]}
    assert damaged == {"binary.txt", "no.parquet", "no.zip"}
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "numbers.parquet")
    with pytest.raises(DataError, match="holds int64 and not text"):
        import_documents([str(tmp_path / "numbers.parquet")], tmp_path / "numbers")


def test_a_cut_gzip_gives_what_comes_before_the_cut(tmp_path: Path) -> None:
    path, whole = tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl.gz"
    data = gzip.compress(_jsonl())
    path.write_bytes(data[: len(data) // 2])
    whole.write_bytes(data)
    documents, summary = _imported(tmp_path, path, whole)
    assert 300 < len(documents) < 600
    (place,) = summary["damage"]["places"]
    assert place["file"].endswith("a.jsonl.gz")
    assert place["position"].startswith("after line")


def test_rows_without_an_id_are_told_apart_by_their_place(tmp_path: Path) -> None:
    table = pa.table({"text": ["Раз.", "Два.", "Три."], "id": pa.array([None, "б", None], pa.string())})
    pq.write_table(table, tmp_path / "a.parquet")
    documents, _ = _imported(tmp_path, tmp_path / "a.parquet")
    assert [document.id for document in documents] == ["a.parquet:0", "б", "a.parquet:2"]


def test_a_damaged_parquet_row_group_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"text": TEXTS}), path, row_group_size=100, compression="zstd", use_dictionary=False
    )
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = column.data_page_offset + 40
    data[start : start + 200] = bytes(200)
    path.write_bytes(data)
    documents, summary = _imported(tmp_path, path)
    assert [document.text for document in documents] == TEXTS[:100] + TEXTS[200:]
    assert "rows 100 to 199" in summary["damage"]["places"][0]["position"]


def test_archives_of_texts(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "taiga.tar.gz", "w:gz") as archive:
        for name, data in (("a/1.txt", "Первый текст.".encode()), ("a/2.txt", "Второй".encode("cp1251"))):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("3.txt", "Третий текст.")
        archive.writestr("4.txt", "Четвёртый текст, что испорчен.")
        archive.writestr("meta.csv", "x")
    data = bytearray((tmp_path / "b.zip").read_bytes())
    at = data.index("испорчен".encode())
    data[at] ^= 1
    (tmp_path / "b.zip").write_bytes(data)
    documents, summary = _imported(tmp_path, tmp_path / "taiga.tar.gz", tmp_path / "b.zip")
    assert [(d.id, d.text) for d in documents] == [
        ("a/1.txt", "Первый текст."),
        ("a/2.txt", "Второй"),
        ("3.txt", "Третий текст."),
    ]
    assert [place["position"] for place in summary["damage"]["places"]] == ["member 4.txt"]


PAGE = """  <page>
    <title>{title}</title>
    <ns>{ns}</ns>
    <id>{id}</id>{extra}
    <revision>
      <text xml:space="preserve">{text}</text>
    </revision>
  </page>
"""
ARTICLE = """{{Карточка|имя={{s|Москва}}|x={{y|z}}}}
'''Москва''' — [[столица]] [[Россия|России]], город &lt;ref name="a"&gt;X&lt;/ref&gt;федерального значения.
[[Файл:Moscow.jpg|мини|Вид на [[Кремль]] и реку]]
== История ==
{| class="wikitable"
| ячейка таблицы, которую не надо читать никогда {{x}}
{|
| вложенная таблица внутри другой таблицы
|}
|}
* пункт списка, который не является абзацем текста
Первое упоминание о городе относится к {{s|1147 году}}, сказано в летописи.
[[Категория:Города]]"""


def _dump(pages: range) -> str:
    return "".join(
        PAGE.format(title=f"Город {i}", ns=0, id=i, extra="", text=ARTICLE.replace("1147", str(1000 + i)))
        for i in pages
    )


def test_wikipedia_paragraphs() -> None:
    text = ARTICLE.replace("&lt;", "<").replace("&gt;", ">")
    assert paragraphs(text) == [
        "Москва — столица России, город федерального значения.",
        "Первое упоминание о городе относится к 1147 году, сказано в летописи.",
    ]


@pytest.mark.parametrize("tag", ['<ref name="a"/>', '<ref name="a" />', "<gallery/>"])
def test_a_wikipedia_tag_that_closes_itself_takes_no_text_with_it(tag: str) -> None:
    name = tag.strip("<").split("/")[0].split(" ")[0]
    text = (
        f"Первое предложение статьи.{tag} Второе её предложение.\n"
        f"Следующий абзац той же статьи.<{name}>Примечание</{name}>"
    )
    assert paragraphs(text) == [
        "Первое предложение статьи. Второе её предложение.",
        "Следующий абзац той же статьи.",
    ]


def test_wikipedia_namespaces_redirects_and_broken_pages(tmp_path: Path) -> None:
    pages = [
        _dump(range(2)),
        PAGE.format(title="Обсуждение", ns=1, id=50, extra="", text=ARTICLE),
        PAGE.format(title="Мск", ns=0, id=51, extra='<redirect title="Москва" />', text=ARTICLE),
        PAGE.format(title="Плохая & страница", ns=0, id=52, extra="", text=ARTICLE),
        _dump(range(2, 4)),
    ]
    path = tmp_path / "ruwiki.xml.bz2"
    path.write_bytes(bz2.compress(("<mediawiki>\n" + "".join(pages) + "</mediawiki>\n").encode()))
    documents, summary = _imported(tmp_path, path)
    assert [document.id for document in documents] == ["0", "1", "2", "3"]
    assert summary["damage"]["lost"] == 1


def test_a_damaged_stream_of_a_dump_costs_only_itself(tmp_path: Path) -> None:
    streams = [bz2.compress(_dump(range(start, start + 20)).encode()) for start in range(0, 100, 20)]
    broken = bytearray(streams[2])
    broken[200:260] = bytes(60)
    path = tmp_path / "ruwiki-multistream.xml.bz2"
    path.write_bytes(b"".join([*streams[:2], bytes(broken), *streams[3:]]))
    documents, summary = _imported(tmp_path, path)
    ids = {int(document.id) for document in documents}
    assert ids >= {*range(40), *range(60, 100)}
    assert any(place["position"].startswith("near byte") for place in summary["damage"]["places"])


def test_a_dump_cut_short_is_reported(tmp_path: Path) -> None:
    data = bz2.compress(_dump(range(20)).encode()) + bz2.compress(_dump(range(20, 40)).encode())
    path = tmp_path / "ruwiki.xml.bz2"
    path.write_bytes(data[:-50])
    documents, summary = _imported(tmp_path, path)
    assert len(documents) >= 20
    assert any("middle of a stream" in place["reason"] for place in summary["damage"]["places"])


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        import_documents([str(tmp_path / "absent.txt")], tmp_path / "out")
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(DataError, match="no reader"):
        import_documents([str(tmp_path / "a.docx")], tmp_path / "out")
    (tmp_path / "b.jsonl").write_text("nonsense")
    with pytest.raises(DataError, match="nothing could be read"):
        import_documents([str(tmp_path / "b.jsonl")], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    report = DamageReport()
    for number in range(1000):
        report.add("a", str(number), "x")
    assert (report.lost, len(report.places)) == (1000, 50)
