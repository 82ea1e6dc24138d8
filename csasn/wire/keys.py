"""Every key and record name of a message."""

from csasn.federated.messages import Kind

MESSAGE_TYPES = {
    Kind.HELLO: "query.hello",
    Kind.SURVEY: "query.survey",
    Kind.MEASURE: "query.measure",
    Kind.TRAIN: "train",
    Kind.VALIDATE: "evaluate.validate",
    Kind.FINISH: "evaluate.finish",
    Kind.COLLECT: "query.collect",
}
PLACE_MESSAGE = "query.place"  # in Flower's simulation alone: where in the roster does a node stand?

NO_LEDGER = 100  # code of Flower's error message, all that leaves a site that cannot write its ledger

HEADER, ARRAYS, ABSENCE, LEDGER = "header", "arrays", "absence", "ledger"
VERSION, STUDY_HASH, MEMBERSHIP_HASH, NUMBER = "version", "study-hash", "membership-hash", "number"
ROUND, RUN, ATTEMPT = "round", "run", "attempt"
STATE_HASH, ARRIVED_UNITS, ACCEPTED = "state-hash", "arrived-units", "accepted"
WHOLE, STEP_SUM, STEP_SIZES, MOMENTS = "whole-state", "step-sum", "step-sizes", "moments"
OMEGA, HISTOGRAM, HISTORY, RANGES = "class-weights", "class-histogram", "class-history", "ranges"
TEMPERATURE = "temperature"
OF, TRANSCRIPT, KEYS, KEY_SIGNATURES = "of", "transcript", "keys", "key-signatures"
SEALING, READY = "sealing", "ready"  # records of an answer
PUBLIC, VIEW, AT = "public", "view", "at"
UPDATE, COUNTS = "update", "counts"
REASON = "reason"
LEDGER_CHAIN, LEDGER_COUNT, LEDGER_HASH, LEDGER_BEFORE = "ledger-chain", "ledger-count", "ledger-hash", "ledger-before"
PAYLOAD_SHA256, SIGNATURE = "payload-sha256", "signature"
PLACE = "place"

MAX_VALUE = 200  # characters of a value of the ledger record
