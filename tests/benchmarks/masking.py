"""Benchmarks of secure aggregation at 94.7 M parameters: four sites, two threads, 16 bits; each gives {ours, rival, ratio, unit}.

`python masking.py peak` prints the memory figures of one masked upload in a process of its own.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.common.serde import recorddict_to_proto
from numpy.typing import NDArray

from csasn.federated.aggregate import add_integers, apply_step_, largest_moves
from csasn.federated.messages import Answer, Ready, Reply, Step
from csasn.federated.quantise import (
    WEIGHT_UNITS,
    Scale,
    first_ranges,
    integer_type,
    largest_upload,
    next_ranges,
    quantise,
    step_sizes,
)
from csasn.federated.receipt import Head
from csasn.federated.secagg.keys import DIGEST_BYTES, KEY_BYTES, SEED_BYTES, SignedKey
from csasn.federated.secagg.masks import BLOCK_BYTES, CIPHER_BLOCK, Mask, add_masks
from csasn.federated.secagg.sealing import Sealing
from csasn.measures.counts import case_layout
from csasn.model.network import build_network
from csasn.model.segments import Segment
from csasn.model.state import StateLayout
from csasn.platform.randomness import fast_generator
from csasn.recipe import Model
from csasn.study import Federation, Study
from csasn.wire import answer_to_records, attach_head

Line = dict[str, object]
Floats = NDArray[np.float32]
BITS, THREADS, REPEATS = 16, 2, 5
UNITS = (24, 18, 14, 8)  # weights of the four sites in 1/64
LEARNT = 4.4e-3  # root mean square of an update of one epoch of csasn-lite


def segments_94m() -> tuple[Segment, ...]:
    """The tensors of csasn-b2-vitb, of which no value is needed."""
    study = Study(name="bench", classes=tuple("abcdefg"), model=Model(profile="csasn-b2-vitb"), federation=Federation(sites=("s",)))
    with torch.device("meta"):
        return StateLayout.of(build_network(study), "silo").shared


def scale_of(segments: tuple[Segment, ...], ranges: NDArray[np.float64], units: int) -> Scale:
    """How a site of this weight among four writes its update."""
    num = len(UNITS)
    return Scale(segments, step_sizes(ranges, BITS, num), units, largest_upload(BITS, num, units), integer_type(BITS))


def make_update(segments: tuple[Segment, ...], site: int, current: int, tail: str = "laplace") -> Floats:
    """Heavy-tailed moves of weights, part of them common to all sites, of another size in each tensor.

    Those of csasn-lite after an epoch have largest values of 1.5 to 2.4 times their root mean square; these have 10 and more.
    """
    sizes = fast_generator(1, "sizes").lognormal(np.log(LEARNT), 0.25, len(segments))
    result = np.empty(segments[-1].stop, np.float32)
    common, own = fast_generator(1, "common", current), fast_generator(1, "own", site, current)
    draw = {
        "laplace": lambda random, num: random.laplace(size=num) / np.sqrt(2),
        "student-t5": lambda random, num: random.standard_t(5, num) * np.sqrt(3 / 5),
    }[tail]
    for segment, size in zip(segments, sizes, strict=True):
        num = segment.stop - segment.start
        result[segment.start : segment.stop] = size * (0.5 * draw(common, num) + np.sqrt(0.75) * draw(own, num))
    return result


@dataclass(frozen=True)
class Load:
    """One site's update and what it is masked with."""

    update: Floats
    scale: Scale
    masks: tuple[Mask, ...]

    @classmethod
    def of_94m(cls) -> "Load":
        """Of four sites: three masks with peers."""
        segments = segments_94m()
        masks = tuple(Mask(os.urandom(SEED_BYTES), sign) for sign in (1, 1, -1))
        return cls(make_update(segments, 0, 1), scale_of(segments, np.full(len(segments), 0.1), UNITS[0]), masks)

    def quantise(self, update: Floats, residual: Floats) -> NDArray[np.signedinteger]:
        """As a site does; the update is used up."""
        return quantise(update, residual, self.scale, fast_generator(1, "rounding")).integers_P


def raw_streams(num_bytes: int, seeds: tuple[bytes, ...]) -> None:
    """The same keystreams, in the same blocks and threads, and nothing done with them."""

    def part(start: int, stop: int) -> None:
        counter = (start // CIPHER_BLOCK).to_bytes(CIPHER_BLOCK, "big")
        streams = [Cipher(AES(seed), CTR(counter)).encryptor() for seed in seeds]
        zeros, keystream = bytes(BLOCK_BYTES), np.empty(BLOCK_BYTES + CIPHER_BLOCK, np.uint8)
        for place in range(start, stop, BLOCK_BYTES):
            size = min(BLOCK_BYTES, stop - place)
            for stream in streams:
                stream.update_into(zeros[:size] if size < BLOCK_BYTES else zeros, keystream.data)

    share = -(-num_bytes // THREADS // BLOCK_BYTES) * BLOCK_BYTES
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda start: part(start, min(start + share, num_bytes)), range(0, num_bytes, share)))


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def secagg_mask_vs_raw_cipher() -> Line:
    """Seconds to quantise and mask one upload, against quantising and the bare keystreams; in pairs, either first in turn.
    `masks_ratio` is of the masks alone."""
    load = Load.of_94m()
    zeros, seeds = np.zeros_like(load.update), tuple(mask.seed for mask in load.masks)
    upload = load.quantise(load.update.copy(), zeros)

    def ours() -> tuple[float, float]:
        update = load.update.copy()
        first = _timed(lambda: load.quantise(update, zeros))
        return first, _timed(lambda: add_masks(upload, load.masks, THREADS))

    def rival() -> tuple[float, float]:
        update = load.update.copy()
        first = _timed(lambda: load.quantise(update, zeros))
        return first, _timed(lambda: raw_streams(upload.nbytes, seeds))

    ours(), rival()
    pairs = []
    for turn in range(REPEATS):
        one, other = (work() for work in ((rival, ours) if turn % 2 else (ours, rival)))
        pairs.append((other, one) if turn % 2 else (one, other))
    return {
        "ours": statistics.median(sum(mine) for mine, _ in pairs),
        "rival": statistics.median(sum(bare) for _, bare in pairs),
        "ratio": statistics.median(sum(mine) / sum(bare) for mine, bare in pairs),
        "masks_s": statistics.median(mine[1] for mine, _ in pairs),
        "masks_ratio": statistics.median(mine[1] / bare[1] for mine, bare in pairs),
        "unit": "s an upload",
    }


def secagg_extra_peak_vs_upload() -> Line:
    """Peak memory of quantising and masking beyond update and residual, which are held before, against the upload's bytes.
    `residual_kept` is what stays beside the upload until the next round, in the update's place, against the same."""
    done = subprocess.run([sys.executable, __file__, "peak"], check=True, capture_output=True, text=True)
    figures = json.loads(done.stdout)
    upload = figures["upload"]
    return {"ours": figures["extra"], "rival": upload, "ratio": figures["extra"] / upload,
            "residual_kept": figures["residual"] / upload, "unit": "bytes"}  # fmt: skip


def _peak() -> None:
    load = Load.of_94m()
    residual = np.zeros_like(load.update)
    residual[:] = 1e-9  # on real pages
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status_bytes("VmRSS")
    upload = load.quantise(load.update, residual)
    add_masks(upload, load.masks, THREADS)
    figures = {"extra": _status_bytes("VmHWM") - before, "upload": upload.nbytes, "residual": load.update.nbytes}
    sys.stdout.write(json.dumps(figures))


def _status_bytes(key: str) -> int:
    found = re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def secagg_sum_error_16bit() -> Line:
    """Relative error of the summed update of four sites against float64, the worse of two rounds: round 1 with the study's
    ranges, round 2 with those that follow from its step; `student_t5` is round 2 with heavier tails still, of a part
    of the tensors."""
    segments = segments_94m()
    first = first_ranges(segments, np.zeros(segments[-1].stop, np.float32))
    errors, ranges = [], first
    for current in (1, 2):
        error, largest = _round_error(segments, ranges, current, "laplace")
        errors.append(error)
        ranges = next_ranges(largest, ranges)
    some = tuple(segment for segment in segments if segment.stop <= 12_000_000)
    wider = first[: len(some)] * 4  # so that none of its values is clipped
    _, largest = _round_error(some, wider, 1, "student-t5")
    heavier, _ = _round_error(some, next_ranges(largest, wider), 2, "student-t5")
    ours = max(errors)
    return {"ours": ours, "rival": 2e-3, "ratio": ours / 2e-3, "rounds": errors, "student_t5": heavier, "unit": "relative L2"}


def _round_error(
    segments: tuple[Segment, ...], ranges: NDArray[np.float64], current: int, tail: str
) -> tuple[float, NDArray[np.float64]]:
    """The error of one round from residuals of zero, and each tensor's largest move."""
    total, exact = None, np.zeros(segments[-1].stop)
    for site, units in enumerate(UNITS):
        update = make_update(segments, site, current, tail)
        for segment in segments:
            part = slice(segment.start, segment.stop)
            exact[part] += update[part].astype(np.float64) * (units / WEIGHT_UNITS)
        scale = scale_of(segments, ranges, units)
        sent = quantise(update, np.zeros_like(update), scale, fast_generator(1, "rounding", site, current))
        total = add_integers(total, sent.integers_P)
    step = np.zeros(segments[-1].stop, np.float32)
    summed = Step(total, scale.sizes, WEIGHT_UNITS)
    apply_step_(step, summed, segments)
    largest = largest_moves(summed, segments)
    return float(np.linalg.norm(step - exact) / np.linalg.norm(exact)), largest


def secagg_upload_ratio_16bit() -> Line:
    """Bytes of a masked answer as it goes over the wire, against those of a float32 one of FedProx."""
    return _upload_ratio(16)


def secagg_upload_ratio_8bit() -> Line:
    """The same of 8 bits."""
    return _upload_ratio(8)


def _upload_ratio(bits: int) -> Line:
    """All that a site sends in a round, its key included, in Flower's own form; counts of seven classes go with both."""
    num = segments_94m()[-1].stop
    counts = np.zeros(case_layout(7, malignancy=True).size + 5, np.int64)
    ready = Ready(bytes(DIGEST_BYTES), SignedKey(bytes(KEY_BYTES), "0" * 128))
    answer = Answer(counts, np.zeros(num, integer_type(bits)), Sealing(bytes(DIGEST_BYTES), "0" * 128))
    ours = _message_bytes(ready) + _message_bytes(answer)
    weights = RecordDict({"arrays": ArrayRecord({"update": Array(np.zeros(num, np.float32)), "counts": Array(counts)})})
    rival = len(recorddict_to_proto(weights).SerializeToString())
    return {"ours": ours, "rival": rival, "ratio": ours / rival, "unit": "bytes"}


def _message_bytes(reply: Reply) -> int:
    head = Head(count=1, hash="0" * 64, before="0" * 64, sha256="0" * 64, signature="0" * 128)
    return len(recorddict_to_proto(attach_head(answer_to_records(reply), head)).SerializeToString())


if __name__ == "__main__":
    assert sys.argv[1:] == ["peak"]
    _peak()
