"""Adaptation: a frozen tower and a few scans of your own become a checkpoint of the bundle."""

from bundle.ctfindings.adaptation.adapt import Adaptation
from bundle.ctfindings.adaptation.encoded_studies import EncodedStudies
from bundle.ctfindings.adaptation.frozen_tower import FrozenLevelsd
from bundle.ctfindings.adaptation.head_training import HeadTraining

__all__ = ["Adaptation", "EncodedStudies", "FrozenLevelsd", "HeadTraining"]
