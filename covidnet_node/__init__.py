"""A DICOM node that answers chest X-rays with a structured report and a heatmap."""
