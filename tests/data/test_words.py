"""What folder names mean: words of several languages, negation, numbers, compounds."""
# ruff: noqa: RUF001, E501

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snl.data.words import is_mask_name, label_of, meaning_of, split_of

NORMAL = """
good|GOOD|Good-1|good parts|goodParts|GoodParts|goodparts|OK|OK2|OK_images|ok.images|OKparts|test OK
0_good|Good (2)|001-OK|okay|normal|Normals|accepted|pass|passed|not_defective|not defective|no defect
no_defects|defect-free|defectfree|DefectFree|non-defective|nondefective|NonDefective|without defects
without any visible defect|nodefect|no-anomaly|undamaged|not damaged|not rejected|anomaly_free
fault free|no faults|i.O.|i.O|IO|iO|i. O.|i_o|gut|Gut 2|Gutteile|gute Teile|Gut-Teile|fehlerfrei
Fehlerfreie Teile|fehlerfreieTeile|ohne Fehler|keine Fehler|ohne Mängel|kein Defekt|einwandfrei
bon|bonnes pièces|sans défaut|sans_defauts|conforme|conformes|aucun défaut|buono|pezzi buoni
senza difetti|bueno|piezas buenas|sin defectos|aprobado|bom|peças boas|sem defeitos|aprovado|goed
goedgekeurd|zonder fouten|dobre|dobry|bez wad|bezvadné|bez vad|dobré díly|iyi|sağlam|hatasız|kusursuz
hata yok|хорошие|годные|без дефектов|исправные|не бракованные|良品|合格|合格品|正常|OK品|无缺陷|没有缺陷
異常なし|欠陥なし|良品画像|양품|정상|합격품|결함 없음|불량없음|ｇｏｏｄ
"""
ANOMALOUS = """
bad|Bad-1|bad parts|BadParts|badparts|BAD|NG|ng2|NG_images|NGImages|NG品|NOK|NOKparts|nok-3|not ok
not_ok|notOK|Not-Good|N-OK|n_ok|no ok|not accepted|defect|defective|Defects_2024|with defects|anomaly
anomalies|abnormal|fail|failed parts|rejects|rejected|scrap|faulty|damaged|KO|unacceptable
nonconforming|n.i.O.|NIO|nio|n. i. O.|N.i.O|niO|nicht ok|nicht gut|nichtok|schlecht|Schlechtteile
schlechte Teile|fehlerhaft|Fehlerteile|defekt|defekte_Teile|beschädigt|beschaedigt|Ausschuß|Ausschuss
défaut|avec défauts|défectueux|mauvais|pièces mauvaises|non conforme|non conformi|rebut|difettosi|difetto
scarti|defectuosas|con defectos|rechazados|no conforme|defeituosos|com defeito|reprovado|não conforme
fout|foute|afgekeurd|slecht|niet goed|wadliwe|uszkodzone|niezgodne|vadné|neshodné|poškozené|hatalı
kusurlu|iyi değil|брак|дефектные|негодные|не годен|бракованный|не хорошие|不良|不良品|不合格|缺陷|有缺陷
异常|次品|異常|欠陥|不良品画像|불량|불량품|결함|비정상|cracked_left|crack|scratch 3|broken_large|Kratzer|划痕
"""
NEITHER = """
toothbrush|metal_nut|crack_tester|broken_teeth_gear|good_year_tyre|goodyear|passport|badewanne|cracker
nook|okno|bolt|A|B|Grade A|001|left|images|parts|no|not|No 5|kopf|gutter|normalised|okra|koi|badge
goodies_box|failsafe switch|pass_through|螺丝|Schraube|vis|bent_wire|color|combined|pill_type
"""
BOTH = "good_bad|gut und schlecht|ok_ng|positive|negative|false_ng|possible defect|OK or NOK"


def listed(text: str) -> list[str]:
    return [name for line in text.strip().splitlines() for name in line.split("|")]


@pytest.mark.parametrize("name", listed(NORMAL))
def test_names_of_normal_images(name: str) -> None:
    assert label_of(name) == "normal"


@pytest.mark.parametrize("name", listed(ANOMALOUS))
def test_names_of_anomalous_images(name: str) -> None:
    assert label_of(name) == "anomalous"


@pytest.mark.parametrize("name", listed(NEITHER))
def test_names_that_are_no_labels(name: str) -> None:
    assert label_of(name) is None
    assert not meaning_of(name).contradictory


@pytest.mark.parametrize("name", listed(BOTH))
def test_names_that_contradict_themselves(name: str) -> None:
    assert label_of(name) is None and meaning_of(name).contradictory


@pytest.mark.parametrize(
    ("name", "mentioned"),
    [
        ("crack_tester", "anomalous"),
        ("good_year_tyre", "normal"),
        ("NG_Schraube", "anomalous"),
        ("Gehäuse OK", "normal"),
        ("螺丝不良", "anomalous"),
        ("螺丝良品", "normal"),
        ("gear_without_defects", "normal"),
    ],
)
def test_names_that_mention_a_label(name: str, mentioned: str) -> None:
    meaning = meaning_of(name)
    assert meaning.label == mentioned and not meaning.certain


def test_a_negation_does_not_reach_over_a_number() -> None:
    assert label_of("No5_OK") == label_of("OK_No5") == "normal"


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("Train", "train"),
        ("training images", "train"),
        ("TrainSet", "train"),
        ("train_2", "train"),
        ("test", "test"),
        ("Test-Data", "test"),
        ("test_public", "test"),
        ("val", "validation"),
        ("Validation_01", "validation"),
        ("测试集", "test"),
        ("test_private", None),
        ("test_stand", None),
        ("train_parts", None),
        ("test_good", None),
        ("toy train", None),
        ("train_test", None),
    ],
)
def test_splits(name: str, split: str | None) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize(
    ("name", "is_mask"),
    [
        ("ground_truth", True),
        ("GroundTruth", True),
        ("Ground Truth", True),
        ("gt", True),
        ("Masks", True),
        ("mask_images", True),
        ("NG_masks", True),
        ("bad-masks", True),
        ("Masken", True),
        ("labels", True),
        ("segmentation", True),
        ("bad_label", False),
        ("label_missing", False),
        ("face_mask", False),
        ("gtx", False),
        ("good", False),
    ],
)
def test_mask_folders(name: str, is_mask: bool) -> None:
    assert is_mask_name(name) == is_mask


@given(st.text(max_size=60))
def test_any_name_is_read(name: str) -> None:
    meaning = meaning_of(name)
    assert meaning_of(name) == meaning
    assert label_of(name) in (None, "normal", "anomalous")
    split_of(name)
    is_mask_name(name)


@given(
    st.sampled_from(["good", "bad", "OK", "NG", "nicht ok", "defect-free", "良品", "дефект"]),
    st.sampled_from(["", "_1", " 2024-05-01", "-images", ".parts", " (3)"]),
    st.booleans(),
)
def test_case_numbers_and_fillers_do_not_matter(name: str, more: str, upper: bool) -> None:
    assert label_of((name.upper() if upper else name) + more) == label_of(name)
