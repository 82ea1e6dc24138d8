"""Flower records <-> the dataclasses of csasn.federated.messages: keys, requests, answers, the values in them, and their payload.

Whatever does not read as exactly one of our messages is a ProtocolError: missing or unknown record, key, type or shape.
"""

from flwr.app import RecordDict as Records

from csasn.wire.answers import (
    answer_from_records,
    answer_to_records,
    attach_head,
    head_from_records,
    place_from_records,
    place_to_records,
)
from csasn.wire.keys import ARRAYS, HEADER, MESSAGE_TYPES, NO_LEDGER, PLACE_MESSAGE, STUDY_HASH, UPDATE
from csasn.wire.requests import request_from_message, request_to_records, study_of_message
from csasn.wire.values import size_bytes

__all__ = [
    "ARRAYS",
    "HEADER",
    "MESSAGE_TYPES",
    "NO_LEDGER",
    "PLACE_MESSAGE",
    "STUDY_HASH",
    "UPDATE",
    "Records",
    "answer_from_records",
    "answer_to_records",
    "attach_head",
    "head_from_records",
    "place_from_records",
    "place_to_records",
    "request_from_message",
    "request_to_records",
    "size_bytes",
    "study_of_message",
]
