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

WORDINGS |= {
    "translation": (
        "Seen from the camera, in which direction does {object} itself move over the ground between {start} and {end} seconds?",
        "From the camera's perspective, which way is {object} moving from {start} s to {end} s?",
        "In which direction, as the camera looks at {start} s, does {object} travel between {start} and {end} seconds?",
        "Which way does {object} go over the ground from {start} to {end} seconds, from the viewpoint of the camera?",
        "Leaving the camera's own motion aside, where is {object} moving between {start} s and {end} s, in the camera's view?",
        "What is the direction of travel of {object} between {start} and {end} seconds, seen from the camera?",
        "From {start} s to {end} s, how does {object} change its place on the ground, as the camera sees it?",
        "Watch {object} from {start} to {end} seconds. To which side of the camera's view does it travel?",
    ),
    "turning": (
        "From its own point of view, which way does {object} turn between {start} and {end} seconds?",
        "Does {object} turn left, turn right or go straight from {start} s to {end} s, seen from itself?",
        "To which of its own sides does {object} turn between {start} and {end} seconds, if it turns at all?",
        "As a passenger of {object} would say: which way does it turn from {start} to {end} seconds?",
        "Between {start} s and {end} s, how does {object} change its heading from its own perspective?",
        "Which turn does {object} make between {start} and {end} seconds, told from its own perspective?",
        "From the perspective of {object} itself, in which direction is it turning from {start} s to {end} s?",
        "What does {object} do between {start} and {end} seconds: turn left, turn right, turn around, go straight or stand still?",
    ),
    "rotation": (
        "Seen from above, in which sense does the direction of travel of {object} rotate between {start} and {end} seconds?",
        "Does {object} turn clockwise or counter-clockwise from {start} s to {end} s, seen from above, or neither?",
        "Looking down from the sky, which way round does {object} turn between {start} and {end} seconds?",
        "From {start} to {end} seconds, is the turn of {object} clockwise or counter-clockwise, seen from above?",
        "On a map, in which rotational sense does {object} change its heading between {start} s and {end} s?",
        "Which sense of rotation has the path of {object} between {start} and {end} seconds, viewed from above?",
        "Watch {object} from {start} to {end} seconds. Which way does its heading rotate for a viewer above it?",
        "Clockwise, counter-clockwise or not at all: how does {object} turn from {start} s to {end} s, seen from above?",
    ),
    "perspective.own": (
        "Relative to the way {object} is headed at {start} s, where is it at {end} s?",
        "From the perspective of {object} at {start} seconds, on which side does it find its own place of {end} seconds?",
        "Take the first heading of {object} at {start} s as straight ahead. Where has it got to at {end} s?",
        "At {start} s {object} looks where it is going. In which direction from there does it arrive by {end} s?",
        "From its own viewpoint at {start} seconds, where does {object} end up at {end} seconds?",
        "Compared with where {object} is going at {start} s, to which side is its place at {end} s?",
        "Seen by {object} at {start} seconds, in which direction lies the place that it reaches at {end} seconds?",
        "Where is {object} at {end} s, as told from its place and heading at {start} s?",
    ),
    "perspective": (
        "From the point of view of {object}, headed as at {start} s, in which direction does {other} move until {end} s?",
        "Imagine looking ahead from {object} at {start} seconds. Which way does {other} move over the ground until {end} seconds?",
        "Somebody in {object} looks straight ahead at {start} s. Which way does {other} travel for them until {end} s?",
        "Relative to the heading of {object} at {start} s, in which direction does {other} move over the ground by {end} s?",
        "Seen from {object} as it is headed at {start} seconds, which way is {other} moving up to {end} seconds?",
        "Take the perspective of {object} at {start} s. Where does {other} go between {start} and {end} s?",
        "With the eyes of {object}, facing the way it goes at {start} s: what is the direction of travel of {other} until {end} s?",
        "Put yourself into {object}, looking the way it heads at {start} s. To which side does {other} move by {end} s?",
    ),
    "stop_count": (
        "How many times does {object} come to a stop between {start} and {end} seconds?",
        "From {start} s to {end} s, how often does {object} stop?",
        "Count the stops that {object} makes between {start} and {end} seconds.",
        "How often does {object} change from moving to standing still from {start} to {end} seconds?",
        "Between {start} s and {end} s, what is the number of times that {object} halts after moving?",
        "Watch {object} from {start} to {end} seconds. How many times does it stop moving?",
        "How many stops are there in the motion of {object} between {start} s and {end} s?",
        "What number of times does {object} brake to a standstill from {start} s to {end} s?",
    ),
    "turn_count": (
        "How many times does {object} change its direction of travel by a clear turn between {start} and {end} seconds?",
        "From {start} s to {end} s, how many turns of 30 degrees or more does {object} make?",
        "Count the direction changes (at least 30 degrees each) of {object} between {start} and {end} seconds.",
        "How often does {object} turn to a new direction from {start} to {end} seconds?",
        "Between {start} s and {end} s, what is the number of turns that {object} takes?",
        "Watch {object} from {start} to {end} seconds. How many separate turns does it make?",
        "How many changes of direction are there in the path of {object} between {start} s and {end} s?",
        "What number of clear turns, to either side, does {object} make from {start} s to {end} s?",
    ),
    "turn_order": (
        "In which order does {object} turn to its own left and right between {start} and {end} seconds?",
        "From its own perspective, which turns does {object} make from {start} s to {end} s, one after the other?",
        "Describe the sequence of turns of {object} between {start} and {end} seconds, as it would tell them itself.",
        "Which way does {object} turn first, and which way next, from {start} to {end} seconds, if at all?",
        "Between {start} s and {end} s, does {object} turn left, right, one after the other, or not at all?",
        "Name the turns of {object} in their order from {start} s to {end} s, left and right as seen by itself.",
        "Watch {object} from {start} to {end} seconds. To which of its sides does it turn, in which order?",
        "What turns does {object} take between {start} and {end} seconds, in their order?",
    ),
    "counting": (
        "How many {object} seen by the camera {asked} between {start} and {end} seconds?",
        "Between {start} s and {end} s, what is the number of {object} in the picture that {asked}?",
        "Count the {object} in view that {asked} from {start} to {end} seconds.",
        "From {start} s to {end} s, how many of the {object} in view {asked}?",
        "Of the {object} that can be seen between {start} and {end} seconds, how many {asked}?",
        "In the camera's view, how many {object} {asked} from {start} s to {end} s?",
        "Watch the {object} from {start} to {end} seconds. How many of them {asked}?",
        "What number of {object} in the picture {asked} between {start} s and {end} s?",
    ),
}
# What is not there is asked for in the words in which the motion of what is there is asked for.
WORDINGS["absent_object"] = WORDINGS["translation"]

IMAGE_WORDINGS = 1000

# Words of camera_direction_word in a sentence.
SEEN_DIRECTIONS = {
    "left": "left",
    "right": "right",
    "toward": "toward the camera",
    "away": "away from the camera",
    "none": "not moving",
}

NO_SUCH_OBJECT = "there is no such object"
# Answers in words, by bank of wordings and by the word of a candidate; they are also the options of a multiple choice.
ANSWERS: dict[str, dict[str, str]] = {
    "translation": SEEN_DIRECTIONS | {"absent": NO_SUCH_OBJECT},
    "absent_object": SEEN_DIRECTIONS | {"absent": NO_SUCH_OBJECT},
    "movement_direction.image": SEEN_DIRECTIONS | {"absent": NO_SUCH_OBJECT},
    "turning": {
        "left": "left",
        "right": "right",
        "straight": "straight on",
        "u_turn": "it turns around",
        "none": "not moving",
        "absent": NO_SUCH_OBJECT,
    },
    "rotation": {
        "clockwise": "clockwise",
        "counter_clockwise": "counter-clockwise",
        "straight": "neither, it goes straight on",
        "none": "not moving",
    },
    "perspective.own": {
        "ahead": "straight ahead",
        "left": "to the left",
        "right": "to the right",
        "none": "in the same place",
    },
    "perspective": {"left": "left", "right": "right", "toward": "toward it", "away": "away from it", "none": "not moving"},
    "turn_order": {
        "none": "no turn",
        "left": "left only",
        "right": "right only",
        "left_right": "left then right",
        "right_left": "right then left",
        "left_left": "left twice",
        "right_right": "right twice",
    },
    "direction_comparison": {"same": "same", "opposite": "opposite", "crossing": "crossing"},
    "direction_comparison.image": {"same": "same", "opposite": "opposite"},
}

# How the objects that are counted move.
COUNTED_MOTIONS = {
    "left": "move to the left",
    "right": "move to the right",
    "toward": "move toward the camera",
    "away": "move away from the camera",
    "none": "do not move",
}
