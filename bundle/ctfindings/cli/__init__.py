"""Options and errors of the command line."""

from bundle.ctfindings.cli.error_lines import one_line_errors
from bundle.ctfindings.cli.options import check_device, check_options

__all__ = ["check_device", "check_options", "one_line_errors"]
