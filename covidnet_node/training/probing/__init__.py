"""What a network can learn from what should not matter: hospitals, silhouettes, black lungs."""
