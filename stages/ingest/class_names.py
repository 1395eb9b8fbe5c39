"""Our class names for those of annotated data sets."""

from collections.abc import Iterable

# Ours to those that the formats use, in small letters.
_NAMES: dict[str, tuple[str, ...]] = {
    "car": ("car", "regular_vehicle", "vehicle.car", "vehicle.emergency.police", "police car", "auto", "sedan"),
    "van": ("van", "vehicle.emergency.ambulance"),
    "truck": (
        *("truck", "large_vehicle", "box_truck", "truck_cab", "vehicle.truck"),
        *("pickup truck", "medium-sized truck", "semi-truck"),
    ),
    "trailer": ("trailer", "vehicular_trailer", "vehicle.trailer", "message_board_trailer", "traffic_light_trailer"),
    "bus": ("bus", "school_bus", "articulated_bus", "vehicle.bus.bendy", "vehicle.bus.rigid"),
    "construction vehicle": (
        *("construction vehicle", "vehicle.construction", "other vehicle - construction vehicle"),
        "other vehicle - construction",
    ),
    "tram": ("tram", "tram / subway", "railed_vehicle", "train"),
    "vehicle": (
        *("vehicle", "emergency vehicle", "motorized scooter", "personal mobility device"),
        *("other vehicle - uncommon", "type_vehicle", "towed object"),
    ),
    "pedicab": ("pedicab", "other vehicle - pedicab"),
    "motorcycle": ("motorcycle", "motorcyclist", "vehicle.motorcycle", "motorbike"),
    "bicycle": ("bicycle", "vehicle.bicycle", "riderless_bicycle"),
    "cyclist": ("cyclist", "bicyclist", "wheeled_rider", "type_cyclist", "biker"),
    "pedestrian": (
        *("pedestrian", "person", "person_sitting", "pedestrian with object", "official_signaler", "type_pedestrian"),
        *("human.pedestrian.adult", "human.pedestrian.child", "human.pedestrian.construction_worker"),
        *("human.pedestrian.personal_mobility", "human.pedestrian.police_officer", "human"),
    ),
    "wheelchair": ("wheelchair", "human.pedestrian.wheelchair"),
    "stroller": ("stroller", "human.pedestrian.stroller"),
    "scooter": ("scooter", "wheeled_device"),
    "animal": ("animal", "dog", "animals - other", "animals - bird"),
    "cone": ("cone", "cones", "construction_cone", "movable_object.trafficcone", "traffic cone"),
    "barrier": (
        *("barrier", "movable_object.barrier", "road barriers", "temporary construction barriers", "construction_barrel"),
        "pylons",
    ),
    "bollard": ("bollard",),
    "sign": ("sign", "signs", "stop_sign", "mobile_pedestrian_sign", "construction signs"),
    "movable object": ("movable object", "movable_object.debris", "movable_object.pushable_pullable", "rolling containers"),
    "bicycle rack": ("bicycle rack", "static_object.bicycle_rack"),
}
_OURS = {theirs: ours for ours, names in _NAMES.items() for theirs in names}


def our_class_names(names: Iterable[str]) -> list[str]:
    """Return our name of each class, "unknown" where the source's name is none that we know."""
    return [_OURS.get(name.strip().lower(), "unknown") for name in names]
