"""Where the networks looked, and how a person is shown it."""
