"""A run: its engine, the records and the end of its cases, and the merge of several runs."""
