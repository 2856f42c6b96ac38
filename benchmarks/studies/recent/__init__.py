"""Methods of 2022 to 2026: what their papers claim, and what they do here."""
