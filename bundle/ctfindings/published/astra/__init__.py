"""Merlin and Astra (Stanford MIMI; Wang et al.): image encoders under the MIT licence, for heads of one's own."""
