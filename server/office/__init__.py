"""The coordinator's service: studies, enrolment, status, and the processes that it keeps running."""
