"""Results as DICOM objects: a structured report and segmentations."""
