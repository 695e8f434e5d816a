"""Plain models that a conversation model has to beat."""
