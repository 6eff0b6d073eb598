"""Devices, processes and memory: what runs on what."""
