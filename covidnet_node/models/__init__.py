"""The networks: what the weights manifest says, where the lungs are, which class."""
