"""Makes a process of the product lie, for tests: Python imports this where PYTHONPATH names its folder.

CSASN_TEST_LIE says how; the processes that it does not concern stay honest.
"""

import os
import sys


def worker_sends(kind):
    """A site that sends what the contract does not allow, past its own gate."""
    import numpy as np
    from flwr.app import Array

    from client.worker import outbox
    from csasn import wire

    honest = wire.answer_to_records

    def lie(reply):
        records = honest(reply)
        if wire.ARRAYS in records and wire.UPDATE in records[wire.ARRAYS]:
            size = records[wire.ARRAYS][wire.UPDATE].numpy().size
            wrong = {
                "nan": np.full(size, np.nan, np.float32),
                "shape": np.zeros(size + 1, np.int16),
                "bytes": np.zeros(20 * size, np.int16),
            }[kind]
            records[wire.ARRAYS][wire.UPDATE] = Array(wrong)
        return records

    wire.answer_to_records = lie
    outbox.check_outgoing = lambda *_: None


def coordinator_ships_code(proof):
    """A coordinator whose bundle holds an app that writes a file as soon as it is imported."""
    import io
    import zipfile

    from server.flower import superlink

    honest = superlink._bundle

    def bundle():
        buffer = io.BytesIO(honest())
        with zipfile.ZipFile(buffer, "a") as archive:
            for name in ("client/__init__.py", "client/flower/app.py", "csasn/__init__.py", "sitecustomize.py", "__init__.py"):
                archive.writestr(name, f"open({proof!r}, 'a').write(__file__)\n")
        return buffer.getvalue()

    superlink._bundle = bundle


def coordinator_asks(kind):
    """A coordinator that asks for the training of another study, or sends a tensor that no request has."""
    import numpy as np
    from flwr.app import Array

    from csasn import wire
    from csasn.federated.messages import Kind

    honest = wire.request_to_records

    def lie(request):
        records = honest(request)
        if request.kind is Kind.TRAIN and kind == "study":
            records[wire.HEADER][wire.STUDY_HASH] = "0" * 64
        if request.kind is Kind.TRAIN and kind == "tensor":
            records[wire.ARRAYS]["images"] = Array(np.zeros(1, np.float32))
        return records

    wire.request_to_records = lie


def dies(point, proof):
    """A process that is killed, once, at a point of a masked round; `proof` is the file that says so."""
    import signal
    from contextlib import suppress

    from client.worker import diary, kept
    from server.run import masked_sums, run_directory

    def die():
        with suppress(FileExistsError):
            os.close(os.open(proof, os.O_CREAT | os.O_EXCL))
            os.kill(os.getpid(), signal.SIGKILL)

    def before(honest):
        return lambda *given: (die(), honest(*given))[1]

    def after(honest, matters=lambda *_: True):
        def call(*given):
            result = honest(*given)
            if matters(*given):
                die()
            return result

        return call

    if point == "pending":  # on the site's disk, and not told
        kept.Kept.keep = after(kept.Kept.keep, lambda _, pending, left: left is not None)
    elif point == "left":  # what training left over is on disk, the answer is not
        kept.save_arrays = after(kept.save_arrays, lambda path, *_: path.name.startswith(kept.LEFT))
    elif point == "settled":  # the old answer is gone, the new one is not begun
        kept.Kept.settle = after(kept.Kept.settle, lambda _, accepted: accepted is not None)
    elif point == "diary":  # the answer is noted, and not sent
        diary.Diary.note = after(diary.Diary.note, lambda _, kind, *more: kind == "train")
    elif point == "ready":  # all sites are, and none was asked for its answer
        masked_sums.MaskedSums._collect = before(masked_sums.MaskedSums._collect)
    elif point == "answers":  # which have come
        masked_sums.MaskedSums._checked = before(masked_sums.MaskedSums._checked)
    elif point == "before":  # kept, and the model not moved
        run_directory.RunDirectory.keep_before = after(run_directory.RunDirectory.keep_before)
    elif point == "checkpoint":  # of the round
        run_directory.RunDirectory.save = after(run_directory.RunDirectory.save, lambda _, state: state.round > 0)


def is_process(module, what):
    return {module, what} <= set(sys.orig_argv)


lie, _, about = os.environ.get("CSASN_TEST_LIE", "").partition(":")
if lie == "version":
    import csasn

    csasn.__version__ = about
elif lie == "send" and is_process("client.service.processes", "worker"):
    worker_sends(about)
elif lie == "ship" and is_process("server.office.processes", "run"):
    coordinator_ships_code(about)
elif lie == "die" and (is_process("client.service.processes", "worker") or is_process("server.office.processes", "run")):
    dies(*about.split(":"))
elif lie == "ask" and is_process("server.office.processes", "run"):
    coordinator_asks(about)
