"""Names: words of people who sort parts, and characters that break programs."""

from __future__ import annotations

NORMAL = (
    *("good parts", "good_parts", "Good-1", "GOOD2", "OK_images", "OK parts", "ok-2024", "Ok 1"),
    *("normal images", "normals_1", "passed units", "accepted_parts", "not_defective"),
    *("non-defective", "defect-free", "defect free", "no defects", "without_defects", "not bad"),
    *("Gutteile 2", "fehlerfrei_1", "i.O. Teile", "IO-Teile", "goodParts", "OKParts", "good.old"),
)
"""Folder names of normal parts in English and German that anybody understands."""

DEFECT = (
    *("bad parts", "bad_parts", "Bad-1", "BAD2", "NG_images", "NG parts", "ng-2024", "Ng 1"),
    *("defective units", "defects_1", "failed units", "rejected_parts", "not ok", "not_good"),
    *("not-ok", "no good", "abnormal images", "anomalous_1", "broken parts", "scratched_1"),
    *("Schlechtteile 2", "Ausschuss_1", "n.i.O. Teile", "NIO-Teile", "badParts", "NGParts"),
)
"""Folder names of defective parts, likewise."""

FOREIGN = (
    *(
        ("良品", "不良品"),
        ("合格", "不合格"),
        ("正常", "异常"),
        ("양품", "불량"),
        ("정상", "비정상"),
    ),
    *(("годные", "брак"), ("bonnes pièces", "mauvaises pièces"), ("conforme", "non conforme")),
    *(("buenas", "malas"), ("sin defectos", "con defectos"), ("buoni", "scarti")),
    *(("boas", "ruins"), ("goed", "fout"), ("dobre", "złe"), ("iyi", "kötü"), ("tốt", "lỗi")),
    *(("hyvä", "viallinen"), ("bra", "dåliga"), ("جيد", "معيب"), ("תקין", "פגום")),
)
"""Pairs of folder names in other languages: normal, defective."""

HOSTILE = {
    "newline": "a\nb.png",
    "tab": "a\tb.png",
    "escape": "a\x1b[31mred\x1b[0m.png",
    "title": "a\x1b]0;owned\x07.png",
    "backspace": "a\b\b\bb.png",
    "carriage": "a\rb.png",
    "delete": "a\x7fb.png",
    "c1": "a\x9b31mb.png",
    "bidi": "a\u202egnp.exe.png",
    "line-separator": "a\u2028b.png",
    "nbsp": "a\u00a0b.png",
    "quotes": "a'\"`b.png",
    "shell": "$(touch owned);&|<>*?.png",
    "percent": "100%s%n{}{0}.png",
    "dash": "-rf.png",
    "dashes": "--json.png",
    "at": "@file.png",
    "equals": "a=b=c.png",
    "spaces": "  a  b .png",
    "dots": "a...png.png",
    "markup": "<script>alert(1)<.png",
    "emoji": "🔩👩‍🏭.png",
    "decomposed": "Scha\u0308den.png",
    "longest": "x" * 251 + ".png",
    "wide": "歪" * 83 + ".png",
    "backslash": "a\\b.png",
    "colon": "http:a.png",
    "device": "con.png",
}
"""File names that break programs, by what is in them."""

NOT_UTF8 = b"caf\xe9\xff.png"
"""A file name of another encoding."""
