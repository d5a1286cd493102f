"""Text for terminals: what S3 allows in a key must neither move the cursor nor pass for something else."""

from __future__ import annotations

import math
import unicodedata
from datetime import datetime, timedelta

_SHORT = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
# Controls, formats (which can reverse the direction of text), surrogates, unassigned; line and paragraph separators.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"})


def safe(text: str) -> str:
    """`text` on one line, with what a terminal would act on or hide written as an escape; a backslash is doubled."""
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    return "".join(_SHORT.get(character) or _visible(character) for character in text)


def _visible(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN:
        return character
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def size(size_bytes: float) -> str:
    """Bytes for people: 24.3 MB."""
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size_bytes < 1000:
            return f"{size_bytes:,.0f} {unit}" if unit == "B" else f"{size_bytes:,.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:,.1f} PB"


def moment(value: datetime | None) -> str:
    """A time in UTC to the second; "-" if there is none."""
    return f"{value:%Y-%m-%d %H:%M:%S}" if value else "-"


def iso(value: datetime | None) -> str | None:
    """A time for JSON."""
    return value.isoformat() if value else None


def usd(value: float) -> str:
    """Dollars; what one file costs is far below a cent."""
    places = 2 if value >= 100 else 4 if value >= 0.01 or not value else 6
    return f"${value:,.{places}f}"


def exactly(usd: float) -> str:
    """A list price: 0.005, 0.0000133334."""
    return f"{usd:.10f}".rstrip("0").rstrip(".")


def span(time: timedelta) -> str:
    """How long, for people: 40 minutes, 5.0 hours, 2.0 days; never a bit less than it is."""
    minutes = -(-max(time, timedelta()) // timedelta(minutes=1))
    if minutes < 90:
        return f"{minutes} minute{'' if minutes == 1 else 's'}"
    hours = -(-minutes // 6) / 10
    return f"{hours:.1f} hours" if hours < 36 else f"{-(-minutes // 144) / 10:.1f} days"


def counted(number: int, noun: str) -> str:
    """1 file, 2,000 files."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percent(share: float, *, up: bool = False) -> str:
    """A share from 0 to 1 in percent, by three digits, rounded down unless `up`: nothing less than all is 100 %."""
    value = share * 100
    if value in (0, 100):
        return f"{value:.0f} %"
    places = max(1, 2 - math.floor(math.log10(value)))
    scaled = round(value * 10**places, 6)
    return f"{(math.ceil(scaled) if up else math.floor(scaled)) / 10**places:.{places}f} %"
