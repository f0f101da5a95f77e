"""The probes: what goes into a predictor, what comes out, and what that can and cannot rule out."""
