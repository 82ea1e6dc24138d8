"""Whose sums become separable by a membership: sums over two memberships that differ by one hospital differ by that hospital's.

Masks cannot hide this, and no rounding cures it: so people are told before they approve. A site knows of the memberships for which
it answered a hello or a survey on the manifest of today, by its diaries.
"""

from pathlib import Path

from client.worker.diary import DIARY_FILE, read_diary
from csasn.errors import TrustError
from csasn.platform.storage import file_sha256
from csasn.site import Site
from csasn.trust.membership import Difference, Membership


def find_differences(site: Site, membership: Membership) -> dict[str, Difference]:
    """The differences by which this membership would make single hospitals separable, by the hash of the earlier one."""
    manifest = Path(site.manifest)
    now = file_sha256(manifest) if manifest.exists() else ""
    diaries = [read_diary(path) for folder in site.run_folders for path in sorted(folder.glob(f"*/{DIARY_FILE}"))]
    counted = [diary.hospitals for diary in diaries if diary and diary.hospitals.manifest_sha256 == now]
    differences = {before.membership_hash: Difference.between(before.sites, membership.sites) for before in counted}
    return {earlier: difference for earlier, difference in differences.items() if difference.separable}


def describe_difference(earlier: str, difference: Difference) -> str:
    """What it means that the cases of today were counted for the membership of the hash `earlier` too."""
    whose = " and ".join(difference.separable)
    alone = len(difference.gone) + len(difference.joined) == 1
    what = f"are those of {whose}" if alone else f"hold few hospitals beside {whose}"
    return (
        f"this is membership {earlier[:12]}, for which the cases of today were counted, {difference}: "
        f"whoever has the sums of both has their difference, and the counts in it {what}"
    )


def check_differences(site: Site, membership: Membership, *, accepted: bool) -> None:
    """Refuses a membership that makes a hospital separable, unless people accepted that.

    Raises:
        TrustError: they did not.
    """
    differences = find_differences(site, membership)
    if differences and not accepted:
        names = sorted({name for difference in differences.values() for name in difference.separable})
        raise TrustError(
            f"with this membership the counts of {', '.join(names)} can be told from sums of before",
            "where the hospitals agree to that, approve with --accept-difference",
        )
