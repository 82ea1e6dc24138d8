"""What the checks of `client doctor` look at: each part is read or measured once, when the first check asks for it."""

from functools import cached_property
from pathlib import Path

import torch

from client.doctor.link_speed import LinkSpeed, measure_link
from client.doctor.training_probe import Measured, measure_training
from client.trust.coordinator_link import Handshake, ask_facts, shake_hands
from csasn.data.cache import Advance
from csasn.data.cases import Records, SiteData, load_records, site_data
from csasn.data.fingerprint import Fingerprint, take_fingerprint
from csasn.data.manifest import Manifest, read_manifest
from csasn.errors import ConfigurationError
from csasn.federated.messages import Kind
from csasn.model.network import build_network
from csasn.model.profiles import image_size
from csasn.privacy.contract import Contract
from csasn.site import Site, find_site, find_site_file
from csasn.study import Study, read_study
from csasn.trust.enrolment import KIT, STUDY, Kit, read_kit
from csasn.trust.facts import CoordinatorFacts
from csasn.trust.membership import Member, Membership, share_weights


class DoctorContext:
    """One site before a run. Every part may raise what reading it raises; a part that was read stays as it was.

    `config` and `study_file` are the files that the operator named, if any; `advance` is told how far the reading of images is.
    """

    def __init__(
        self, name: str, config: Path | None = None, study_file: Path | None = None, advance: Advance | None = None
    ) -> None:
        self.name, self.config, self._study_file, self._advance = name, config, study_file, advance

    @cached_property
    def site(self) -> Site:
        """The site file."""
        return find_site(self.name, self.config)

    @cached_property
    def has_kit(self) -> bool:
        """Whether a kit of the coordinator's is installed."""
        return (self.site.kit_folder / KIT).exists()

    @cached_property
    def kit(self) -> Kit:
        """The kit."""
        return read_kit(self.site.kit_folder)[0]

    @property
    def study_file(self) -> Path:
        """The study that the operator named, or the kit's."""
        if self._study_file is None and not self.has_kit:
            raise ConfigurationError("which study? no kit is installed yet", "give --study FILE, or first client install the kit")
        return self._study_file or self.site.kit_folder / STUDY

    @cached_property
    def study(self) -> Study:
        """The study."""
        return read_study(self.study_file)

    @cached_property
    def manifest(self) -> Manifest:
        """The rows of manifest.csv."""
        return read_manifest(Path(self.site.manifest), self.study, self.site.labels)

    @cached_property
    def records(self) -> Records:
        """Rows and images; whether there are enough cases for the site's policy is asked elsewhere."""
        anyhow = self.site.policy.model_copy(update={"minimum_cases": 0})
        return load_records(
            self.study, self.site.model_copy(update={"policy": anyhow}), image_size(self.study.model), self._advance
        )

    @cached_property
    def data(self) -> SiteData:
        """What training sees."""
        return site_data(self.study, self.records)

    @cached_property
    def data_fingerprint(self) -> Fingerprint:
        """The data in a page of numbers."""
        return take_fingerprint(self.study, self.site.site, self.records)

    @cached_property
    def contract(self) -> Contract:
        """What may be in an answer, by the study alone: no size in it depends on who takes part with which weight."""
        units = share_weights(dict.fromkeys((*self.study.federation.sites, self.site.site), 1))
        members = tuple(Member(site=site, weight_units=share) for site, share in units.items())
        with torch.device("meta"):  # shapes without memory
            network = build_network(self.study)
        return Contract.of(self.study, Membership(study_hash=self.study.study_hash, members=members), network)

    def upload_bytes(self, current_round: int) -> int:
        """Bytes of this site's answer to train, framing aside."""
        counts = self.contract.counts[Kind.TRAIN].size * 8
        return self.contract.state.num_shared * self.contract.bits(current_round) // 8 + counts

    def download_bytes(self, current_round: int) -> int:
        """Bytes of a broadcast: the whole model first, then the summed integers of the round before."""
        if current_round == 1:
            return self.contract.state.size * 4
        return self.contract.state.num_shared * self.contract.bits(current_round - 1) // 8

    @cached_property
    def training(self) -> Measured:
        """One training step."""
        wanted = min(self.site.micro_batch or self.study.optimiser.batch_size, self.study.optimiser.batch_size)
        return measure_training(find_site_file(self.site.site, self.config), self.study_file, wanted)

    @cached_property
    def handshake(self) -> Handshake:
        """What TLS showed of the coordinator."""
        return shake_hands(self.site, self.kit)

    @cached_property
    def facts(self) -> CoordinatorFacts:
        """What the coordinator says to a site whose key it knows."""
        return ask_facts(self.site, self.kit)

    @cached_property
    def link(self) -> LinkSpeed:
        """The bandwidth to the coordinator."""
        return measure_link(self.site, self.kit)
