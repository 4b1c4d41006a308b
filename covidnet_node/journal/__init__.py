"""The only durable state of the node: what came, what was decided, what is still owed."""
