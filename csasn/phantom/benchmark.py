"""The benchmark federation: the phantom that methods are ranked on. In training carcinomas are as rare as in hospitals.

Of the carcinomas that train and validate 86 % are papillary, 10 % follicular and 4 % medullary, at four sites of unequal size; each
class has 300 test cases, so that a rate of it has a standard error of .03 at most.
"""

import dataclasses

from csasn.errors import ConfigurationError
from csasn.phantom.settings import PhantomSettings, SiteMix

BENCHMARK_STUDY = "benchmark.yaml"
TEST = (75, 75, 75, 75)
BENCHMARK_MIXES = (  # train, validation, test: benign, PTC, FTC, MTC
    SiteMix("centerA", splits=((110, 190, 19, 8), (30, 50, 5, 3), TEST)),
    SiteMix("centerB", splits=((60, 200, 16, 8), (18, 55, 5, 3), TEST)),
    SiteMix("centerC", splits=((60, 80, 20, 0), (18, 22, 5, 0), TEST)),
    SiteMix("centerD", splits=((30, 60, 6, 7), (9, 17, 2, 2), TEST)),
)


def phantom_settings(
    seed: int, num_cases: int | None, *, benchmark: bool, num_workers: int = 0, replace: bool = False
) -> PhantomSettings:
    """The settings of the default phantom, or of the benchmark, whose numbers of cases are its own.

    Raises:
        ConfigurationError: a number is out of range, or given for the benchmark.
    """
    how = PhantomSettings(seed, num_workers=num_workers, replace=replace)
    if not benchmark:
        return how if num_cases is None else dataclasses.replace(how, num_cases=num_cases)
    if num_cases is not None:
        raise ConfigurationError(
            f"phantom: {num_cases} cases of each site, expected none with --benchmark, whose numbers are fixed",
            "leave out --cases, or --benchmark",
        )
    # the model sees 96 pixels; files are PNG, which are smaller, since DICOM would change nothing that is measured here
    return dataclasses.replace(how, image_px=128, mixes=BENCHMARK_MIXES, dicom_sites=(), study=BENCHMARK_STUDY)
