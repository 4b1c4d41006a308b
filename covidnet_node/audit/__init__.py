"""The audit trail: who moved whose images, and who was turned away (PS3.15 A.5)."""
