"""Flows and the command line."""

import tasks  # noqa: F401  (sets Prefect's environment before any flow imports prefect)
