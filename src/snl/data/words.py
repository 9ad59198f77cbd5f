"""The meaning of folder names and labels: normal, anomalous, a split, masks, or none of these.

Names are compared word by word: `Good-1`, `OK_images`, `not_defective`, `fehlerfreieTeile` and
`sans défaut` are normal, `NG2`, `badParts` and `n.i.O.` are anomalous. Words that say neither, such
as `parts`, `left` or a number, do not matter. With any other word a name only *mentions* a label
(`crack_tester`), and its siblings decide (`snl.data.kinds`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

from snl.data import vocabulary

Label = Literal["normal", "anomalous"]
Part = Literal["train", "test", "validation"]

_SCOPE = 3
"""A negation refers to a label at most this many words later: `no visible surface defects`."""
_LONGEST = 200
"""Characters of a name that are read."""
_SHORTEST_GLUED = 3
_OPPOSITE: dict[Label, Label] = {"normal": "anomalous", "anomalous": "normal"}
_PLAIN_LETTERS = str.maketrans({"\N{LATIN SMALL LETTER DOTLESS I}": "i", "ł": "l"})
_EAST_ASIAN = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"


@dataclass(frozen=True)
class Meaning:
    """What the words of a name say."""

    labels: frozenset[Label]
    """The labels that its words say, after negation; both if it contradicts itself."""
    certain: bool
    """True if all other words say nothing, so that the name is a label and not a product's."""
    verdict: bool
    """True if a word is a verdict (`good`, `NG`), which is no name of a product or of its part."""
    unlabelled: bool
    """True if it says that labels are missing (`unsorted`)."""
    doubtful: bool
    """True if its label is in doubt (`possible_defect`)."""
    rest: tuple[str, ...]
    """The words without a known meaning."""

    @property
    def label(self) -> Label | None:
        """The label that the name says or mentions; None if there is none or there are both."""
        return next(iter(self.labels)) if len(self.labels) == 1 and not self.doubtful else None

    @property
    def contradictory(self) -> bool:
        """True if the name is a label, but it is not clear which."""
        return len(self.labels) == 2 or (self.doubtful and self.certain)


def label_of(name: str) -> Label | None:
    """Return the label that a name is, or None if it is none, is ambiguous or has other words.

    >>> label_of("Good-1"), label_of("sans défaut"), label_of("not_ok"), label_of("metal_nut")
    ('normal', 'normal', 'anomalous', None)
    """
    meaning = meaning_of(name)
    return meaning.label if meaning.certain else None


def folder_label(path: Path) -> tuple[Label | None, str]:
    """Return the label that the folders of an image state, and the folder's name that states it.

    The nearest of three folders decides, so that `known defects/bolt/1.png` is anomalous.
    """
    folder = path.absolute().parent
    if (label := label_of(folder.name)) is not None:
        return label, folder.name
    split = folder.parent
    if split_of(split.name) == "test" and (split.parent / "train").is_dir():
        return "anomalous", folder.name
    for parent in (split, split.parent):
        if (label := label_of(parent.name)) is not None:
            return label, parent.name
    return None, folder.name


def split_of(name: str) -> Part | None:
    """Return the split that a folder's name is, or None.

    >>> split_of("Test images"), split_of("test_public"), split_of("test_private")
    ('test', 'test', None)
    """
    found: set[Part] = set()
    for word in _words(name):
        if (part := _split_words().get(word)) is not None:
            found.add(part)
        elif not (word.isdigit() or word in _set(vocabulary.SPLIT_FILLERS)):
            return None
    return found.pop() if len(found) == 1 else None


def stated_split(name: str) -> Part | None:
    """Return the split that a word of a name states beside its label: `test_good`; or None."""
    found = {part for word in _words(name) if (part := _split_words().get(word)) is not None}
    return found.pop() if len(found) == 1 else None


def is_mask_name(name: str) -> bool:
    """Return True if a folder's name says that it contains masks: `ground_truth`, `NG_masks`."""
    words = list(_words(name))
    if "ground" in words and "truth" in words:
        words = [w for w in words if w not in ("ground", "truth")] + ["masks"]
    masks, weak = _set(vocabulary.MASKS), _set(vocabulary.ANNOTATIONS)
    meaning = meaning_of(" ".join(word for word in words if word not in masks | weak))
    if meaning.rest:
        return False
    # `bad label` is a defect of a part that has a label; `bad masks` are masks of bad parts.
    return not masks.isdisjoint(words) or not (weak.isdisjoint(words) or meaning.labels)


@lru_cache(maxsize=4096)
def meaning_of(name: str) -> Meaning:
    """Return what the words of a name say."""
    labels: set[Label] = set()
    kinds: set[str] = set()
    flags: set[str] = set()
    rest: list[str] = []
    negated_until = -1
    words = list(_words(name))
    for index, word in enumerate(words):
        if (entry := _find_label(word)) is not None:
            label, kind = entry
            is_negated = index <= negated_until or words[index + 1 : index + 2] in _suffixes()
            labels.add(_OPPOSITE[label] if is_negated else label)
            kinds.add(kind)
            negated_until = -1
        elif word.isdigit():
            negated_until = -1  # `No 5`
        elif word in _set(vocabulary.NEGATIONS) or (word == "n" and _is_ok(words[index + 1 :])):
            negated_until = index + _SCOPE
        elif word in _set(vocabulary.DOUBTS):
            flags.add("doubtful")
        elif word in _set(vocabulary.UNLABELLED):
            flags.add("unlabelled")
        elif not (_says_nothing(word) or [word] in _suffixes()):
            rest.append(word)
    certain = not rest and bool(labels or flags)
    return Meaning(
        frozenset(labels),
        certain,
        verdict="verdict" in kinds or (certain and "state" in kinds),
        unlabelled="unlabelled" in flags and not labels,
        doubtful="doubtful" in flags,
        rest=tuple(rest),
    )


def fold(text: str) -> str:
    """Return text for comparison: no case, no accents, compatible characters as one."""
    if text.isascii():
        return text.lower()
    plain = text.casefold().translate(_PLAIN_LETTERS)
    decomposed = unicodedata.normalize("NFKD", plain)
    kept = "".join(c for c in decomposed if not unicodedata.combining(c))
    return unicodedata.normalize("NFC", kept)


def _words(name: str) -> Iterator[str]:
    """Yield the words of a name, folded, without separators; a number is a word of digits."""
    text = unicodedata.normalize("NFKC", name[:_LONGEST])
    text = re.sub(r"(?i)(?<![^\W\d_])n[\W_]*i[\W_]*o(?![^\W\d_])", " nio ", text)
    text = re.sub(r"(?i)(?<![^\W\d_])i[\W_]*o(?![^\W\d_])", " io ", text)
    for chunk in re.findall(rf"[{_EAST_ASIAN}]+|\d+|[^\W\d_{_EAST_ASIAN}]+", text):
        yield from _split(chunk)


@lru_cache(maxsize=4096)
def _split(chunk: str) -> tuple[str, ...]:
    return tuple(_pieces(chunk))


def _pieces(chunk: str) -> Iterator[str]:
    """Yield the words of a run of letters without separators: `GoodParts`, `badparts`, `不良品`."""
    folded = fold(chunk)
    if re.fullmatch(r"\d+", chunk) or _is_known(folded):
        yield folded
    elif (match := _glued().fullmatch(folded)) is not None:
        for group in ("before", "negation", "label", "suffix", "after"):
            if match[group]:
                yield match[group]
    elif re.match(rf"[{_EAST_ASIAN}]", chunk):
        yield from _scan(folded)
    else:
        camel = re.sub(r"([^\W\d_])(?=[^\W\d_])", _camel_border, chunk)
        parts = camel.split()
        for part in parts:
            yield from _split(part) if len(parts) > 1 else (fold(part),)


def _camel_border(match: re.Match[str]) -> str:
    letter, text, after = match[1], match.string, match.end()
    starts = letter.islower() and text[after].isupper()
    ends_capitals = (
        text[after].isupper()
        and text[after + 1 : after + 2].islower()
        and text[max(after - 2, 0) : after].isupper()
        and after >= 2
    )
    return f"{letter} " if starts or ends_capitals else letter


def _scan(folded: str) -> Iterator[str]:
    """Yield the known words in text without spaces, longest first, and what is between them."""
    longest = max(map(len, _east_asian()), default=1)
    unknown, start = "", 0
    while start < len(folded):
        candidates = (folded[start : start + n] for n in range(longest, 0, -1))
        word = next((c for c in candidates if c in _east_asian()), "")
        if word and unknown:
            yield unknown
            unknown = ""
        if word:
            yield word
        else:
            unknown += folded[start]
        start += len(word) or 1
    if unknown:
        yield unknown


def _find_label(word: str) -> tuple[Label, str] | None:
    exact, stems = _labels()
    if word in exact:
        return exact[word]
    lengths = range(len(word), max(_SHORTEST_GLUED, len(word) - 7) - 1, -1)
    return next((stems[word[:n]] for n in lengths if word[:n] in stems), None)


def _is_ok(words: list[str]) -> bool:
    return words[:1] in (["ok"], ["io"])


def _says_nothing(word: str) -> bool:
    return word in _set(vocabulary.FILLERS) or word in _split_words() or len(word) == 1


def _is_known(word: str) -> bool:
    return (
        _find_label(word) is not None
        or _says_nothing(word)
        or word in _split_words()
        or any(word in _set(group) for group in _GROUPS)
    )


_GROUPS = (
    vocabulary.NEGATIONS,
    vocabulary.SUFFIX_NEGATIONS,
    vocabulary.DOUBTS,
    vocabulary.UNLABELLED,
    vocabulary.MASKS,
    vocabulary.ANNOTATIONS,
)


@cache
def _set(words: str) -> frozenset[str]:
    return frozenset(map(fold, words.split()))


@cache
def _suffixes() -> tuple[list[str], ...]:
    return tuple([word] for word in _set(vocabulary.SUFFIX_NEGATIONS))


@cache
def _labels() -> tuple[dict[str, tuple[Label, str]], dict[str, tuple[Label, str]]]:
    """Return (label, `verdict`, `state` or `other`) by word, and by the stem of words."""
    exact: dict[str, tuple[Label, str]] = {}
    stems: dict[str, tuple[Label, str]] = {}
    groups: tuple[tuple[str, Label, str], ...] = (
        (vocabulary.NORMAL_VERDICTS, "normal", "verdict"),
        (vocabulary.NORMAL_OTHERS, "normal", "other"),
        (vocabulary.DEFECT_VERDICTS, "anomalous", "verdict"),
        (vocabulary.DEFECT_STATES, "anomalous", "state"),
        (vocabulary.DEFECT_KINDS, "anomalous", "other"),
    )
    for words, label, kind in groups:
        for word in _set(words):
            (stems if word.endswith("*") else exact)[word.removesuffix("*")] = (label, kind)
    return exact, stems


@cache
def _split_words() -> dict[str, Part]:
    groups: tuple[tuple[str, Part], ...] = (
        (vocabulary.TRAIN, "train"),
        (vocabulary.TEST, "test"),
        (vocabulary.VALIDATION, "validation"),
    )
    return {word: part for words, part in groups for word in _set(words)}


@cache
def _east_asian() -> frozenset[str]:
    exact, _ = _labels()
    known = {*exact, *_split_words(), *_set(vocabulary.FILLERS)}.union(*map(_set, _GROUPS))
    return frozenset(w for w in known if re.fullmatch(rf"[{_EAST_ASIAN}]+", w))


@cache
def _glued() -> re.Pattern[str]:
    """Return the pattern of a label that is glued to a negation or to words that say nothing."""
    exact, stems = _labels()
    asian = rf"[{_EAST_ASIAN}]+"

    def choice(words: set[str] | frozenset[str], shortest: int) -> str:
        kept = [w for w in words if len(w) >= shortest or re.fullmatch(asian, w)]
        return "|".join(re.escape(w) for w in sorted(kept, key=lambda w: (-len(w), w)))

    label = choice(set(exact), 2)
    label += "|" + "|".join(rf"{re.escape(stem)}[^\W\d_]{{0,6}}?" for stem in sorted(stems))
    filler = choice(_set(vocabulary.FILLERS), 4)
    negation = choice(_set(vocabulary.NEGATIONS) - {"no", "pas", "los"}, 2)
    suffix = choice(_set(vocabulary.SUFFIX_NEGATIONS) - {"yok"}, 3)
    return re.compile(
        rf"(?P<before>{filler})?(?P<negation>{negation})?(?P<label>{label})(?P<suffix>{suffix})?"
        rf"(?P<after>{filler})?"
    )
