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

WORTH = """## What this benchmark is good for, and what it can never prove

Good for ranking ways to train on the same cases: federated against single sites and pooled, one class weighting against another,
a module switched on or off. The manifests name the splits, so that every method, whatever its seed, sees the same cases; with equal
numbers of test cases in every class and at every site, a rare class is measured as well as a common one.

- Test cases are not in their natural proportions. Recall, balanced accuracy and the AUROC of a pair of classes do not mind;
  precision, F1, accuracy and one-against-rest AUROC do: weight the cases to a stated prevalence, such as that of training cases.
- How hard it is: an observer who is told every attribute, but not the class, reaches an AUROC of about .92 for FTC and .85 for MTC
  against the rest (.95 and .85 weighted to the training cases), so no picture can give much more. Logistic regression on frozen
  features of EfficientNet-lite0 (ImageNet weights), fitted to the training cases of all sites, reached .72 and .56.
- By its prevalence that observer would decide for MTC in 4 % of the MTC cases: what is gained in their recall is paid elsewhere.
- Choose on validation cases. Those of MTC are 8: mostly noise. Another draw (`--seed 2`) has 300, and the recipe was chosen there.

It can never prove that a model finds carcinoma, that its rates hold in a hospital, that a class weighting suits patients, or that a
federation of hospitals gains as much: the nodules are drawn from a table of rates, attributes are independent within a class, the
scanners are four formulas, and no label is wrong. A difference that is not seen here may exist in patients, and the
other way round. Figures of other seeds are of other cases."""


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
