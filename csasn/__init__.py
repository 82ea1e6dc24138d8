"""CSASN: thyroid carcinoma in ultrasound images, trained over hospitals that share no patient data."""

from importlib.metadata import version

__version__ = version("csasn-federated")
NOTICE = "for research only: not a medical device, not for diagnosis"  # of every model that is trained, wherever one is shown
