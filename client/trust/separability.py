"""Whose sums become separable by a membership: sums over two memberships that differ by one hospital differ by that hospital's.

Masks cannot hide this, and no rounding cures it: so people are told before they approve. A site knows of the memberships for which
it answered a hello or a survey on the manifest of today, by its diaries.
"""

from dataclasses import dataclass
from pathlib import Path

from client.worker.diary import DIARY_FILE, Hospitals, read_diary
from csasn.errors import TrustError
from csasn.platform.storage import file_sha256
from csasn.site import Site
from csasn.trust.membership import Membership

FEW = 2  # hospitals that have to differ on a side, or none


@dataclass(frozen=True)
class Difference:
    """Hospitals that are in one of two memberships alone; `before` is the hash of the older one."""

    before: str
    gone: tuple[str, ...]
    joined: tuple[str, ...]

    @property
    def separable(self) -> tuple[str, ...]:
        """Who stands nearly alone in the difference of the sums."""
        return tuple(site for side in (self.gone, self.joined) if len(side) < FEW for site in side)

    @property
    def line(self) -> str:
        """What that means, for people."""
        sides = [f"without {', '.join(self.gone)}"] * bool(self.gone) + [f"with {', '.join(self.joined)}"] * bool(self.joined)
        whose = " and ".join(self.separable)
        alone = len(self.gone) + len(self.joined) == 1
        what = f"are those of {whose}" if alone else f"hold few hospitals beside {whose}"
        return (
            f"this is membership {self.before[:12]}, for which the cases of today were counted, {' and '.join(sides)}: "
            f"whoever has the sums of both has their difference, and the counts in it {what}"
        )


def find_differences(site: Site, membership: Membership) -> list[Difference]:
    """Each earlier membership from which this one would make single hospitals separable."""
    manifest = Path(site.manifest)
    now = file_sha256(manifest) if manifest.exists() else ""
    diaries = [read_diary(path) for path in sorted(site.run_folder.glob(f"*/{DIARY_FILE}"))]
    counted = [diary.hospitals for diary in diaries if diary and diary.hospitals.manifest_sha256 == now]
    return [difference for before in counted if (difference := _compare(before, membership)).separable]


def check_differences(site: Site, membership: Membership, *, accepted: bool) -> None:
    """Refuses a membership that makes a hospital separable, unless people accepted that.

    Raises:
        TrustError: they did not.
    """
    differences = find_differences(site, membership)
    if differences and not accepted:
        names = sorted({name for difference in differences for name in difference.separable})
        raise TrustError(
            f"with this membership the counts of {', '.join(names)} can be told from sums of before",
            "where the hospitals agree to that, approve with --accept-difference",
        )


def _compare(before: Hospitals, membership: Membership) -> Difference:
    gone = tuple(name for name in before.sites if name not in membership.sites)
    joined = tuple(name for name in membership.sites if name not in before.sites)
    return Difference(before.membership_hash, gone, joined)
