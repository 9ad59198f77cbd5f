"""The products of a model: rates, values and ignore masks, and their held-out images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from snl.decision import edit
from snl.decision.calibration import Calibration
from snl.errors import SettingsError
from snl.service import masks
from snl.service.api import schemas
from snl.service.api import settings_schemas as shown
from snl.service.api.context import Admin, Context, Here, Reader
from snl.service.held_out import held_out
from snl.service.store import NotThereError

routes = APIRouter(tags=["products"])

Name = Annotated[str, Query(max_length=100, description="of a model; empty: the first one")]
Why = Annotated[str, Query(max_length=1000, description="for the history")]

LEAST_SCALE = 1e-6
"""In mm per pixel, as of `snl calibrate --mm-per-pixel`."""
_MASK = {
    "requestBody": {
        "required": True,
        "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
    }
}
_PNG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}
}


@routes.get("/v1/products", summary="The known products")
async def products(context: Here, caller: Reader, model: Name = "") -> list[schemas.Product]:
    serving = context.service.models.active(model)
    return [_product(serving.calibration, name) for name in serving.calibration.products]


@routes.put("/v1/products/{name:path}/calibration", summary="Change rates and values of a product")
async def calibrate(
    context: Here, caller: Admin, name: str, new: schemas.NewCalibration, model: Name = ""
) -> schemas.Product:
    """The change is a new version of the model, which becomes active; a rollback undoes it."""
    rates = new.model_dump(include={"anomalous", "uncertain", "unknown", "regions"})
    values = new.model_dump(include={"mm_per_pixel", "min_region_area"}, exclude_none=True)
    if all(value is None for value in rates.values()) and new.rule is None and not values:
        raise SettingsError("nothing to change: give a rate, a rule or a value")
    if 0 < values.get("mm_per_pixel", 0) < LEAST_SCALE:
        raise SettingsError(f"mm_per_pixel: give {LEAST_SCALE:g} or more, or 0: not known")

    def change(before: Calibration) -> Calibration:
        after, reasons = before, []
        if new.rule is not None:
            after = edit.set_rule(after, new.rule, name)
            reasons.append("rule")
        if any(value is not None for value in rates.values()):
            after = edit.set_rates(after, name, **rates)
            reasons.append("rates")
        for field, value in values.items():
            after = (
                edit.set_product_values(after, field, {name: value})
                if value
                else edit.remove_product_value(after, field, name)
            )
            reasons.append(field)
        return edit.edit(after, new.why or f"{', '.join(reasons)} of {name}")

    return await _changed(context, model, name, change, caller.name, new.why)


@routes.get(
    "/v1/products/{name:path}/ignore-mask",
    summary="The ignore mask of a product, white is ignored",
    response_class=Response,
    responses=_PNG,
)
async def ignore_mask(context: Here, caller: Reader, name: str, model: Name = "") -> Response:
    """Of a product without a region of interest it is square, to be stretched over the image; with
    one it has the shape of the images that this was drawn on."""
    calibration = context.service.models.active(model).calibration
    content = await run_in_threadpool(masks.mask_png, calibration, name)
    return Response(content, media_type="image/png")


@routes.put(
    "/v1/products/{name:path}/ignore-mask",
    summary="Set the ignore mask of a product: an image as the body, white is ignored",
    openapi_extra=_MASK,
)
async def set_ignore_mask(
    context: Here, caller: Admin, name: str, request: Request, model: Name = "", why: Why = ""
) -> schemas.Product:
    """The change is a new version of the model, which becomes active; a rollback undoes it. The
    held-out images keep their scores, which can only be too high, until they are measured again."""
    service = context.service
    content = await request.body()
    serving = service.models.active(model)
    mask = await run_in_threadpool(masks.read_mask, service.blobs, serving, name, content)

    def change(before: Calibration) -> Calibration:
        after = edit.set_ignore_mask(before, name, mask)
        return edit.edit(after, why or after.reason)

    return await _changed(context, model, name, change, caller.name, why)


@routes.delete("/v1/products/{name:path}/ignore-mask", summary="Remove the ignore mask")
async def delete_ignore_mask(
    context: Here, caller: Admin, name: str, model: Name = "", why: Why = ""
) -> schemas.Product:
    """The change is a new version of the model, which becomes active; a rollback undoes it."""

    def change(before: Calibration) -> Calibration:
        before.check_product(name)
        if name not in before.ignore_masks:
            raise NotThereError(f"product '{name[:100]}' has no ignore mask")
        after = edit.set_ignore_mask(before, name, None)
        return edit.edit(after, why or f"no ignore mask of {name}")

    return await _changed(context, model, name, change, caller.name, why)


@routes.get("/v1/models/{id}/products", summary="The products of a version, with held-out images")
async def version_products(context: Here, caller: Reader, id: str) -> list[shown.VersionProduct]:
    """Of any version, also a candidate: what it decides on the images that were held back."""
    service = context.service

    def found() -> list[shown.VersionProduct]:
        calibration = service.models.read(id).calibration
        images = held_out(service.store, calibration)
        return [
            shown.VersionProduct(
                **_product(calibration, name).model_dump(),
                scores=[one.score for one in images[name]],
                held_out=[shown.HeldOut(**vars(one)) for one in images[name]],
            )
            for name in calibration.products
        ]

    return await run_in_threadpool(found)


async def _changed(
    context: Context,
    model: str,
    name: str,
    change: Callable[[Calibration], Calibration],
    who: str,
    why: str,
) -> schemas.Product:
    """Change the calibration of a model, and return a product as it is now."""
    models = context.service.models
    await run_in_threadpool(models.recalibrate, model, change, who, why)
    return _product(models.active(model).calibration, name)


def _product(calibration: Calibration, name: str) -> schemas.Product:
    rates = calibration.rates_for(name)
    threshold, uncertain = (
        calibration.scores.threshold(rate, name)[0] for rate in (rates.anomalous, rates.uncertain)
    )
    roi = calibration.rois.get(name)
    return schemas.Product(
        name=name,
        held_out_images=len(calibration.sets[name]),
        threshold=threshold,
        uncertain_threshold=uncertain,
        rates=vars(rates),
        roi=None if roi is None else [roi.x, roi.y, roi.width, roi.height],
        roi_image=None if roi is None or roi.image is None else list(roi.image),
        rule=calibration.rule_for(name),  # type: ignore[arg-type]
        mm_per_pixel=calibration.mm_per_pixel.get(name),
        min_region_area=calibration.min_region_area.get(name),
        has_ignore_mask=name in calibration.ignore_masks,
    )
