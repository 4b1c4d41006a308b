"""Coverage-guided fuzzing: `make fuzz MINUTES=10 SEED=1`. Not part of the product."""
