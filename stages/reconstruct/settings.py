"""The settings that every fit has, whatever moves its Gaussians."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How Gaussians are fitted to views.

    Attributes:
        steps: optimisation steps.
        batch: views per step, at different times; the gradient is their mean.
        final_place_rate: share of the step size of places that is left at the last step. A drive, which begins on triangulated
            points and ends long before it has settled, wants more of it than a small world from a random start.
        resolutions: how many resolutions the fit climbs through, each twice the last.
        primitive: "gaussian", or "surfel" for flat ones with normals (two trained scales).
        harmonics: degree of the spherical harmonics of the colours; 0 for colours that are the same from all sides.
        growth: "relocation" keeps the number of Gaussians and moves those that do little; "densification" copies and splits
            where the images pull, and drops what is transparent; "none" leaves them where they are.
        grow_every: steps between two growths.
        grow_until: share of the steps after which nothing grows any more.
        relocate_share: of the Gaussians, those that cover least, that each relocation moves to where they are needed.
        densify_gradient: mean pull on a Gaussian's place in the image, in half images, above which it is copied or split.
        gaussians_limit: no densification goes beyond so many.
        ssim_weight: weight of D-SSIM against L1.
        opacity_weight: price of opacity, which frees Gaussians that are not needed.
        motion_weight: price of motion that is not straight, of turning and of changing colour (Gaussian-Flow).
        rigidity_weight: price of neighbours that do not move as one body, in squared lengths of the fit.
        smoothness_weight: price of places that change within a hundredth of the clip, in lengths of the fit.
        depth_weight: price of relative errors of depth, where the views know it.
        mask_weight: price of moving objects that are drawn outside the labelled regions, or not inside them; needs instances.
        sky_weight: price of opacity before the sky, where the views know it.
        normal_weight: price of surfels whose normals are not those of the surface that they form.
        distortion_weight: price of surfels that share a pixel but not a depth, in lengths of the fit.
        ignore_labelled: whether pixels on labelled regions count as fitted, so that nothing is learnt from them.
        patience: evaluations on held-out views without a better PSNR after which the fit stops, and returns its best
            state; 0 takes all steps and returns the last, which is what the falling rates are made for.
        evaluate_every: steps between these evaluations.
        checkpoint_every: steps between checkpoints.
    """

    steps: Annotated[int, Field(ge=1)] = 1500
    batch: Annotated[int, Field(ge=1)] = 1
    final_place_rate: Annotated[float, Field(gt=0, le=1)] = 0.03
    resolutions: Annotated[int, Field(ge=1)] = 2
    primitive: Literal["gaussian", "surfel"] = "gaussian"
    harmonics: Annotated[int, Field(ge=0, le=3)] = 0
    growth: Literal["relocation", "densification", "none"] = "relocation"
    grow_every: Annotated[int, Field(ge=1)] = 50
    grow_until: Annotated[float, Field(ge=0, le=1)] = 0.85
    relocate_share: Annotated[float, Field(ge=0, le=1)] = 0.04
    densify_gradient: NonNegativeFloat = 2e-4
    gaussians_limit: Annotated[int, Field(ge=1)] = 100_000
    ssim_weight: Annotated[float, Field(ge=0, le=1)] = 0.2
    opacity_weight: NonNegativeFloat = 2e-3
    motion_weight: NonNegativeFloat = 1e-4
    rigidity_weight: NonNegativeFloat = 0.0
    smoothness_weight: NonNegativeFloat = 0.0
    depth_weight: NonNegativeFloat = 0.0
    mask_weight: NonNegativeFloat = 0.0
    sky_weight: NonNegativeFloat = 0.0
    normal_weight: NonNegativeFloat = 0.05
    distortion_weight: NonNegativeFloat = 0.0
    ignore_labelled: bool = False
    patience: NonNegativeInt = 0
    evaluate_every: Annotated[int, Field(ge=1)] = 100
    checkpoint_every: Annotated[int, Field(ge=1)] = 200
