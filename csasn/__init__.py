"""CSASN: thyroid carcinoma in ultrasound images, trained over hospitals that share no patient data."""

from importlib.metadata import version

__version__ = version("csasn-federated")
