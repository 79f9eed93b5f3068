"""Speed and memory, measured in pairs within one run."""
