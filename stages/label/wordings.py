"""Wordings of the questions, as data. The index of a wording is stored with each question: append, never reorder.

Wordings in the view of the camera (banks that end in ".image") are stored from `IMAGE_WORDINGS` on.

Placeholders: {object}, {other}: referring phrases; {start}, {end}: seconds; {asked}: the direction asked for.
"""

# ruff: noqa: E501

WORDINGS: dict[str, tuple[str, ...]] = {
    "traveled_distance": (
        "How far does {object} travel between {start} and {end} seconds?",
        "What distance does {object} cover from {start} s to {end} s?",
        "Between {start} and {end} seconds, how many meters does {object} move along its path?",
        "Estimate the length of the path that {object} takes from {start} to {end} seconds.",
        "From {start} s to {end} s, how long is the way that {object} travels?",
        "Look at {object}. What distance has it traveled between {start} s and {end} s?",
        "What is the traveled distance of {object} in the interval from {start} to {end} seconds?",
        "By the time {end} s, how far has {object} gone since {start} s, measured along its path?",
        "Give the distance in meters that {object} moves during the period {start} s to {end} s.",
    ),
    "traveling_speed": (
        "What is the average speed of {object} between {start} and {end} seconds?",
        "How fast does {object} move on average from {start} s to {end} s?",
        "Between {start} and {end} seconds, at what mean speed in km/h does {object} travel?",
        "Estimate the average speed of {object} during the interval from {start} to {end} seconds.",
        "From {start} s to {end} s, how many kilometers per hour does {object} make on average?",
        "Look at {object}. How fast is it going, averaged over {start} s to {end} s?",
        "What mean speed does {object} keep from {start} to {end} seconds?",
        "Give the speed of {object} in km/h, averaged between {start} s and {end} s.",
    ),
    "movement_direction": (
        "Take the direction in which {object} moves at {start} s as 12 o'clock, seen from above. "
        "In which clock direction does it move at {end} s?",
        "If {object} heads to 12 o'clock at {start} seconds, to which hour does it head at {end} seconds (seen from above)?",
        "Seen from above, with the heading of {object} at {start} s as 12 o'clock: what is its heading at {end} s?",
        "Relative to its own heading at {start} s (12 o'clock), which way does {object} move at {end} s, as a clock direction?",
        "Compared with its motion at {start} seconds, which is 12 o'clock, where does {object} move at {end} seconds on the clock?",
        "At {start} s {object} moves toward 12 o'clock. Toward which hour does it move at {end} s, clockwise from above?",
        "On a clock face lying on the ground, with 12 where {object} is going at {start} s, where is it going at {end} s?",
        "Which clock direction does {object} have at {end} seconds, if its direction at {start} seconds counts as 12 o'clock?",
    ),
    "movement_direction.image": (
        "Seen from the camera, which way does {object} move between {start} and {end} seconds: "
        "left, right, toward the camera, away from it, or not at all?",
        "From {start} s to {end} s, does {object} move left, right, toward the camera or away from it, or does it not move?",
        "In the view of the camera, what is the direction of motion of {object} from {start} to {end} seconds "
        "(left, right, toward, away, not moving)?",
        "Is {object} moving left, right, toward or away from the camera between {start} s and {end} s, or not moving?",
        "Which of left, right, toward, away or not moving describes {object} between {start} and {end} seconds, as the camera sees it?",
        "How does {object} move relative to the camera's view from {start} s to {end} s: left, right, toward, away or not at all?",
        "Look at {object} from {start} to {end} seconds. Which way does it go: left, right, toward the camera, away, or nowhere?",
        "What is the main direction of {object} for the camera between {start} s and {end} s: left, right, toward, away or not moving?",
    ),
    "direction_timestamp": (
        "Between {start} and {end} seconds, when does {object} move toward {asked}, "
        "if its direction at {start} s is 12 o'clock seen from above?",
        "Take the heading of {object} at {start} s as 12 o'clock. From when to when, up to {end} s, does it head toward {asked}?",
        "In which time interval between {start} s and {end} s is {object} moving toward {asked} "
        "(12 o'clock is its heading at {start} s, from above)?",
        "With 12 o'clock where {object} is going at {start} seconds, at what time within {end} seconds does it go toward {asked}?",
        "From {start} s to {end} s, find the period in which {object} heads toward {asked}, its first heading being 12 o'clock.",
        "Relative to its own motion at {start} s (12 o'clock), when until {end} s does {object} travel in the {asked} direction?",
        "Seen from above, when between {start} and {end} s does {object} point its motion at {asked}, 12 o'clock being where it began?",
        "State the interval between {start} and {end} seconds in which {object}'s direction is {asked}, "
        "counted from its direction at {start} s.",
    ),
    "direction_timestamp.image": (
        "Between {start} and {end} seconds, when does {object} move {asked}, seen from the camera?",
        "From when to when, between {start} s and {end} s, does {object} move {asked} in the camera's view?",
        "In which time interval between {start} and {end} seconds is {object} moving {asked}, as the camera sees it?",
        "Find the period between {start} s and {end} s in which {object} moves {asked} for the camera.",
        "At what time between {start} and {end} seconds does {object} go {asked}, from the camera's viewpoint?",
        "When, from {start} s to {end} s, is the motion of {object} {asked} in the view of the camera?",
        "State the interval between {start} and {end} seconds during which {object} moves {asked} as seen by the camera.",
        "Watch {object} from {start} to {end} s. During which seconds does it move {asked}, seen from the camera?",
    ),
    "distance_comparison": (
        "Which travels further between {start} and {end} seconds: {object} or {other}?",
        "From {start} s to {end} s, which one covers the longer distance, {object} or {other}?",
        "Compare {object} with {other}: which goes further between {start} and {end} seconds?",
        "Between {start} s and {end} s, does {object} or {other} travel the greater distance?",
        "Who moves a longer way from {start} to {end} seconds, {object} or {other}?",
        "Of {object} and {other}, which has the longer path between {start} s and {end} s?",
        "During the interval {start} s to {end} s, which of these travels more: {object} or {other}?",
        "Look at {object} and at {other}. Which covers more ground from {start} to {end} seconds?",
    ),
    "speed_comparison": (
        "Which is faster on average between {start} and {end} seconds: {object} or {other}?",
        "From {start} s to {end} s, which one has the higher average speed, {object} or {other}?",
        "Compare {object} with {other}: which moves faster between {start} and {end} seconds?",
        "Between {start} s and {end} s, does {object} or {other} travel at the higher speed?",
        "Of {object} and {other}, which is quicker from {start} to {end} seconds?",
        "Who is going faster from {start} s to {end} s, {object} or {other}?",
        "During the interval {start} s to {end} s, which has the greater mean speed: {object} or {other}?",
        "Look at {object} and at {other}. Which one moves faster from {start} to {end} seconds?",
    ),
    "direction_comparison": (
        "Between {start} and {end} seconds, do {object} and {other} move in the same direction, in opposite directions, or do they cross?",
        "How do the overall directions of {object} and {other} compare from {start} s to {end} s: same, opposite or crossing?",
        "From {start} to {end} seconds, is the direction of {object} the same as that of {other}, opposite to it, or crossing it?",
        "Compare the movement of {object} and {other} between {start} s and {end} s: same, opposite or crossing directions?",
        "Are {object} and {other} heading the same way between {start} and {end} seconds, opposite ways, or crossing ways?",
        "Do {object} and {other} go in the same, in opposite or in crossing directions from {start} s to {end} s?",
        "Seen over {start} s to {end} s, does {object} move the same way as {other}, the opposite way, or across it?",
        "What is the relation of the directions of {object} and {other} between {start} and {end} s: same, opposite or crossing?",
    ),
    "direction_comparison.image": (
        "Seen from the camera, do {object} and {other} move in the same or in opposite directions between {start} and {end} seconds?",
        "In the camera's view from {start} s to {end} s, are the directions of {object} and {other} the same or opposite?",
        "From {start} to {end} seconds, does {object} move the same way as {other} or the opposite way, as the camera sees it?",
        "Compare {object} and {other} between {start} s and {end} s: same or opposite direction, in the camera's view?",
        "Do {object} and {other} go the same way or opposite ways for the camera between {start} and {end} seconds?",
        "As seen by the camera, are {object} and {other} heading the same way or opposite ways from {start} s to {end} s?",
        "Same or opposite: how do {object} and {other} move in the view of the camera between {start} and {end} seconds?",
        "Between {start} and {end} s, is the motion of {object} in the camera's view the same as that of {other} or opposite to it?",
    ),
}

IMAGE_WORDINGS = 1000

# Words of camera_direction_word in a sentence.
SEEN_DIRECTIONS = {
    "left": "left",
    "right": "right",
    "toward": "toward the camera",
    "away": "away from the camera",
    "none": "not moving",
}
