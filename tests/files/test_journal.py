"""Resume journal: finished tasks are not repeated, whatever ended the run before."""

from pathlib import Path

from bundle.ctfindings.files.journal import resume


def _squared(number: int) -> int:
    if number < 0:
        raise ValueError("is negative")
    return number**2


def test_only_new_and_changed_and_failed_tasks_run_again(tmp_path: Path) -> None:
    journal = tmp_path / "folder" / "journal.jsonl"
    first = list(resume(_squared, {"a": ("1", 2), "b": ("1", 3), "c": ("1", -1)}, journal))
    assert [(one.key, one.result, one.problem) for one in first] == [
        ("a", 4, ""),
        ("b", 9, ""),
        ("c", None, "is negative"),
    ]
    with journal.open("a") as file:
        file.write('{"key": "d", "sig')  # The run was killed here.
    tasks = {"a": ("1", 7), "b": ("2", 5), "c": ("1", 6), "d": ("1", 1)}
    second = {one.key: (one.result, one.kept) for one in resume(_squared, tasks, journal)}
    assert second == {"a": (4, True), "b": (25, False), "c": (36, False), "d": (1, False)}
    assert all(one.kept for one in resume(_squared, tasks, journal))


def test_a_result_whose_file_is_gone_does_not_hold(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    list(resume(_squared, {"a": ("", 2), "b": ("", 3)}, journal))
    again = resume(_squared, {"a": ("", 2), "b": ("", 3)}, journal, holds=lambda key, result: key == "a")
    assert [(one.key, one.kept) for one in again] == [("a", True), ("b", False)]
