"""Pictures of what viewers make of the results; the phantom only, never a patient."""
