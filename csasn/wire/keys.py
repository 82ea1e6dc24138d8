"""Every key and record name of a message."""

from csasn.federated.messages import Kind

MESSAGE_TYPES = {
    Kind.KEYS: "query.keys",
    Kind.HELLO: "query.hello",
    Kind.TRAIN: "train",
    Kind.VALIDATE: "evaluate.validate",
    Kind.FINISH: "evaluate.finish",
    Kind.CONFIRM: "query.confirm",
    Kind.UNMASK: "query.unmask",
}
PLACE_MESSAGE = "query.place"  # in Flower's simulation alone: where in the roster does a node stand?

NO_LEDGER = 100  # code of Flower's error message, all that leaves a site that cannot write its ledger

HEADER, ARRAYS, ABSENCE, LEDGER = "header", "arrays", "absence", "ledger"
STUDY_HASH, MEMBERSHIP_HASH, RUN, ROUND, ATTEMPT = "study-hash", "membership-hash", "run", "round", "attempt"
STATE_HASH, ARRIVED_UNITS = "state-hash", "arrived-units"
ACCEPTED_ATTEMPT, ACCEPTED_SITES = "accepted-attempt", "accepted-sites"
WHOLE, STEP_SUM, STEP_SIZES = "whole-state", "step-sum", "step-sizes"
OMEGA, HISTOGRAM, HISTORY, RANGES = "class-weights", "class-histogram", "class-history", "ranges"
EPOCH, KEYS, KEY_SIGNATURES = "epoch", "keys", "key-signatures"
SURVIVORS, WITNESSES, WITNESS_SIGNATURES = "survivors", "witnesses", "witness-signatures"
CONFIRMED, CONFIRMATIONS, BLOBS = "confirmed", "confirmations", "blobs"
HEADER_KEYS = {
    *(STUDY_HASH, MEMBERSHIP_HASH, RUN, ROUND, ATTEMPT, STATE_HASH, ARRIVED_UNITS, ACCEPTED_ATTEMPT, ACCEPTED_SITES),
    *(STEP_SIZES, OMEGA, HISTOGRAM, HISTORY, RANGES, EPOCH, KEYS, KEY_SIGNATURES),
    *(SURVIVORS, WITNESSES, WITNESS_SIGNATURES, CONFIRMED, CONFIRMATIONS, BLOBS),
}
SEALING, KEY, CONFIRMATION, SHARES = "sealing", "key", "confirmation", "shares"  # records of an answer
SECRET_HASHES, PUBLIC, PIECES = "secret-hashes", "public", "pieces"
UPDATE, COUNTS = "update", "counts"
REASON, TEXT = "reason", "text"
LEDGER_COUNT, LEDGER_HASH, LEDGER_BEFORE = "ledger-count", "ledger-hash", "ledger-before"
PAYLOAD_SHA256, SIGNATURE = "payload-sha256", "signature"
PLACE = "place"

MAX_TEXT = 500  # characters of an absence
MAX_VALUE = 200  # characters of a value of the ledger record
