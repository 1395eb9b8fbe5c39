"""The bench `reconstruct`: 4D scenes beside a static one and one per frame, streets, surfels, and the files they are kept in."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import Case, Figure, measured_by

_MODELS = ("gaussian_flow", "native_4d")


def _world(scene: str, protocol: str, *more: str, informs: bool = False) -> Case:
    """Return the case of a small world filmed one way; one that only informs takes one seed."""
    kinds = ("dynamic_gain_over_static_db", "heldout_time_gain_over_per_frame_db", "heldout_time_dynamic_gain_over_per_frame_db",
             "psnr_db", "seconds")  # fmt: skip
    ids = tuple(f"reconstruct.{scene}.{protocol}.{model}.{kind}" for model in _MODELS for kind in kinds)

    def measure(folder: Path, quick: bool) -> Sequence[Figure]:
        from benchmarks.reconstruct_fits import measure

        return measure(scene, protocol, quick or informs)

    return Case(f"{scene}.{protocol}", (*ids, *more), measure, limit_s=7200.0)


CASES = (
    _world("bounce", "multi", "reconstruct.bounce.velocity_angle_deg", "reconstruct.bounce.velocity_ratio"),
    _world("bounce", "mono"),
    _world("appear", "multi", "reconstruct.appear.native_4d_over_gaussian_flow_db"),
    _world("appear", "mono", "reconstruct.appear.mono.native_4d_over_gaussian_flow_db"),
    _world("arm", "multi", informs=True),
    _world("pulse", "multi", informs=True),
    Case("streets", tuple(f"reconstruct.street.{model}.{kind}"
                          for model in ("static", *_MODELS, "periodic_vibration", "rigid_agents")
                          for kind in ("psnr_db", "dynamic_psnr_db", "seconds")),
         measured_by("reconstruct_streets", "measure"), limit_s=7200.0),
    Case("surfels", tuple(f"reconstruct.arm.{method}.normal_error_deg"
                          for method in ("surfels", "surfels_without_normal_loss", "gaussians")),
         measured_by("reconstruct_surfels", "measure_arm"), limit_s=7200.0),
    Case("formats", ("formats.worst_lossless_drop_db",), measured_by("reconstruct_formats", "measure_formats")),
)  # fmt: skip
