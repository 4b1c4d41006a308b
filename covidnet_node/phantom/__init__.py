"""The synthetic chest X-ray of the demonstration and the tests."""
