"""Manifests that are sealed, and odd nevertheless: one sentence, or a bundle that works; and what a terminal sees."""

import csv
import json
import re
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.tampering import add_codes, reseal, reseal_text

import aeedge
from aeedge.bundle.reader import Bundle
from aeedge.cli.group import AeedgeGroup
from aeedge.table import printable

DATA = Path(__file__).parent.parent / "data"
TEXT = (DATA / "bundle_v1" / "manifest.json").read_text()
ODD = {
    "null": None,
    "true": True,
    "false": False,
    "-1": -1,
    "0": 0,
    "0.5": 0.5,
    "1e300": 1e300,
    "2**31": 2**31,
    "2**63": 2**63,
    "2**70": 2**70,
    "10**39": 10**39,
    "empty text": "",
    "text": "1",
    "long text": "9" * 10**4,
    "escapes": "\x1b[31m\x9b2J\u202e\r\n\x00",
    "empty list": [],
    "list": [1],
    "lists": [[[[[1]]]]],
    "unequal lists": [[1], [1, 2]],
    "many axes": [1] * 70,
    "many": [1] * 10**3,
    "texts": ["1"] * 12,
    "nulls": [None] * 12,
    "empty object": {},
    "object": {"layers": 5, "": 1},
}


def places(value, place=()):
    yield place
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        if not (isinstance(key, int) and key):  # of a list the first alone
            yield from places(item, (*place, key))


PLACES = [place for place in places(json.loads(TEXT)) if place and place != ("manifest_sha256",)]
CALIBRATED = "bundle_v2_both"
ALARMS = ("calibration", "parent", "score", "format_version")
PLACES_OF_ALARMS = [
    place for place in places(json.loads((DATA / CALIBRATED / "manifest.json").read_text())) if place[:1] in zip(ALARMS)
] + [("parent",), *(("calibration", key) for key in ("drift", "calibrated", "relative_error"))]


def run(*arguments):
    return CliRunner().invoke(AeedgeGroup.build(), list(map(str, arguments)))


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
def test_odd_values_of_a_manifest(bundle, place):
    """Anything in any place: one sentence of an AeedgeError, or a model that gives its recorded outputs."""
    free = place[0] in ("name", "family", "created", "made_with", "training") or "quality" in place
    refused = put_odd_values(bundle, place)
    assert refused >= 8 or free


@pytest.mark.parametrize("place", PLACES_OF_ALARMS, ids=lambda place: ".".join(map(str, place)))
def test_odd_values_of_what_alarms_need(tmp_path, place):
    path = Path(shutil.copytree(DATA / CALIBRATED, tmp_path / "plant.aeedge"))
    refused = put_odd_values(path, place)
    assert refused >= 8 or place[1:2] == ("rule",)  # that is for people


OF_CODES = ("low", "step", "latent_error", "error_ratio")
PLACES_OF_CODES = [("codes",), ("codes", "rows"), ("codes", "scales")] + [
    ("codes", "scales", bits, *rest)
    for bits in ("8", "4")
    for rest in [(), *((key,) for key in OF_CODES), ("low", 0), ("step", 1), ("error_ratio", "fp32")]
]


@pytest.mark.parametrize("place", PLACES_OF_CODES, ids=lambda place: ".".join(map(str, place)))
def test_odd_values_of_codes(bundle, place):
    """Anything in any place: one sentence, or codes that can be written and read."""
    add_codes(bundle)
    assert put_odd_values(bundle, place) >= 8


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("low", [0.0, 1.0]),
        ("low", [0.0]),
        ("low", [0.0, 1.0, float("1e39")]),
        ("low", [0.0, True, 1.0]),
        ("low", [0.0, "1", 1.0]),
        ("low", [0.0, None, 1.0]),
        ("step", [0.0, 1.0, 1.0]),
        ("step", [-1.0, 1.0, 1.0]),
        ("step", [1e-45, 1.0, 1.0]),
        ("step", [1.0, 1.0, 1.0, 1.0]),
        ("step", [1.0]),
        ("step", [1e37, 1e37, 1e37]),
        ("step", [10**39, 1, 1]),
        ("step", 1.0),
    ],
)
def test_steps_that_are_none(bundle, key, values):
    add_codes(bundle)
    reseal(bundle, lambda d: d["codes"]["scales"]["8"].__setitem__(key, values))
    with pytest.raises(
        aeedge.CorruptBundleError, match=r"at \$\.codes\.scales\.8\.(low|step); export the bundle again"
    ):
        aeedge.load(bundle)


@pytest.mark.parametrize(("low", "step"), [(0, 1), (-3.4e38, 1e36), (3.4e38, 1.2e-38), (-1e-45, 1.2e-38)])
def test_steps_at_the_ends_of_float32(bundle, low, step):
    add_codes(bundle)
    for bits in ("8", "4"):
        reseal(bundle, lambda d, bits=bits: d["codes"]["scales"][bits].update(low=[low] * 3, step=[step] * 3))
    assert fault(bundle) == ""


def put_odd_values(bundle, place):
    """How many of the values are refused."""
    whole, refused = (bundle / "manifest.json").read_text(), 0
    for name, value in ODD.items():
        (bundle / "manifest.json").write_text(whole)

        def change(document, value=value):
            for key in place[:-1]:
                document = document[key]
            document[place[-1]] = value

        reseal(bundle, change)
        problem = fault(bundle)
        refused += bool(problem)
        assert len(problem) < 700, name
        assert printable(problem, None) == problem, name
    return refused


def fault(bundle):
    """The sentence that a bundle gets, or nothing: then all of it works."""
    try:
        with aeedge.load(bundle, threads=1, check="golden") as model:
            codes = () if model.manifest.codes is None else model.manifest.codes.scales
            for bits in codes:
                coded = model.encode(model.golden_rows(), bits=bits)
                assert model.decode(coded, bits=bits).shape == model.golden_rows().shape
    except aeedge.AeedgeError as error:
        return str(error)
    for options in ([], ["--json"]):
        shown = run("info", bundle, *options)
        assert shown.exit_code == 0, shown.exception
        assert_harmless(shown.output)
    return ""


def assert_harmless(text):
    for c in text.replace("\n", ""):
        assert c.isprintable() or unicodedata.category(c) == "Zs", repr(c)


TEXTS = {
    "NaN": ("NaN", "NaN is no JSON number"),
    "Infinity": ("-Infinity", "-Infinity is no JSON number"),
    "5000 digits": ("9" * 5000, "a number of 5000 digits"),
    "400 digits": ("-" + "9" * 400, "a number of 401 digits"),
    "half a surrogate": ('"\\ud800"', "surrogates not allowed"),
    "the other half": ('"\\udfff x"', "surrogates not allowed"),
    "half a surrogate in a key": ('{"\\ud800": 1}', "surrogates not allowed"),
    "half a surrogate deep inside": ('[[[["\\ud800"]]]]', "surrogates not allowed"),
    "a key twice": ('{"a": 1, "a": 2}', "the key 'a' is there twice"),
    "a control character": ('"\x1b"', "Invalid control character"),
    "a comma too many": ("[1,]", "cannot be read"),
}
UNUSUAL = {
    "1e999": "1e999",
    "400 digits and a point": "9" * 400 + ".5",
    "deep lists": "[" * 10**5 + "]" * 10**5,
    "deep objects": '{"a":' * 10**4 + "1" + "}" * 10**4,
    "lists of 100 levels": "[" * 100 + "]" * 100,
    "lists of 900 levels": "[" * 900 + "]" * 900,
}
FREE = {"training": '"training": {', "dialect": '"input": {"dialect": {', "score": '"score": {', "id": '"id": '}


def put(bundle, place, value):
    """A value, written as it is, into a part of the manifest."""
    new = {
        "training": f'"training": {{ "x": {value},',
        "dialect": f'"input": {{ "dialect": {{"x": {value}}},',
        "score": f'"score": {{ "x": {value},',
        "id": f'"x": {value}, "id": ',
        "shape": f'"input": {{ "shape": {value}, "was": {{}}, "old',
    }[place]
    old = {"dialect": '"input": {', "shape": '"input": {\n  "'}.get(place, FREE.get(place, ""))
    reseal_text(bundle, old, new)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("place", FREE)
def test_text_that_is_no_json_for_everybody(bundle, name, place):
    text, problem = TEXTS[name]
    put(bundle, place, text)
    with pytest.raises(aeedge.CorruptBundleError, match=rf"manifest\.json: .*({problem})") as caught:
        aeedge.load(bundle)
    assert len(str(caught.value)) < 700
    result = run("info", bundle)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize("name", UNUSUAL)
@pytest.mark.parametrize("place", [*FREE, "shape"])
def test_json_that_is_hard_to_write_again(bundle, name, place):
    """Refused where it is kept; elsewhere refused, or passed over like every unknown key."""
    put(bundle, place, UNUSUAL[name])
    problem = fault(bundle)
    assert len(problem) < 700
    assert "manifest.json" in problem or place in ("score", "id")


def test_a_key_of_the_manifest_that_is_there_twice(bundle):
    reseal_text(bundle, '"format_version": 1', '"format_version": 1, "format_version": 1')
    with pytest.raises(aeedge.CorruptBundleError, match="the key 'format_version' is there twice"):
        aeedge.load(bundle)


@pytest.mark.parametrize("version", ["", "x", "9" * 5000, "-1", "1\x1b[31m" + "0" * 100, "٣.1"])
def test_a_version_that_is_none(bundle, version):
    reseal(bundle, lambda d: d.__setitem__("min_onnxruntime", version))
    with pytest.raises(aeedge.CorruptBundleError, match=r"expected a version such as '1\.12\.1', .* at \$\.min_onnx"):
        aeedge.load(bundle)


@pytest.mark.parametrize(
    "scale", ["1", "1.5", ["1"] * 12, True, [True] * 12, [1e-60] * 12, 1e39, 10**39, [[1] * 12] * 2]
)
def test_a_scale_that_is_no_positive_float32_of_the_shape(bundle, scale):
    reseal(bundle, lambda d: d["score"].__setitem__("scale", scale))
    with pytest.raises(aeedge.CorruptBundleError, match=r"at \$\.score\.scale"):
        aeedge.load(bundle)


def test_missing_values_of_a_huge_row_are_looked_up_without_a_table_of_it(bundle):
    def change(document):
        document["input"] |= {"shape": [2**31 - 1], "features": None, "units": None}
        document["input"]["missing"] = {"policy": "drop", "codes": {str(2**31 - 2): [1], "01": [2]}}

    reseal(bundle, change)
    with pytest.raises(aeedge.CorruptBundleError, match="codes by name or position of a value, not '01'"):
        aeedge.load(bundle)


@pytest.mark.parametrize("codes", [{"0": [1e300]}, {"0": [10**39]}])
def test_codes_beyond_float32_are_no_warning(bundle, codes):
    reseal(
        bundle, lambda d: d["input"].__setitem__("missing", {"policy": "median", "fill": [1e300] * 12, "codes": codes})
    )
    with pytest.raises(aeedge.CorruptBundleError, match="a fill of '0' that is not one of its codes"):
        aeedge.load(bundle)


@pytest.mark.parametrize(
    "decisions", [{"layers": 5}, {"layers": [5]}, {"layers": [{}]}, {"layers": {"a": 1}}, {"x": []}]
)
def test_decisions_that_nobody_made_are_harmless(bundle, decisions):
    reseal(bundle, lambda d: d["variants"]["fp32"].__setitem__("decisions", decisions))
    assert run("info", bundle).exit_code == 0
    aeedge.load(bundle, check="golden").close()


HOSTILE = "a\x1b[2J\x1b]0;title\x07\x9b31m\u202eb\u2066c\r\nError: d\x7f\x00\u200be\u2028f"


def hostile(document):
    document["name"] = document["family"] = document["created"] = HOSTILE
    document["input"]["features"] = [f"{i}{HOSTILE}" for i in range(12)]
    document["input"]["units"] = [HOSTILE] * 12
    document["made_with"] = {HOSTILE: HOSTILE}
    document["training"] = {HOSTILE: HOSTILE, "x": {HOSTILE: [HOSTILE]}}
    document["variants"]["fp32"]["quality"] = {HOSTILE: 1.0}
    document["variants"]["fp32"]["decisions"] = {
        "layers": [
            {"graph": HOSTILE, "layer": HOSTILE, "choice": choice, "why": HOSTILE} for choice in ("fp32", "int8")
        ]
    }


@pytest.mark.parametrize("command", ["info", "info --json", "verify", "verify --json", "doctor", "doctor --json"])
def test_no_name_reaches_the_terminal_as_a_command(bundle, command):
    reseal(bundle, hostile)
    command, *options = command.split()
    result = run(command, bundle, *options)
    assert result.exit_code == 0, result.output
    assert_harmless(result.output)
    assert not re.search(r"^Error: d", result.output, re.MULTILINE)
    if command == "info" and options:
        document = json.loads(result.output)
        assert document["name"] == document["input"]["units"][3] == HOSTILE


def test_neither_do_names_in_errors(bundle, tmp_path):
    reseal(bundle, hostile)
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    result = run("encode", bundle, tmp_path / "rows.csv", "-o", tmp_path / "out.csv")
    assert result.exit_code == 2
    assert_harmless(result.output)
    assert not re.search(r"^Error: d", result.output, re.MULTILINE)
    reseal(bundle, lambda d: d["variants"]["fp32"]["quality"].__setitem__(HOSTILE, None))
    result = run("info", bundle)
    assert result.exit_code == 1
    assert_harmless(result.output)
    assert "\\x1b[2J" in result.output


def test_a_model_shows_itself_in_one_line(bundle):
    reseal(bundle, hostile)
    assert printable(repr(aeedge.load(bundle)), None) == repr(aeedge.load(bundle))


def test_printable_leaves_writing_as_it_is():
    for text in ("Temperatur, °C", "µ±², 12\u202f000\xa0h", "温度", "é", "e\u0301", "-", ""):
        assert printable(text, None) == text
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"
    assert printable("\U000e0041\ud800") == "\\U000e0041\\ud800"


def test_a_damaged_manifest_is_not_read_twice(bundle, monkeypatch):
    reseal(bundle, lambda d: d.__setitem__("opset", None))
    opened = []
    whole = Bundle._open
    monkeypatch.setattr(Bundle, "_open", lambda self: opened.append(1) or whole(self))
    with pytest.raises(aeedge.CorruptBundleError):
        aeedge.load(bundle)
    assert len(opened) == 1


def test_names_with_line_ends_are_quoted_in_csv(bundle, tmp_path):
    names = [f"{i}{end}" for i, end in enumerate(("\r", "\n", "\r\n", ",", '"', " ", "\x1b", "", "ß", ";", "\t", "'"))]
    reseal(bundle, lambda d: d["input"].__setitem__("features", names))
    np.save(tmp_path / "z.npy", np.zeros((2, 3), np.float32))
    result = run("decode", bundle, tmp_path / "z.npy", "-o", tmp_path / "x.csv")
    assert result.exit_code == 0, result.output
    with open(tmp_path / "x.csv", newline="", encoding="utf-8") as stream:
        table = list(csv.reader(stream))
    assert table[0] == names
    assert [len(row) for row in table] == [12, 12, 12]
