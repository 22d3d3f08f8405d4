"""Weights from elsewhere: the catalogue of published models, readers and writers of formats."""
