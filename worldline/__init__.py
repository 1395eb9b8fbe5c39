"""The numerical library: cameras, Gaussians, motion models, worlds, media and metrics, as pure functions on arrays."""
