"""Synthetic thyroid ultrasound, so that everything here can be tried without a patient. Never evidence about patients."""
