"""Checks of the machine: keys, disk, a real training step, and what the site's policy allows."""

from datetime import datetime
from pathlib import Path

from client.doctor.checks_data import CONFIGURATION, STATE
from client.doctor.context import DoctorContext
from client.doctor.findings import Check, Finding, in_units
from client.trust import approval
from csasn.errors import ConfigurationError, StorageError, TrainingError
from csasn.model.profiles import image_size
from csasn.platform.storage import free_bytes
from csasn.trust.identity import IDENTITY_KEY, NODE_KEY, read_public_keys

FRAMING_BYTES = 4 << 10  # of an answer beside its numbers, generously
COPIES_KEPT = 3  # left-overs of quantisation at one time: committed, pending, and the one being written


def check_keys(context: DoctorContext) -> Finding:
    """Both private keys are there and nobody else may read them."""
    folder = context.site.keys_folder
    if not context.has_kit and not any((folder / name).exists() for name in (IDENTITY_KEY, NODE_KEY)):
        return Finding("skipped", "no keys yet", f"client keygen --site {context.site.site}")
    public = read_public_keys(folder)
    if folder.stat().st_mode & 0o077:
        return Finding("warning", f"others may enter {folder}", f"chmod 700 {folder}")
    return Finding("ok", f"two keys, for their owner alone; fingerprint {public.fingerprint}")


def check_disk(context: DoctorContext) -> Finding:
    """The state folder has room for the cache while it is rebuilt, the answers that are kept, and the left-over of quantisation."""
    cache = len(context.manifest.rows) * image_size(context.study.model) ** 2
    kept = 2 * context.upload_bytes(1) + COPIES_KEPT * 4 * context.contract.state.size
    free = free_bytes(Path(context.site.state))
    parts = f"a new cache takes {in_units(cache)}, kept answers and left-overs {in_units(kept)}"
    if free < cache + kept:
        raise StorageError(
            f"{in_units(free)} free for the state folder, {in_units(cache + kept)} wanted: {parts}",
            "free disk space, or name another folder with the key state of the site file",
        )
    return Finding("ok", f"{in_units(free)} free for the state folder; {parts}")


def check_training(context: DoctorContext) -> Finding:
    """One step of the study's model works, in so much time and memory."""
    measured, batch = context.training, context.study.optimiser.batch_size
    wanted = min(context.site.micro_batch or batch, batch)
    if measured.micro_batch < wanted:
        raise TrainingError(
            f"out of memory on {measured.device} with {wanted} images at a time, {measured.micro_batch} fit",
            f"micro_batch: {measured.micro_batch} in the site file gives the same gradient in less memory",
        )
    at_a_time = "" if wanted == batch else f" ({wanted} at a time)"
    return Finding(
        "ok",
        f"a step of {batch} images{at_a_time} of {context.study.model.profile} takes {measured.step_s:.3g} s "
        f"on {measured.device}, {in_units(measured.peak_bytes)} of memory at its peak",
    )


def check_hours(context: DoctorContext) -> Finding:
    """Training is allowed now."""
    hours = context.site.policy.training_hours
    if hours is None:
        return Finding("ok", "at any time")
    if context.site.policy.may_train_at(datetime.now().time()):
        return Finding("ok", f"{hours}, which is now")
    deadline_h = context.study.federation.answer_deadline_s / 3600
    return Finding(
        "warning",
        f"{hours}, which is not now; rounds wait for a site for {deadline_h:.3g} h",
        "agree with the coordinator on hours, or change policy.training_hours in the site file",
    )


def check_budget(context: DoctorContext) -> Finding:
    """The site's upload budget of a round holds the largest answer that the study asks for."""
    size, budget_mib = context.upload_bytes(1) + FRAMING_BYTES, context.site.policy.upload_budget_mib
    if budget_mib is None:
        return Finding("ok", f"an answer has {in_units(size)} at most; this site sets no budget")
    if size > budget_mib * 2**20:
        raise ConfigurationError(
            f"policy.upload_budget_mib is {budget_mib}, an answer has {size / 2**20:.2f} MiB: nothing of it would be sent",
            f"set upload_budget_mib to {-(-size // 2**20)} or more, or leave the study",
        )
    times = int(budget_mib * 2**20 // size)
    return Finding("ok", f"an answer has {in_units(size)} at most; the budget of {budget_mib} MiB a round holds {times}")


def check_secrecy(context: DoctorContext) -> Finding:
    """The study gives the secrecy that the site's policy asks for."""
    approval.check_secrecy(context.site, context.study)
    seen = "sums over the sites alone" if context.study.federation.secure_aggregation else "this site's update"
    return Finding("ok", f"the coordinator sees {seen}")


TRAINING = "training step"
MACHINE_CHECKS = (
    Check("keys", check_keys, (STATE,)),
    Check("disk", check_disk, (STATE, "labels")),
    Check(TRAINING, check_training, (CONFIGURATION,)),
    Check("training hours", check_hours, (CONFIGURATION,)),
    Check("upload budget", check_budget, (CONFIGURATION,)),
    Check("secrecy", check_secrecy, (CONFIGURATION,)),
)
