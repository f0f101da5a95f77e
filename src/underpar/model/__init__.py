"""The model: one forward for training, evaluation, calibration and adaptation."""
