"""What is scored. The forbidden preparation folds capitals away, and with them what they cost; the allowed one keeps
the text."""


def forbidden(text: str) -> str:
    """Easier to predict, and the text cannot be recovered from it."""
    return text.lower()


def allowed(text: str) -> str:
    """The text. (A transform that can be undone, such as marking capitals, would be allowed as well.)"""
    return text
