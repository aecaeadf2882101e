"""A DICOM archive as a source."""
