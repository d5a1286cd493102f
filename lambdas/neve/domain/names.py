"""The path of each member inside its archive: safe to extract anywhere, and never shared by two members."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

FOLDER = "files"
"""The folder inside the archive that holds all members; MANIFEST.json lies beside it."""

MAX_KEY_BYTES = 1_024
"""S3 user guide, "Naming Amazon S3 objects". Escaping makes a key three times as long at most, so a path has less than
4,000 bytes; Linux takes 4,095, with the folder that the archive is extracted into."""

MAX_COMPONENT_BYTES = 255
"""NAME_MAX of ext4, XFS, APFS, ZFS."""

_MARK_BYTES = 13
"""A tilde and 12 hexadecimal digits."""

_UNSAFE = re.compile(
    r"[\x00-\x1f\x7f-\x9f"  # C0, DEL, C1: a terminal obeys them
    r"\u2028\u2029"  # line and paragraph separator
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional controls: they reorder what a listing shows
    r"\ud800-\udfff"  # lone surrogates: no UTF-8 for them
    r"\\%]"  # a separator elsewhere; the escape itself
)

_SPECIAL = {"": "%", ".": "%2E", "..": "%2E%2E"}
"""A lone percent sign cannot otherwise occur, so an empty component stays distinguishable."""

_CUT_ESCAPE = re.compile(rb"%[0-9A-F]?\Z")

_IGNORED = re.compile(
    r"[\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    r"\u3164\ufe00-\ufe0f\ufeff\uffa0]"
)
"""Default-ignorable characters, which HFS+ and case-folding ext4 and F2FS skip when they compare names."""


_NEWER = re.compile(
    "([\u0897\u0cf3\u0ece\u1acf-\u1aeb\u1c89\u1c8a\ua7cb-\ua7cf\ua7d2\ua7d4\ua7da-\ua7dc\ua7f1"
    "\U000105c9\U000105e4\U00010d50-\U00010d85\U00010efa-\U00010eff\U00011241\U00011383-\U000113e2"
    "\U00011b60-\U00011b67\U00011f00-\U00011f5a\U00013440\U00013447-\U00013455\U0001611e-\U0001612f"
    "\U00016d68-\U00016d6a\U00016ea0-\U00016ed3\U0001ccd6-\U0001ccf9\U0001e030-\U0001e08f"
    "\U0001e4ec-\U0001e4ef\U0001e5ee\U0001e5ef\U0001e6e3-\U0001e6f5]+)"
)
"""What Unicode 15.0 to 17.0 gave a case, a normal form or a rank among combining marks. Python 3.11 has the tables of
14.0 and later ones have newer; left alone, these characters lead to the same names on all of them."""


def safe_names(members: Sequence[tuple[str, str]]) -> list[str]:
    """The path inside the archive for each (key, pin), in the same order; it depends on nothing but this set.

    The rules are in docs/format.md, "Names". All paths begin with `files/`, have components of at most 255 bytes and
    at most 4,000 bytes in all; no two are equal, and none is a folder of another, also where case and Unicode
    normalization do not count.

    Raises ValueError if `members` is not strictly ascending or a key is longer than S3 allows.
    """
    if any(earlier >= later for earlier, later in pairwise(members)):
        raise ValueError("members must be sorted by (key, pin), each once")
    components: dict[str, str] = {}
    paths = [natural_path(key, components) for key, _ in members]
    folded = [folded_path(path) for path in paths]
    needed = sorted(folded)
    taken: set[str] = set()
    for position, (key, pin) in enumerate(members):
        attempt = 0
        natural = paths[position]
        while folded[position] in taken or _is_folder(folded[position], needed):
            paths[position] = marked_path(natural, key, pin, attempt)
            folded[position] = folded_path(paths[position])
            attempt += 1
        taken.add(folded[position])
    return paths


def is_safe(path: str) -> bool:
    """Whether `path` could be one of safe_names: it extracts to inside `files/` anywhere, and prints as one line."""
    folder, *components = path.split("/")
    return (
        folder == FOLDER
        and bool(components)
        and not _UNSAFE.search(path.replace("%", ""))
        and not any(component in _SPECIAL or len(component.encode()) > MAX_COMPONENT_BYTES for component in components)
    )


def natural_path(key: str, components: dict[str, str] | None = None) -> str:
    """The path that `key` gets if no other member is in its way: no other key has the same.

    `components` remembers what was escaped before. Raises ValueError if the key is longer than S3 allows.
    """
    components = {} if components is None else components
    if len(key.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES:
        raise ValueError(f"key is longer than {MAX_KEY_BYTES} bytes: {key[:60]!r}...")
    parts = [FOLDER]
    for component in key.split("/"):
        escaped = components.get(component)
        if escaped is None:
            escaped = components[component] = _escaped(component)
        parts.append(escaped)
    return "/".join(parts)


def _escaped(component: str) -> str:
    special = _SPECIAL.get(component)
    if special is not None:
        return special
    escaped = _UNSAFE.sub(_percent, component)
    if len(escaped.encode()) <= MAX_COMPONENT_BYTES:
        return escaped
    return _cut(escaped) + _mark(escaped.encode())


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))


def _mark(data: bytes) -> str:
    return "~" + hashlib.sha256(data).hexdigest()[: _MARK_BYTES - 1]


def _cut(component: str) -> str:
    """As much of `component` as leaves room for a mark, without half a character or half an escape at its end."""
    data = component.encode()[: MAX_COMPONENT_BYTES - _MARK_BYTES]
    if len(data) < len(component.encode()):
        data = _CUT_ESCAPE.sub(b"", data)
    return data.decode("utf-8", "ignore")


def marked_path(path: str, key: str, pin: str, attempt: int) -> str:
    """`path` with a mark of this member, and of the attempt from the second one on: where another is in the way."""
    seed = f"{key}\0{pin}" if attempt == 0 else f"{key}\0{pin}\0{attempt}"
    folder, _, last = path.rpartition("/")
    return f"{folder}/{_cut(last)}{_mark(seed.encode('utf-8', 'surrogatepass'))}"


def _is_folder(folded: str, needed: list[str]) -> bool:
    """Whether some member needs a folder at this path. `needed` holds all folded paths, sorted.

    NUL separates components and occurs in none, so what lies below a path follows it at once.
    """
    below = folded + "\0"
    position = bisect_left(needed, below)
    return position < len(needed) and needed[position].startswith(below)


def folded_path(path: str) -> str:
    """What file systems that fold case or normalize Unicode may reduce `path` to; coarser than any of them.

    Components are separated by NUL: some characters normalize to a slash.
    """
    path = path.replace("/", "\0")
    if path.isascii():
        return path.lower()
    return "".join(piece if position % 2 else _fold(piece) for position, piece in enumerate(_NEWER.split(path)))


def _fold(text: str) -> str:
    while True:
        folded = unicodedata.normalize("NFKC", _IGNORED.sub("", text).casefold())
        if folded == text:
            return folded
        text = folded
