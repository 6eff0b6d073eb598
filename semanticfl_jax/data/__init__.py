"""Image sources, partitions into clients, on-device federated data and augmentation."""
