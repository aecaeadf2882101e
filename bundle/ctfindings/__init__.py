"""CT Findings: findings in chest CT by text prompts, as a MONAI Bundle. For research only, never for diagnosis."""

__version__ = "0.1.0"
