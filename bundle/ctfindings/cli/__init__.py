"""Options and errors of the command line."""

from bundle.ctfindings.cli.check_options import check_options
from bundle.ctfindings.cli.error_lines import input_errors_in_one_line, run_or_exit

__all__ = ["check_options", "input_errors_in_one_line", "run_or_exit"]
