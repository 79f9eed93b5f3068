"""Diffusion models as priors of images: noise schedules and samplers."""
