"""What a site agrees to and can prove: enrolment, approvals, the coordinator's identity, the audit of its ledger."""
