"""CT Findings: zero-shot findings in chest CT, as a MONAI Bundle. For research only, never for diagnosis."""

__version__ = "0.1.0"
