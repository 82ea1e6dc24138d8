"""client/trust/prose.py: what another wrote is shown, and ends no line."""

from client.trust.audit import AuditReport


def test_words_of_others_end_no_line_and_act_on_no_terminal():
    report = AuditReport(
        site="centerA", num_lines=2, head="", cut_lines=0, restored={2: "lost\n  all is well\u2028\x1b[2K"}, receipts=None, lost=(),
        signatures_checked=False, unreadable_receipts=0, runs=(), withdrawals=(),
    )  # fmt: skip
    lines = report.lines()
    assert len(lines) == 3
    assert lines[1].endswith("or lost: lost?  all is well??[2K")
