import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.labels_answers import TABLE, differs
from schemas.errors import WorldlineError
from stages.label.wordings import WORDINGS
from worldline.answers.choices import compared_objects, parse_choice, parse_object, parse_word
from worldline.answers.quantities import UNITS, parse_interval, parse_quantity
from worldline.answers.question_files import read_questions, read_replies
from worldline.answers.scoring import RULES, Question, mean_relative_accuracy, score, temporal_iou

OPTIONS = {"A": "left", "B": "right", "C": "not moving", "D": "toward the camera"}
PROPERTIES = settings(derandomize=True, deadline=None, max_examples=150)


@pytest.mark.parametrize("reply", TABLE, ids=[f"{place}-{reply.text[:30]}" for place, reply in enumerate(TABLE)])
def test_the_table_is_read_and_scored_as_by_hand(reply):
    assert differs(reply) == ""


# -- properties --------------------------------------------------------------------------------------------------------

NUMBERS = st.decimals(min_value="0.01", max_value="9999", places=2, allow_nan=False)
FRAMES = st.sampled_from(
    [
        "{}",
        "about {}",
        "The car moves {}.",
        "<think>5 m and 7 km/h and 3 s</think>{}",
        "\\boxed{{{}}}",
        "Answer: {}",
        "It is roughly {} (I am not sure).",
        "**{}**",
    ]
)
WRITTEN = {
    "m": ["m", " m", " meters", " metres"],
    "cm": [" cm", " centimeters"],
    "ft": [" ft", " feet"],
    "mi": [" miles"],
    "km/h": [" km/h", "kph", " kilometers per hour"],
    "mph": [" mph", " miles an hour"],
    "m/s": [" m/s", " meters per second"],
    "s": [" s", " seconds"],
    "deg": ["°", " degrees"],
}


@PROPERTIES
@given(NUMBERS, st.sampled_from(sorted(WRITTEN)), st.data())
def test_a_number_with_its_unit_is_read_in_any_frame_and_in_any_unit_of_its_dimension(number, unit, data):
    frame, written = data.draw(FRAMES), data.draw(st.sampled_from(WRITTEN[unit]))
    dimension, size = UNITS[unit]
    asked = data.draw(st.sampled_from([name for name, (other, _) in UNITS.items() if other == dimension]))
    said = parse_quantity(frame.format(f"{number}{written}"), asked)
    assert said == pytest.approx(float(number) * size / UNITS[asked][1], rel=1e-9)


@PROPERTIES
@given(st.integers(1, 999_999))
def test_thousands_may_be_separated(number):
    for text in (f"{number:,}", f"{number:,}".replace(",", " "), f"{number:,}.5", str(number)):
        assert parse_quantity(f"{text} m", "m") == number + 0.5 * text.endswith(".5")


@PROPERTIES
@given(st.integers(0, 999_999))
def test_numbers_in_words_are_read(number):
    assert parse_quantity(f"{spelled(number)} meters", "m") == number


def spelled(number: int) -> str:
    """English words of a number, by the rules of a school book."""
    small = (
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen"
    )
    tens = "twenty thirty forty fifty sixty seventy eighty ninety"
    if number < 20:
        return small.split()[number]
    if number < 100:
        return tens.split()[number // 10 - 2] + (f"-{spelled(number % 10)}" if number % 10 else "")
    if number < 1000:
        return f"{spelled(number // 100)} hundred" + (f" and {spelled(number % 100)}" if number % 100 else "")
    rest = number % 1000
    return f"{spelled(number // 1000)} thousand" + (f" {'and ' if rest < 100 else ''}{spelled(rest)}" if rest else "")


@PROPERTIES
@given(NUMBERS, NUMBERS)
def test_a_range_counts_as_its_middle(low, high):
    for text in (f"{low}-{high} m", f"{low} to {high} m", f"between {low} m and {high} m", f"{low} m - {high} m"):
        assert parse_quantity(text, "m") == pytest.approx(float(low + high) / 2)


@PROPERTIES
@given(st.text(max_size=80))
def test_any_text_at_all_is_read_as_a_finite_number_or_not_at_all(text):
    for unit in UNITS:
        said = parse_quantity(text, unit)
        assert said is None or math.isfinite(said)
    parse_interval(text), parse_choice(text, OPTIONS), parse_word(text, "yes"), parse_object(text, ("the car", "the camera"))


@PROPERTIES
@given(
    st.sampled_from("ABCD"),
    st.sampled_from(["{}", "({})", "{}.", "Option {}", "The answer is {}.", "**{}**", "<answer>{}</answer>"]),
)
def test_an_option_is_read_by_its_letter(letter, frame):
    assert parse_choice(frame.format(letter), OPTIONS) == letter


@PROPERTIES
@given(st.floats(0.01, 1e4), st.floats(0.01, 1e4))
def test_mean_relative_accuracy_grows_as_the_error_shrinks(true, error):
    near, far = mean_relative_accuracy(np.array([true + error / 2, true + error]), np.array([true, true]))
    assert 0 <= far <= near <= 1


@PROPERTIES
@given(st.floats(0, 50), st.floats(0.1, 50), st.floats(0, 50), st.floats(0.1, 50))
def test_temporal_iou_is_that_of_sampled_time(a, a_length, b, b_length):
    times = np.linspace(0, 100, 200_001)
    inside_a, inside_b = (times >= a) & (times <= a + a_length), (times >= b) & (times <= b + b_length)
    sampled = (inside_a & inside_b).sum() / (inside_a | inside_b).sum()
    assert temporal_iou((a, a + a_length), (b, b + b_length)) == pytest.approx(sampled, abs=0.02)


# -- wordings that have fooled readers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "unit", "said"),
    [
        ("12 in total", "m", 12.0),  # no inches
        ("The car with id 7 travels 12 m between 0.5 s and 2.5 s.", "m", 12.0),
        ("12 meters. I took a car to be 4.5 m long.", "m", 12.0),
        ("12 m/s", "m", None),  # a speed is no distance
        ("12 m²", "m", None),
        ("1 min 30 s", "s", 90.0),
        ("3 km and 200 m", "m", 3200.0),
        ("0,125 km", "m", 125.0),  # no thousand begins with zero
        ("1.234,5 m", "m", 1234.5),
        ("-3 m", "m", -3.0),
        ("Options: - 12 m", "m", 12.0),  # a dash before a space is no sign
        ("2.5 m/s²", "m/s2", 2.5),
        ("5 m s⁻¹", "m/s", 5.0),
        ("120 sq ft", "m2", 120 * 0.3048**2),
        ("half past two", "o'clock", 2.5),
        ("$\\frac{1}{2}$ m", "m", 0.5),
        ('{"answer": "7 m", "confidence": 3}', "m", 7.0),
        ("#### 42", "count", 42.0),
        ("The red one moves 12", "m", 12.0),  # "one" is no number here
        ("None of them", "count", 0.0),
        ("", "m", None),
    ],
)
def test_a_wording_is_read(text, unit, said):
    assert parse_quantity(text, unit) == (None if said is None else pytest.approx(said))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not left but right", "B"),
        ("It moves to the right, not toward the camera.", "B"),
        ("rightward", "B"),
        ("The vehicle is standing still.", "C"),
        ("A or B", None),
        ("b", "B"),
        ("D) toward the camera", "D"),
        ("A car moves to the left.", "A"),  # by what it says, not by its first word
        ("I do not know", None),
    ],
)
def test_an_option_is_read_by_its_meaning(text, said):
    assert parse_choice(text, OPTIONS) == said


@pytest.mark.parametrize(
    ("text", "true", "said"),
    [
        ("Yes, it does.", "yes", "yes"),
        ("It does not.", "no", "no"),
        ("They head the same way.", "same", "same"),
        ("oncoming traffic", "opposite", "opposite"),
        ("Receding from us", "away from the camera", "away"),
        ("It isn't moving.", "not moving", "none"),
        ("no idea", "left", None),
    ],
)
def test_a_word_is_read_by_its_meaning(text, true, said):
    assert parse_word(text, true) == said


PHRASES = (
    ("the red car in box [1, 2, 30, 40] at 0.5 s", "the camera"),
    ("the red car", "the white van"),
    ("the car in box [1, 2, 30, 40] at 0.5 s", "the car in box [50, 6, 70, 80] at 1.5 s"),
)


@pytest.mark.parametrize("bank", ["distance_comparison", "speed_comparison"])
@pytest.mark.parametrize("objects", PHRASES)
def test_both_objects_of_every_comparison_that_we_word_are_found(bank, objects):
    for template in WORDINGS[bank]:
        text = template.format(object=objects[0], other=objects[1], start="0.5", end="2.5")
        assert [compared_objects(text, answer) for answer in objects] == [objects, objects], text


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("The red car.", 0),
        ("It is the white van", 1),
        ("the white van is slower than the red car", 0),
        ("The latter", 1),
        ("The red car is faster than the white van.", 0),
        ("both", None),
        ("the red car and the white van", None),
    ],
)
def test_one_of_two_objects_is_read(text, place):
    assert parse_object(text, PHRASES[1]) == (None if place is None else PHRASES[1][place])


# -- reports -----------------------------------------------------------------------------------------------------------


def test_nothing_is_dropped_silently():
    questions = [Question(str(number), "far", "?", "", "m", 10.0) for number in range(5)]
    report = score(questions, {"0": "10 m", "1": "20 m", "2": "who knows", "9": "10 m"}, RULES["st_vlm"])
    (far, whole) = report.kinds
    assert (far.questions, far.missing, far.unparsed, far.correct_share) == (5, 2, 1, 0.2)
    assert (far.error_mean, far.error_median, far.relative_error_mean) == (5.0, 5.0, 0.5)
    assert (report.unknown, dict(report.unparsed)) == (("9",), {"2": "who knows"})
    assert (whole.kind, whole.correct_share) == ("all", 0.2)


def test_what_the_rules_do_not_cover_is_counted_and_not_scored():
    questions = [Question("a", "far", "?", "", "m", 10.0), Question("b", "bearing", "?", "", "deg", 10.0)]
    bearing, far, _ = score(questions, {"a": "10 m", "b": "10 degrees"}, RULES["st_vlm"]).kinds
    assert (bearing.no_rule, far.no_rule, far.correct_share) == (1, 0, 1.0)
    assert math.isnan(bearing.correct_share)
    with pytest.raises(WorldlineError, match="say nothing about questions of the kinds bearing"):
        score(questions[1:], {"b": "10 degrees"}, RULES["st_vlm"])


def test_answers_to_other_questions_are_refused_in_one_sentence():
    with pytest.raises(WorldlineError, match="none of the 1 answers belongs to one of the 1 questions"):
        score([Question("a", "far", "?", "", "m", 10.0)], {"b": "10 m"}, RULES["st_vlm"])


# -- files -------------------------------------------------------------------------------------------------------------

SHAPES = {
    "vlm4d": [
        {
            "id": "validation_1",
            "video": "https://x/1.mp4",
            "question_type": "multiple-choice",
            "question": "Which way?",
            "choices": OPTIONS,
            "answer": "right",
        }
    ],
    "sti": [
        {"Video": "1.mp4", "ID": 1, "time_start": 0, "time_end": 2, "Question": "How far?", "Candidates": OPTIONS, "Answer": "B"}
    ],
    "vsi_options": [
        {
            "id": 3,
            "scene_name": "s",
            "question_type": "object_rel_distance",
            "question": "Which?",
            "ground_truth": "B",
            "options": ["A. left", "B. right"],
        }
    ],
    "vsi_number": [
        {"id": 4, "question_type": "object_size_estimation", "question": "How long?", "ground_truth": "120", "options": None}
    ],
    "rgpt": [
        {
            "id": 5,
            "text_q": "?",
            "qa_info": {"type": "quantitative", "category": "width_data"},
            "conversations": [
                {"from": "human", "value": "How wide is <mask>?"},
                {"from": "gpt", "value": "It is 10.0 inches wide."},
            ],
        }
    ],
    "rgpt_yes": [
        {
            "id": 6,
            "qa_info": {"type": "qualitative", "category": "left_predicate"},
            "conversations": [{"from": "human", "value": "Is it?"}, {"from": "gpt", "value": "Yes, it is."}],
        }
    ],
    "stride": [
        {
            "question_id": "q1_g2",
            "qa_category": "ego_distance_data_4d_t1",
            "gt_value": {"distance": 12.0, "direction": -20.0},
            "unit": {"distance": "m", "direction": "degree"},
            "gt": "12 m at -20 degrees",
        }
    ],
    "llava": [
        {
            "id": "x",
            "video": "1.mp4",
            "conversations": [{"from": "human", "value": "<video>\nHow fast?"}, {"from": "gpt", "value": "20 km/h"}],
        }
    ],
    "messages": [
        {
            "id": "y",
            "messages": [
                {"role": "system", "content": "."},
                {"role": "user", "content": "When?"},
                {"role": "assistant", "content": "from 2.0 to 4.5 seconds"},
            ],
        }
    ],
    "ours": [
        {
            "question_id": "z",
            "kind": "movement_direction",
            "question": "Where?",
            "answer": "3 o'clock",
            "answer_value": 3.0,
            "answer_unit": "o'clock",
            "answer_end_value": None,
        }
    ],
}
EXPECTED = {
    "vlm4d": [("validation_1", "multiple-choice", "option", "B")],
    "sti": [("1", "multiple-choice", "option", "B")],
    "vsi_options": [("3", "object_rel_distance", "option", "B")],
    "vsi_number": [("4", "object_size_estimation", "length", 120.0)],
    "rgpt": [("5", "width_data", "length", 0.254)],
    "rgpt_yes": [("6", "left_predicate", "words", "yes")],
    "stride": [
        ("q1_g2", "ego_distance_data_4d_t1.distance", "length", 12.0),
        ("q1_g2", "ego_distance_data_4d_t1.direction", "angle", -20.0),
    ],
    "llava": [("x", "conversation", "speed", 20.0)],
    "messages": [("y", "conversation", "interval", 2.0)],
    "ours": [("z", "movement_direction", "clock", 3.0)],
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_public_question_files_are_read(tmp_path, shape, suffix):
    path = tmp_path / f"questions{suffix}"
    path.write_text(json.dumps(SHAPES[shape]) if suffix == ".json" else "\n".join(json.dumps(row) for row in SHAPES[shape]))
    found = read_questions(path)
    told = [(q.id, q.kind, q.form, q.answer if math.isnan(q.value) else pytest.approx(q.value)) for q in found]
    assert told == EXPECTED[shape]


def test_the_labels_of_a_parquet_export_are_read_with_their_options(tmp_path):
    (tmp_path / "labels").mkdir()
    rows = [
        {"question_id": str(n), "kind": "k", "question": "?", "answer": "3 m", "answer_value": 3.0, "answer_unit": "m"}
        for n in "ab"
    ]
    for row in rows:
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / "labels" / f"{row['question_id']}.parquet")
    assert [(q.id, q.value) for q in read_questions(tmp_path)] == [("a", 3.0), ("b", 3.0)]


@pytest.mark.parametrize(
    "text",
    [
        '[{"id": 1, "response": "12 m"}]',
        '{"1": "12 m"}',
        '[{"question_id": "1", "question": "?", "answer": "3 m", "pred": "12 m"}]',
    ],
)
def test_replies_are_read(tmp_path, text):
    path = tmp_path / "replies.json"
    path.write_text(text)
    assert read_replies(path) == {"1": "12 m"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "holds no list of objects"),
        ("not json", "is no JSON"),
        ('[{"id": 1}]', "answer 1 has no a reply"),
        ('[{"response": "3"}]', "answer 1 has no an id"),
        ('[{"id": 1, "response": "3"}, {"id": 1, "response": "4"}]', "question 1 is answered twice"),
    ],
)
def test_bad_files_of_replies_are_refused_in_one_sentence(tmp_path, text, message):
    path = tmp_path / "replies.json"
    path.write_text(text)
    with pytest.raises(WorldlineError, match=message):
        read_replies(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": 1, "foo": 2}, "question 1 cannot be read .its fields foo, id are of no shape"),
        (
            {"question_id": "a", "kind": "k", "question": "?", "answer": "3", "answer_value": 3, "answer_unit": "parsec"},
            "'parsec' is none",
        ),
        (
            {"question_id": "a", "kind": "k", "question": "?", "answer": "3", "answer_value": None, "answer_unit": "m"},
            "is no number",
        ),
        ({"id": 1, "question": "?", "choices": OPTIONS, "answer": "up"}, "'up' is none of its options"),
        ({"id": 1, "question_type": "new", "ground_truth": "3", "question": "?"}, "no unit is known"),
        ({"question": "?", "choices": OPTIONS, "answer": "left"}, "there is no field 'question_id'"),
    ],
)
def test_bad_questions_are_refused_in_one_sentence(tmp_path, row, message):
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(WorldlineError, match=message):
        read_questions(path)
    with pytest.raises(WorldlineError, match="is not there"):
        read_questions(tmp_path / "none.jsonl")
