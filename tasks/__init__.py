"""The Prefect edge: run a stage through the catalog."""
