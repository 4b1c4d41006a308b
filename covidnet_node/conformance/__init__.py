"""The DICOM conformance statement: its tables, made from what the node negotiates and builds."""
