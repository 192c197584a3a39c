"""The network: arrays in, arrays out. It knows no data."""
