"""The science of image-defender: attacks, detectors, purifiers and metrics on tensors.

Every algorithm is a frozen dataclass whose fields are its parameters and whose call takes the
data. Nothing here reads or writes files or knows how work is scheduled; the contracts are in
:mod:`defender.types`.
"""
