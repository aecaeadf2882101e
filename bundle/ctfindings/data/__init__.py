"""From a study record to tensors: datalist, transforms, cache, loaders and batches."""
