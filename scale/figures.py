"""The figures that scale is reckoned from: those that a bench has measured, read where it printed them, and rules.

Nothing is measured here and no figure is kept twice: who runs the bench again changes docs/benchmarks.md, and with it
what `make scale` says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from neve.domain.cost import COLLECT_GB, WHOLE_GB, WRITE_BYTES_PER_S, WRITE_GB, WRITE_S
from scale.thread import Times

BENCHMARKS = Path(__file__).parents[1] / "docs" / "benchmarks.md"


class FigureMissing(Exception):
    """docs/benchmarks.md does not have a figure where it is expected."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A measured value. `letter` is that of the bench's part that printed it, on `date`."""

    what: str
    value: float
    unit: str
    letter: str
    date: str

    @property
    def command(self) -> str:
        """What measures it again."""
        return f"python -m bench --only {self.letter}"


@dataclass(frozen=True, kw_only=True)
class Run:
    """The run of the deployed thread on the local cloud, as part (c) printed it. Times in seconds."""

    files: int
    file_bytes: int
    files_per_s: float
    until_all_s: float
    p50_s: float
    p99_s: float
    archives: int
    date: str


_NUMBER = r"\**([\d,.]+)\**"
_CPU = rf"the CPU time of this run \({_NUMBER} and {_NUMBER} ms a file\)"

# What is read: where it stands, and the name and unit of each number that the pattern finds there.
_WANTED: tuple[tuple[str, str, tuple[tuple[str, str, str], ...]], ...] = (
    (
        "e",
        _CPU,
        (
            ("collect_event", "processor time of Collect for an event", "ms"),
            ("write_member", "processor time of WriteArchive for a file", "ms"),
        ),
    ),
    (
        "j",
        _CPU,
        (
            ("plan_file", "processor time of PlanRestore for a file", "ms"),
            ("extract_file", "processor time of Extract for a file", "ms"),
        ),
    ),
    (
        "k",
        rf"\| 1,000,000 +\|[^|]+\| +{_NUMBER} +\|",
        (("reconciled", "versions that a shard of Reconcile goes over", "a second"),),
    ),
    ("m", rf"\| CopyUpload +\| +{_NUMBER} \|", (("copy_upload", "processor time of CopyUpload for an upload", "ms"),)),
    (
        "a",
        rf"\| 4 KB +\|[^|]+\| +{_NUMBER}/s",
        (("local_4_kb", "files of 4 KB by WriteArchive on the local cloud", "a second"),),
    ),
    (
        "a",
        rf"\| 100 KB +\|[^|]+\| +{_NUMBER}/s",
        (("local_100_kb", "files of 100 KB by WriteArchive on the local cloud", "a second"),),
    ),
)
_RUN = (
    r"\| ([\d,]+) of (\d+) KB \| +[\d.]+ s, ([\d,]+)/s \| +([\d.]+) s \|[^|]+\| +([\d.]+) s \| +([\d.]+) s \| +(\d+) \|"
)


def _section(text: str, letter: str) -> tuple[str, str]:
    """(its date, its text), with what was broken into lines as one."""
    found = re.search(
        rf"<!-- measured: {letter} -->\s+\*(\d{{4}}-\d\d-\d\d)(.*?)<!-- end: {letter} -->", text, re.DOTALL
    )
    if found is None:
        raise FigureMissing(f"docs/benchmarks.md has no part ({letter}): run python -m bench --only {letter}")
    return found[1], found[2]


def _found(pattern: str, section: str, letter: str) -> re.Match[str]:
    found = re.search(pattern, section)
    if found is None:
        raise FigureMissing(
            f"part ({letter}) of docs/benchmarks.md has nothing like {pattern!r}: scale/figures.py reads it"
        )
    return found


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def measured(document: Path = BENCHMARKS) -> dict[str, Figure]:
    """The measured figures, by short names. Raises FigureMissing."""
    text = document.read_text()
    figures: dict[str, Figure] = {}
    for letter, pattern, wanted in _WANTED:
        date, section = _section(text, letter)
        found = _found(pattern, section, letter)
        for (name, what, unit), value in zip(wanted, found.groups(), strict=True):
            figures[name] = Figure(what=what, value=_number(value), unit=unit, letter=letter, date=date)
    return figures


def local_run(document: Path = BENCHMARKS) -> Run:
    """What part (c) measured. Raises FigureMissing."""
    date, section = _section(document.read_text(), "c")
    files, kilobytes, rate, until_all_s, p50_s, p99_s, archives = map(_number, _found(_RUN, section, "c").groups())
    return Run(
        files=int(files),
        file_bytes=int(kilobytes) * 1000,
        files_per_s=rate,
        until_all_s=until_all_s,
        p50_s=p50_s,
        p99_s=p99_s,
        archives=int(archives),
        date=date,
    )


# -- Rules of a Region ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What nobody can measure here, with where it comes from."""

    what: str
    value: float
    unit: str
    source: str


DELIVERY = Rule(
    what="S3's event is in the queue (median)",
    value=0.7,
    unit="s",
    source='assumed; S3 user guide, "Event Notifications": "typically deliver events in seconds but can sometimes take '
    'a minute or longer"',
)
LATE = Rule(what="the same, for 1 of 100", value=2.0, unit="s", source="assumed, as in the latency budget")
POLLS = Rule(
    what="polls of a queue, by one poller",
    value=10,
    unit="a second",
    source='Lambda developer guide, "Using provisioned mode"; of the pollers of other mappings nothing is stated, so '
    "theirs are taken for as slow",
)
REQUEST = Rule(
    what="a request of a function to DynamoDB or SQS",
    value=0.010,
    unit="s",
    source='assumed; DynamoDB: "single-digit millisecond", and the way',
)
S3_REQUEST = Rule(what="a request of a function to S3", value=0.025, unit="s", source="assumed; some 20 to 30 ms")
S3_COPY = Rule(what="CopyObject of a small object", value=0.100, unit="s", source="assumed")
START = Rule(what="start of an environment", value=2.0, unit="s", source="assumed, as in the latency budget")
NETWORK = Rule(
    what="network of an environment, in and out each",
    value=WRITE_BYTES_PER_S / 1e6,
    unit="MB/s",
    source="the same as in neve.domain.cost",
)
WRITE = Rule(
    what="an archive besides its files: requests one after the other",
    value=WRITE_S,
    unit="s",
    source="the same as in neve.domain.cost",
)
PAGE = Rule(what="a listing's page of 1,000 versions", value=0.15, unit="s", source="assumed; 100 to 200 ms")
ARCHIVE_ROWS = Rule(
    what="a million rows of archives, read one page after the other",
    value=60,
    unit="s",
    source="neve.flows.drill; 1 MB a page",
)
RULES = (DELIVERY, LATE, POLLS, REQUEST, S3_REQUEST, S3_COPY, START, NETWORK, WRITE, PAGE, ARCHIVE_ROWS)

COLLECT_S = 0.02
"""Of an invocation of Collect besides its requests and its events."""


def slowed(cpu_ms: float, memory_gb: float) -> float:
    """Seconds that so much processor time takes in a function of so much memory: one processor comes with 1,769 MB."""
    return cpu_ms / 1000 * max(1.0, WHOLE_GB / memory_gb)


def region(figures: dict[str, Figure]) -> Times:
    """The thread in a Region: processor time as measured, ways by rule."""
    return Times(
        delivery_s=DELIVERY.value,
        late_s=LATE.value,
        answer_s=1 / POLLS.value,
        request_s=REQUEST.value,
        start_s=START.value,
        collect_s=COLLECT_S,
        collect_event_s=slowed(figures["collect_event"].value, COLLECT_GB),
        write_s=WRITE.value,
        write_member_s=slowed(figures["write_member"].value, WRITE_GB),
        write_bytes_per_s=WRITE_BYTES_PER_S,
    )


LOCAL_START_S = 1.0
LOCAL_REQUEST_S = 0.005


def local(figures: dict[str, Figure], file_bytes: int) -> Times:
    """The thread on the local cloud: what (a) measured of one writer, by size between files of 4 and of 100 KB."""
    least_s, most_s = 1 / figures["local_4_kb"].value, 1 / figures["local_100_kb"].value
    member_s = least_s + (most_s - least_s) * (file_bytes - 4_000) / 96_000
    return Times(
        delivery_s=0.01,
        late_s=0.05,
        answer_s=0.0,
        request_s=LOCAL_REQUEST_S,
        start_s=LOCAL_START_S,
        collect_s=COLLECT_S,
        collect_event_s=figures["collect_event"].value / 1000,
        write_s=0.1,
        write_member_s=member_s,
        write_bytes_per_s=1e12,
        local=True,
    )
