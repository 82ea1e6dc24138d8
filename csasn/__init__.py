"""CSASN: thyroid carcinoma in ultrasound images, trained over hospitals that share no patient data.

`csasn.load(run)` is a finished model, `csasn.simulate(study)` a federation on this machine: csasn/api.py.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from csasn.api import Model, Run, load, simulate

__all__ = ["NOTICE", "Model", "Run", "__version__", "load", "simulate"]
__version__ = version("csasn-federated")
NOTICE = "for research only: not a medical device, not for diagnosis"  # of every model that is trained, wherever one is shown

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """The Python interface, which loads torch, once something of it is asked for."""
        if name not in __all__:
            raise AttributeError(f"module 'csasn' has no attribute {name!r}")
        from csasn import api

        return getattr(api, name)
