"""`baselines.yaml` as typed values: schema, loading with line numbers, relations."""
