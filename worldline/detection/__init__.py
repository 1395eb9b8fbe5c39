"""Vehicles and lane lines in street frames, found by a small network of ours."""

from worldline.detection.network import StreetDetector, detect_vehicles, encoder_features, segment_lanes
from worldline.detection.weights import load_detector, save_detector

__all__ = [
    "StreetDetector",
    "detect_vehicles",
    "encoder_features",
    "load_detector",
    "save_detector",
    "segment_lanes",
]
