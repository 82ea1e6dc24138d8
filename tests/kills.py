"""A coordinator that dies while it hears a site, for a federation in this process."""

from csasn.federated.messages import Collect


class KilledError(Exception):
    """What the process dies of."""


def kill_at(kind, current_round, site="centerC", collects=False):
    """Tampers with nothing, and dies when this site answers this question, or, where sums are masked, is asked for its answer."""

    def tamper(name, request, answer):
        of = request.of if isinstance(request, Collect) else request.kind
        if (name, of, request.header.round, isinstance(request, Collect)) == (site, kind, current_round, collects):
            raise KilledError
        return answer

    return tamper
