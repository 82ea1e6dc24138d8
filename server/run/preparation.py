"""What a run begins with, its membership and directory; or, if it was begun, whether it can go on."""

from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from csasn.data.cases import count_training_cases
from csasn.errors import RunError
from csasn.model.settling import settle
from csasn.site import Site
from csasn.study import Study, read_study
from csasn.trust.identity import public_hex
from csasn.trust.membership import Member, Membership, share_weights
from server.run.run_directory import RunDirectory, is_finished


def begin(path: Path, study: Study, sites: Mapping[str, Site], start: Path | None = None) -> None:
    """Writes a new run directory; each site gets an identity in its folder, and weighs by its share of the training cases, in a
    survey as much as any other. Where the study says nothing of a branch's initial weights, the run's own study.yaml does: what is
    installed here, or random. `start` is the file of a model that the study continues.

    Raises:
        RunError: something is there already.
        DataError: a manifest cannot be used.
    """
    study = settle(study)
    num_cases = {name: 1 if study.survey else count_training_cases(study, site) for name, site in sites.items()}
    units = share_weights(num_cases)
    keys = {name: Ed25519PrivateKey.generate() for name in study.federation.sites}
    members = tuple(Member(site=name, weight_units=units[name], identity=public_hex(key)) for name, key in keys.items())
    RunDirectory.create(path, study, Membership(study_hash=study.study_hash, members=members), keys, start)


def check_resumable(path: Path, study: Study, *, lacks_baselines: bool = False) -> None:
    """Refuses whatever is no run of this study with something left to do: it is unfinished, or lacks baselines that are wanted.

    Raises:
        RunError: no run, a finished run, or one of another study.
    """
    if not (path / "study.yaml").exists():
        raise RunError(f"{path} holds no run to resume", "leave out --resume to begin one")
    if is_finished(path) and not lacks_baselines:
        raise RunError(
            f"{path} holds a finished run", "only --baselines that it lacks can be added; begin another with --out or --anew"
        )
    begun = read_study(path / "study.yaml")
    settled = settle(study, begun)
    if begun.study_hash != settled.study_hash:
        raise RunError(
            f"{path} was begun with study {begun.study_hash[:12]}, this one is {settled.study_hash[:12]}",
            "resume with the same study file and --set, or begin anew with another --out",
        )
