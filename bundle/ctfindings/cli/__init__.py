"""Options and errors of the command line."""

from bundle.ctfindings.cli.check_options import check_options
from bundle.ctfindings.cli.error_lines import one_line_errors, run_or_exit

__all__ = ["check_options", "one_line_errors", "run_or_exit"]
