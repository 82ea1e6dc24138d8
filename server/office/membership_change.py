"""What a change of the membership ends and what follows, in words for the coordinator, before it is made."""

from csasn.trust.membership import Difference, Membership
from server.office.study_folder import StudyFolder


def describe_change(study_folder: StudyFolder, after: Membership | None) -> list[str]:
    """What happens to the run that is under way if `after` is proposed, None if too few are left; nothing where none is, or it goes
    on with the same membership."""
    before = study_folder.running_membership()
    if before is None or (after and after.membership_hash == before.membership_hash):
        return []
    facts = study_folder.facts()
    rounds = f"after round {facts.round} of {facts.num_rounds}" if facts.num_rounds else "before the survey's count"
    lines = [f"this ends the membership of {', '.join(before.sites)}, and the run stands still from now on, {rounds}"]
    if after is None:
        return [*lines, "fewer sites are left than the study needs: it stands still until others enrol"]
    lines.append(f"nothing that was trained is lost: it goes on from there once {', '.join(after.sites)} all ran client approve")
    if alone := Difference.between(before.sites, after.sites).separable:
        lines.append(f"whoever has the sums of before and after has their difference, in which {' and '.join(alone)} stands alone")
    return lines
