"""The MONAI Label app of CT Findings. The models and the reading of scans are the bundle's; here they meet HTTP."""
