"""What a study leaves: documents, tables of numbers, verdicts and figures."""
