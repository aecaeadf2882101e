"""The command that draws findings into scans of one's own."""

from pathlib import Path

from tests import commands

SCRIPT = "scripts/make_hybrid_scans.py"


def test_an_output_that_the_next_run_would_read_or_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "file").write_text("")
    for output, words in (
        (tmp_path / "scans", "whose scans are read; give a folder outside of it"),
        (tmp_path / "scans" / "hybrid", "whose scans are read; give a folder outside of it"),
        (tmp_path / "file", "is a file; give a folder for the results"),
    ):
        result = commands.run([SCRIPT, str(tmp_path / "scans"), str(output)])
        assert result.returncode == 1 and result.stderr.count("\n") == 1 and words in result.stderr
    assert list((tmp_path / "scans").iterdir()) == []
