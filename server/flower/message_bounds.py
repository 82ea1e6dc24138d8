"""How large the largest message of a study is: what a node may have on its way, and hold at SuperLink, follows from it.

The largest is the whole model in float32, either way, with the envelope and a quarter more. The bytes of weights are in
the profile, so that the front and SuperLink need no torch; a test compares them with the networks.
"""

from csasn.model.profiles import profile_of
from csasn.study import Federation, Study

MIB = 1 << 20
ENVELOPE_BYTES = 16 * MIB
MESSAGES_HELD = 2  # replies of one node that SuperLink keeps at once: this exchange's, and a late one to the exchange before


def message_bytes(study: Study) -> int:
    """The most that a message of a study may have; an objective other than the usual may have a control for each weight."""
    usual = study.federation.local_objective == Federation.model_fields["local_objective"].default
    return (1 if usual else 2) * profile_of(study.model).weights_bytes * 5 // 4 + ENVELOPE_BYTES
