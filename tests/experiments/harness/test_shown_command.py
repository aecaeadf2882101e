"""The command line that a page shows."""

from pathlib import Path

from experiments.harness.shown_command import shown_command


def test_a_shown_command_has_no_folders_of_this_machine(bundle_root: Path) -> None:
    script = str(bundle_root / "experiments" / "ca_gcl" / "run.py")
    given = [
        script,
        "--datalist",
        "/private/scans",
        "--seeds",
        "0",
        "1",
        "--work",
        "/private/runs",
        "--set",
        "a=[1, 2]",
    ]
    shown = shown_command(given, {"--datalist": "FOLDER", "--work": None})
    assert shown == "python experiments/ca_gcl/run.py --datalist FOLDER --seeds 0 1 --set 'a=[1, 2]'"
    shown = shown_command([script, "../reports", "--checkpoints", "a=/private/run/last.pt", "b=runs/last.pt"], {})
    assert shown == "python experiments/ca_gcl/run.py reports --checkpoints a=last.pt b=runs/last.pt"
