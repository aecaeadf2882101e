"""Compares text towers: AUC, paraphrases and size after the same training.

    python experiments/text_tower/run.py --datalist data/synthetic_large --scans 600 150 250 --epochs 5 --seeds 0

The command resumes: finished runs are not repeated. docs/experiments/text_tower has the result, on which the default
text tower is based.
"""

import logging
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bundle.ctfindings.cli.error_lines import run_or_exit
from experiments.harness.command_line import SHOWN_FOLDERS, experiment_parser, training_keys, work_folder
from experiments.harness.shown_command import shown_command
from experiments.text_tower.comparison import compare_text_towers


def main() -> None:
    parser = experiment_parser(__doc__, "text_tower", seeds=(0,))
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    keys = training_keys(options)
    command = shown_command(sys.argv, SHOWN_FOLDERS)
    arguments = (
        options.seeds,
        options.datalist,
        options.output,
        work_folder(options),
        keys,
        command,
        options.scans,
        options.resamples,
    )
    print(run_or_exit(compare_text_towers, *arguments))


if __name__ == "__main__":
    main()
