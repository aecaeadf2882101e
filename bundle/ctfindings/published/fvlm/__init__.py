"""fVLM: image encoder and tensor names."""
