"""Watches an archive: new CT series get their results, once, and a worklist says what was found."""
