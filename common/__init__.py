"""What the bundles share: networks, losses, data, metrics and reports for lesion segmentation with MONAI."""

__version__ = "0.1.0"
