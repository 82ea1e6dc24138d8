"""Checks of what came from the coordinator and of the way to it: kit, TLS, clock, versions, approvals, bandwidth."""

from datetime import UTC, datetime

from client.doctor.checks_data import STATE, num_training_units
from client.doctor.checks_machine import TRAINING
from client.doctor.context import DoctorContext
from client.doctor.findings import Check, Finding, in_units, judge
from client.trust.approval import APPROVAL, read_approved
from client.trust.coordinator_link import check_same_version, check_study, coordinator_address
from csasn import __version__
from csasn.errors import TrainingError, TrustError
from csasn.learning.training import num_epoch_steps
from csasn.platform.plain_text import in_time
from csasn.trust.certificates import days_left
from csasn.trust.enrolment import AUTHORITY
from csasn.trust.facts import EXPIRES_SOON_DAYS, MAX_CLOCK_ERROR_S

CLOCK_WARNING_S = 30.0
LONG_SHARE = 0.5  # of a round's deadline


def check_kit(context: DoctorContext) -> Finding:
    """The kit is whole, of this site and this study, and its authority still stands."""
    site = context.site
    if not context.has_kit:
        return Finding("skipped", "no kit yet", f"client install --site {site.site} KIT")
    kit = context.kit
    if kit.site != site.site:
        raise TrustError(f"the kit is of {kit.site}, expected {site.site}", "install your own: client install")
    if context.study.study_hash != kit.study_hash:
        raise TrustError(
            f"the study file is {context.study.study_hash[:12]}, the kit is of {kit.study_hash[:12]}",
            "leave --study away to check the kit's; if the other is right, ask the coordinator for a new kit",
        )
    days = days_left((site.kit_folder / AUTHORITY).read_bytes())
    if days < 0:
        raise TrustError("the kit's authority has ended", "the coordinator begins anew with server init, and sends new kits")
    return _until(f"study {kit.study_hash[:12]}; its authority has {days} days left", days, "ask the coordinator for a new kit")


def check_connection(context: DoctorContext) -> Finding:
    """Name, way, proxy and TLS: the coordinator of the kit answers."""
    address, proxy = coordinator_address(context.site, context.kit), context.site.proxy
    protocol = context.handshake.protocol
    way = f"through the proxy {proxy}" if proxy else "directly"
    if context.kit.behind_balancer:
        protocol += " of a balancer, which sees what client approve says"
    return Finding("ok", f"{address} answers {way} over {protocol}, and is the coordinator of the kit")


def check_certificate(context: DoctorContext) -> Finding:
    """The server's certificate, as TLS showed it, does not end soon."""
    days = (context.handshake.certificate_ends - datetime.now(UTC)).days
    if context.kit.behind_balancer:
        return _until(f"the balancer's has {days} days left", days, "remind the coordinator: who runs the balancer renews it")
    return _until(f"the coordinator's has {days} days left", days, "remind the coordinator: server renew")


def check_clock(context: DoctorContext) -> Finding:
    """This machine's clock agrees with the coordinator's."""
    handshake = context.handshake
    ahead_s = (handshake.heard - handshake.hello.time).total_seconds()
    message = f"{abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} the coordinator's"
    fix = "set this machine's clock by NTP (timedatectl set-ntp true); if it is right, the coordinator's is wrong"
    if abs(ahead_s) > MAX_CLOCK_ERROR_S:
        raise TrustError(f"{message}; it refuses what is signed 300 s away from its own", fix)
    return judge("", {message: fix}) if abs(ahead_s) > CLOCK_WARNING_S else Finding("ok", message)


def check_enrolment(context: DoctorContext) -> Finding:
    """The coordinator knows this site's key."""
    phase = context.facts.phase
    return Finding("ok", f"the coordinator knows the key of {context.site.site}; the study is {phase}")


def check_study_hash(context: DoctorContext) -> Finding:
    """The coordinator runs the study of the kit."""
    check_study(context.facts, context.kit)
    return Finding("ok", f"the coordinator runs {context.facts.study_name} ({context.facts.study_hash[:12]}), as the kit says")


def check_version(context: DoctorContext) -> Finding:
    """Site and coordinator run the same version."""
    check_same_version(context.handshake.hello)
    return Finding("ok", f"{__version__}, as at the coordinator")


def check_approvals(context: DoctorContext) -> Finding:
    """This site approved what the coordinator proposes; who else has not yet."""
    site, proposed = context.site, context.facts.membership
    if proposed is None:
        return Finding("skipped", "no membership is proposed yet", "wait until every site has enrolled")
    if not (site.kit_folder / APPROVAL).exists():
        return Finding("skipped", f"{site.site} has not approved yet", f"next: client approve --site {site.site}")
    _, membership, _ = read_approved(site)
    if membership.membership_hash != proposed.membership_hash:
        raise TrustError(
            f"the coordinator proposes membership {proposed.membership_hash[:12]}, "
            f"this site approved {membership.membership_hash[:12]}",
            f"read it and sign it: client approve --site {site.site}",
        )
    approved = {approval.site for approval in context.facts.approvals} | {site.site}
    missing = ", ".join(name for name in membership.sites if name not in approved)
    message = f"{site.site} approved membership {membership.membership_hash[:12]}"
    return judge(message, {f"{missing} did not yet": "nothing to do here: they run client approve"} if missing else {})


def check_bandwidth(context: DoctorContext) -> Finding:
    """How fast the link is, both ways."""
    link = context.link
    return Finding("ok", f"{_rate(link.up)} up, {_rate(link.down)} down")


def check_round(context: DoctorContext) -> Finding:
    """How long a round takes this site, by what was measured; evaluation comes on top."""
    study, link = context.study, context.link
    steps = num_epoch_steps(num_training_units(context), study.optimiser.batch_size) * study.federation.local_epochs
    down, up = context.download_bytes(2), context.upload_bytes(2)
    training_s = steps * context.training.step_s
    total_s = down / link.down + training_s + up / link.up
    parts = (
        f"{in_time(total_s)}: download {in_units(down)} {in_time(down / link.down)}, {steps} steps {in_time(training_s)}, "
        f"upload {in_units(up)} {in_time(up / link.up)}; the first round downloads {in_units(context.download_bytes(1))}"
    )
    proposed, site = context.facts.membership, context.site.site
    longer = proposed.longer(site) if proposed and proposed.member(site) else 1.0
    deadline_s = study.federation.answer_deadline_s * longer
    fix = "a faster link or GPU, or ask the coordinator for a longer answer_deadline_s or 8 upload_bits"
    if total_s > deadline_s:
        raise TrainingError(f"{parts}; the deadline is {in_time(deadline_s)}", fix)
    return judge(parts, {f"the deadline is {in_time(deadline_s)}": fix} if total_s > LONG_SHARE * deadline_s else {})


def _until(message: str, days: int, fix: str) -> Finding:
    return Finding("warning", message, fix) if days < EXPIRES_SOON_DAYS else Finding("ok", message)


def _rate(bytes_a_second: float) -> str:
    return f"{bytes_a_second * 8 / 1e6:.3g} Mbit/s"


CONNECTION, ENROLMENT, BANDWIDTH = "connection", "enrolment", "bandwidth"
NETWORK_CHECKS = (
    Check("kit", check_kit, (STATE,)),
    Check(CONNECTION, check_connection, ("kit",)),
    Check("certificate", check_certificate, (CONNECTION,)),
    Check("clock", check_clock, (CONNECTION,)),
    Check("version", check_version, (CONNECTION,)),
    Check(ENROLMENT, check_enrolment, (CONNECTION, "keys", "clock")),
    Check("study", check_study_hash, (ENROLMENT,)),
    Check("approvals", check_approvals, (ENROLMENT, "secrecy")),
    Check(BANDWIDTH, check_bandwidth, (ENROLMENT,)),
)
ROUND_CHECKS = (Check("round", check_round, ("images", TRAINING, BANDWIDTH)),)  # of all three groups
