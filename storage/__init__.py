"""The bytes: images in zarr, rows in Parquet, and the ledger that says what is done.

Nothing here knows of Prefect or torch.
"""
