"""Content-addressed objects, execution records, dataset versions and the questions one can ask of them."""
