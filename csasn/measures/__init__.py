"""Figures from counts: metrics, curves, intervals, and those from single cases. No model and no file is read here."""
