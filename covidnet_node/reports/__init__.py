"""Analysis to DICOM objects: Structured Report and heatmap. The only room that uses highdicom."""
