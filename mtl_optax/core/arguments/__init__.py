"""What a user hands over: checked, and brought into one form."""
