"""What makes updates smaller before they travel, one file each."""
