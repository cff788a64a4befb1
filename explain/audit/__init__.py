"""Whether explanations can be believed: measurements on a run, beside controls."""
