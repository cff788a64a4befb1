"""What only the user can mend."""


class UserError(Exception):
    """Something only the user can mend. The message is one sentence: what is wrong, where, and what to do."""
