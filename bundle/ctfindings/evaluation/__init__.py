"""Evaluation of a checkpoint on a datalist, in sections. Configs name the components by their full path."""
