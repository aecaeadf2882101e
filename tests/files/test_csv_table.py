"""Tables are read whole or refused with the line that is at fault."""

from pathlib import Path

import pytest

from bundle.ctfindings.files.csv_table import TableError, read_table


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiter_is_that_of_the_header(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(f'\ufeffid{delimiter}text\r\n1{delimiter}"a\nb"\r\n\r\n2{delimiter} c \r\n'.encode())
    table = read_table(path)
    assert table.columns == ["id", "text"]
    assert [(row.line, row.values) for row in table.rows] == [
        (2, {"id": "1", "text": "a\nb"}),
        (5, {"id": "2", "text": "c"}),
    ]


def test_empty_lines_above_the_header_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("\n \nid,text\n1,a\n")
    table = read_table(tmp_path / "t.csv")
    assert [(row.line, row.values) for row in table.rows] == [(4, {"id": "1", "text": "a"})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,text\n1,a,b\n", "line 2 has 3 fields, the header 2"),
        (b"id,id\n1,2\n", "has column 'id' twice"),
        (b"id,text\n", "no rows"),
        (b"", "is empty"),
        (b",,\n,,\n", "is empty"),
        ("id,text\n1,Größe\n".encode("latin-1"), "expected UTF-8"),
        (b'id,text\n1,"open\n', "is not valid CSV"),
    ],
)
def test_bad_tables_are_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(TableError, match=message) as refused:
        read_table(path)
    assert "\n" not in str(refused.value) and str(path) in str(refused.value)


def test_a_column_that_is_not_there_is_named_with_the_likeliest_one(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("Accession,Report\n1,a\n")
    with pytest.raises(
        TableError, match="no column 'Acession' for the id; its columns are Accession, Report: did you mean 'Accession'"
    ):
        read_table(path).column("Acession", "the id")
    with pytest.raises(TableError, match="no such file"):
        read_table(tmp_path / "absent.csv")
