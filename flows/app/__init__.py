"""The app: one picture at a time, or any stored run, in a window. Prefect is not imported here."""
