"""What archiving costs: what no SDK sees of it, and what full bundles take.

In scope is what varies with the number of files, from the content bucket's event to `archived`: requests and Lambda
time. Storage, and what a month costs without any file, are not. What is logged, and what offloading takes, is reckoned
apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from neve.domain.large import SINGLE_COPY_BYTES, ranges
from neve.domain.metering import MESSAGES_A_REQUEST
from neve.domain.prices import GB, MILLION, Charge, Use
from neve.domain.thaw import DAYS_A_MONTH, needs_thaw
from neve.domain.upload import LOOK_BYTES


def archive_put(storage_class: str) -> Charge:
    """What one PUT into the archive's storage class is metered as. Raises KeyError for a class neve does not use."""
    return {
        "GLACIER": Charge.S3_PUT_GLACIER,
        "DEEP_ARCHIVE": Charge.S3_PUT_DEEP_ARCHIVE,
        "GLACIER_IR": Charge.S3_PUT_GLACIER_IR,
    }[storage_class]


# -- What no SDK sees --------------------------------------------------------------------------------------------------


def unseen(
    *,
    events: float,
    batch_files: float = MESSAGES_A_REQUEST,
    requests_to_write: float,
    invocations: float,
    gb_seconds: float,
    gb_seconds_rule: str,
) -> list[Use]:
    """What no SDK sees. `events` are S3's, that many in a batch; `requests_to_write` have a bundle written."""
    return [
        *_events(events, batch_files),
        _hidden(
            "receiving and deleting requests to write",
            Charge.SQS_REQUEST,
            2 * requests_to_write,
            "those mappings hand over one message at a time",
        ),
        _hidden("invocations", Charge.LAMBDA_REQUEST, invocations, "one for each batch of messages"),
        _hidden("time of the functions", Charge.LAMBDA_GB_SECOND, gb_seconds, gb_seconds_rule),
    ]


def _events(events: float, batch_files: float = MESSAGES_A_REQUEST) -> list[Use]:
    return [
        _hidden("S3's events to the collect queue", Charge.SQS_REQUEST, events, "S3 sends one message for each upload"),
        _hidden(
            "receiving and deleting events",
            Charge.SQS_REQUEST,
            2 * math.ceil(batch_files / MESSAGES_A_REQUEST) * events / batch_files,
            "the mapping receives and deletes up to ten messages in a request",
        ),
    ]


ANNOUNCED_A_MESSAGE = 1_000
ANNOUNCEMENT_REQUESTS = 4
"""Versions in an announcement: a batch of a backfill, which has up to 200 KB; SQS charges each 64 KB begun of what is
sent or received as a request."""


def _announced(files: float) -> list[Use]:
    """What stands in the place of S3's events where neve itself tells of versions that were there before."""
    messages = files / ANNOUNCED_A_MESSAGE
    rule = f"{ANNOUNCED_A_MESSAGE:,} versions in a message, {ANNOUNCEMENT_REQUESTS} times 64 KB"
    return [
        Use(purpose="announcements", charge=Charge.SQS_REQUEST, quantity=messages * ANNOUNCEMENT_REQUESTS, rule=rule),
        _hidden(
            "receiving and deleting announcements",
            Charge.SQS_REQUEST,
            messages * (ANNOUNCEMENT_REQUESTS + 1),
            f"{rule}, and one to delete it",
        ),
    ]


def _hidden(purpose: str, charge: Charge, quantity: float, rule: str) -> Use:
    return Use(purpose=purpose, charge=charge, quantity=quantity, rule=rule, unseen=True)


# -- What archiving takes --------------------------------------------------------------------------------------------

REFERENCE_BYTES = 90
"""A reference in a part, compressed: half of it is the version id and the ETag, which are random."""
PART_ITEM_BYTES = 120
"""What a part's item has besides: its keys and its time to live."""

WHOLE_GB = 1769 / 1024
"""With so much memory a function has one processor. Source: Lambda developer guide, "Configure Lambda function
memory"."""
COLLECT_GB = 256 / 1024
COLLECT_S = 0.1
COLLECT_EVENT_S = 0.0005
COPY_GB = 512 / 1024
WRITE_GB = 1
WRITE_S = 0.3
WRITE_MEMBER_S = 0.007
WRITE_BYTES_PER_S = 75_000_000
LATE_TIMER_S = 0.03
"""Memory as the stack sets it. WriteArchive: a dozen requests one after the other; per member a GET, hashes and a row,
some 4 ms of a whole processor; and the bytes, in and out, at the network of one environment (about 75 MB/s)."""


COLLECT_WINDOW_S = 3
COLLECT_POLLERS = 5
MOST_BATCHED = 1_000
"""Collect's mapping gathers for so many seconds, by five pollers at first, and up to so many events as deployed.
Source: Lambda developer guide, "Using Lambda with Amazon SQS": polling begins with five batches at a time."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Files of one size that arrive at a rate: by default so fast that every bundle fills before its timer runs out.

    `batch_files` is how many events one Collect is handed, the first of which has waited for `waited_s` then: the timer
    of a bundle counts from its event. `announced`: they come by a backfill, without S3's events.
    """

    file_bytes: int = 100_000
    batch_files: float = MOST_BATCHED
    target_bytes: int = 25 * 1024 * 1024
    max_members: int = 2_000
    storage_class: str = "GLACIER"
    files_per_s: float = math.inf
    max_age_s: int = 20
    waited_s: float = 0
    announced: bool = False

    @property
    def members(self) -> int:
        """In a full bundle: the file that fills it still goes in."""
        return min(math.ceil(self.target_bytes / self.file_bytes), self.max_members)

    @property
    def bundled(self) -> float:
        """In a bundle as it is written; if it does not fill, what opened it and what came until its timer ran out."""
        return min(self.members, 1 + self.files_per_s * max(self.max_age_s / 2, self.max_age_s - self.waited_s))

    @property
    def full(self) -> bool:
        """Whether bundles fill before their timers run out."""
        return self.bundled == self.members

    @property
    def write_s(self) -> float:
        """How long WriteArchive takes for a bundle."""
        return WRITE_S + self.bundled * (WRITE_MEMBER_S + 2 * self.file_bytes / WRITE_BYTES_PER_S)


def arriving(
    files_per_s: float, *, announced: bool = False, window_s: float = COLLECT_WINDOW_S, **known: Any
) -> Workload:
    """Files that arrive at this rate, gathered for `window_s`; `known` is what else is known of the Workload."""
    batch = round(files_per_s * window_s / COLLECT_POLLERS) if math.isfinite(files_per_s) else MOST_BATCHED
    handed = ANNOUNCED_A_MESSAGE if announced else min(max(1, batch), MOST_BATCHED)
    waited_s = 0 if announced else window_s
    return Workload(files_per_s=files_per_s, batch_files=handed, waited_s=waited_s, announced=announced, **known)


def archiving(work: Workload, files: float = MILLION, *, late_timers: float | None = None) -> list[Use]:
    """What archiving `files` of `work` takes: named amounts per file, per Collect batch, per archive.

    `late_timers` came after their bundle was full; if not told, one of each bundle that was opened, where they fill.

    A batch fills as many bundles as it can by itself; its rest goes to the open bundle that the lane names. Retries,
    races between Collects, and duplicates are not in it.
    """
    archives = files / work.bundled
    batches = files / work.batch_files
    whole = batches * (work.batch_files // work.members) if work.full else 0.0
    rest = work.batch_files % work.members if work.full else work.batch_files
    opened = archives - whole if rest else 0.0
    adds = batches + opened if rest else 0.0
    part = _part_units(rest * batches / adds) if rest else 0
    late = late_timers if late_timers is not None else opened if work.full else 0.0

    collect_s = batches * COLLECT_S + files * COLLECT_EVENT_S
    write_s = archives * work.write_s
    late_s = late * LATE_TIMER_S
    return [
        *(_announced(files) if work.announced else ()),
        *unseen(
            events=0 if work.announced else files,
            batch_files=work.batch_files,
            requests_to_write=archives + late,
            invocations=batches + archives + late,
            gb_seconds=collect_s * COLLECT_GB + (write_s + late_s) * WRITE_GB,
            gb_seconds_rule=f"Collect {COLLECT_S} s and {COLLECT_EVENT_S} s an event; WriteArchive {WRITE_S} s, "
            f"{WRITE_MEMBER_S} s a member, and its bytes in and out at {WRITE_BYTES_PER_S / MILLION:.0f} MB/s",
        ),
        *_objects(work, files),
        Use(
            purpose="requests to write",
            charge=Charge.SQS_REQUEST,
            quantity=archives + late,
            rule="one when a bundle is full, and one, delayed, that is its timer",
        ),
        _writes("parts of the open bundle", adds * part, f"{part} units for the references of a batch"),
        _writes("parts of whole bundles", whole * _part_units(work.members), "the references of a whole bundle"),
        _writes("counters of the open bundle", adds, "one update for each part"),
        _writes("opened bundles", opened * 3, "row, its entry in the index of unfinished ones, lane"),
        _writes("sealed bundles", whole * 2, "row, its entry in the index of unfinished ones"),
        _writes("claims", archives + late, "one for each request to write; a timer that comes late is refused"),
        _writes("serial numbers", archives * 2, "counter, bundle"),
        _writes("rows of archives", archives * 2, "written, archived"),
        _writes("finished bundles", archives * 2, "row, its entry in the index of unfinished ones"),
        _reads("look-up of rows that stand", files * 0.5, "half a unit a row, found or not: eventually consistent"),
        _reads("lane and open bundle", adds * 2 + late, "two consistent reads for each part, one for a late timer"),
        _reads("parts", archives * math.ceil(work.bundled * REFERENCE_BYTES / 4096), "consistent, 4 KB a unit"),
    ]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run of archiving really had: files that were bundled and others, batches of Collect, archives of many.

    `messages` is how many Collect has sent: a timer for each bundle that it opened, a request for each that was full,
    and one for each large file.
    """

    files: int
    size_bytes: int
    batches: int
    archives: int
    large: Sequence[int]
    messages: int
    storage_class: str


_TIME = frozenset({Charge.LAMBDA_GB_SECOND, Charge.LAMBDA_X86_GB_SECOND})


def requested(uses: Iterable[Use]) -> list[Use]:
    """What of it is not Lambda's time: that is the machine's, and another one takes another time."""
    return [use for use in uses if use.charge not in _TIME]


def as_run(run: Run) -> list[Use]:
    """What the model says of a run, without Lambda's time: held against the ledger, which says what it was."""
    uses: list[Use] = []
    if run.archives:
        work = Workload(
            file_bytes=max(1, round(run.size_bytes / run.files)),
            batch_files=run.files / run.batches,
            files_per_s=run.files / run.archives - 1,  # so that a second makes bundles as large as they were
            max_age_s=1,
            target_bytes=run.size_bytes + 1,
            max_members=run.files + 1,
            storage_class=run.storage_class,
        )
        late_timers = max(0, run.messages - run.archives - len(run.large))
        uses += archiving(work, run.files, late_timers=late_timers)
    for size_bytes in run.large:
        parts = 1 if size_bytes <= SINGLE_COPY_BYTES else len(ranges(size_bytes))
        uses += copying(1, parts=parts, storage_class=run.storage_class)
    return requested(uses)


COPY_S = 1.0
COPY_ROW_UNITS = 10
"""CopyLarge: a HEAD of the source and one of the copy, and the rows of bundle, archive and file."""


def copying(files: float, *, parts: int, storage_class: str, announced: bool = False) -> list[Use]:
    """What archiving `files` takes that S3 copies itself, each in so many parts; 1: by one request."""
    into_class = archive_put(storage_class)
    copies = 1 if parts == 1 else parts + 2
    # S3 user guide, "Multipart upload and pricing": what is on its way into these classes is charged as STANDARD.
    on_the_way = Charge.S3_PUT if needs_thaw(storage_class) else into_class
    return [
        *(_announced(files) if announced else _events(files)),
        _hidden("receiving and deleting requests to copy", Charge.SQS_REQUEST, 2 * files, "one message at a time"),
        _hidden("invocations", Charge.LAMBDA_REQUEST, 2 * files, "Collect and CopyLarge"),
        _hidden("time of the functions", Charge.LAMBDA_GB_SECOND, files * copies * COPY_S * COPY_GB, f"{COPY_S} s"),
        Use(purpose="requests to copy", charge=Charge.SQS_REQUEST, quantity=files, rule="one a file"),
        Use(purpose="looking at files and copies", charge=Charge.S3_GET, quantity=2 * files, rule="a HEAD of each"),
        Use(
            purpose="archives",
            charge=into_class,
            quantity=files,
            rule="one COPY a file" if parts == 1 else "completed once each",
        ),
        Use(
            purpose="parts of archives",
            charge=on_the_way,
            quantity=files * (copies - 1),
            rule=f"opened, and copied in {parts} parts each",
        ),
        Use(purpose="manifests", charge=Charge.S3_PUT, quantity=files, rule="one PUT for each archive"),
        _writes("rows", files * COPY_ROW_UNITS, f"{COPY_ROW_UNITS} units for bundle, archive and file"),
        _reads("rows", files * 3, "bundle, part and file"),
    ]


INVOCATION_LOG_BYTES = 2_000
LINE_BYTES = 400
"""What an invocation logs: three lines of Lambda's own, its outcome, its metrics, its ledger; and a line for a file.
CloudWatch adds 26 bytes to each line. Measured on lines as they are logged."""
LOG_MONTHS = 3
LOG_STORED = 0.2
"""Log groups keep lines for three months; CloudWatch compresses them. Source: CloudWatch pricing page, example
"Monitoring with logs": 30 GB come to 6."""


def logged(invocations: float, lines: float = 0) -> list[Use]:
    """What the logs of so many invocations take, with so many lines that tell of a file each."""
    gb = (invocations * INVOCATION_LOG_BYTES + lines * LINE_BYTES) / GB
    return [
        Use(
            purpose="logs",
            charge=Charge.LOG_GB,
            quantity=gb,
            rule=f"{INVOCATION_LOG_BYTES:,} bytes an invocation" + (f", {LINE_BYTES} a line" if lines else ""),
            unseen=True,
        ),
        Use(
            purpose="logs kept",
            charge=Charge.LOG_GB_MONTH,
            quantity=gb * LOG_STORED * LOG_MONTHS,
            rule=f"{LOG_MONTHS} months, compressed to a fifth",
            unseen=True,
        ),
    ]


UPLOADS_A_BATCH = 10
OFFLOAD_GB = 256 / 1024
COPY_UPLOAD_GB_S = 0.2 * OFFLOAD_GB
RELEASE_UPLOAD_GB_S = 0.05 * OFFLOAD_GB
"""Of an upload: four requests of CopyUpload one after the other, three of ReleaseUpload."""


def offloading(files: float, size_bytes: int, *, attic_days: int) -> list[Use]:
    """What moving `files` of this size from the uploads bucket takes, the agent's PUT not among it.

    An upload that was let go stays in the attic: it is paid for twice so long.
    """
    parts = 1 if size_bytes <= SINGLE_COPY_BYTES else len(ranges(size_bytes)) + 2
    looks = 2 if size_bytes >= LOOK_BYTES else 1
    requests = [
        _hidden("S3's events to the uploads queue", Charge.SQS_REQUEST, files, "S3 sends one message for each upload"),
        _hidden(
            "receiving and deleting messages",
            Charge.SQS_REQUEST,
            4 * files / UPLOADS_A_BATCH,
            "the event, and the message that lets the upload go, ten in a request",
        ),
        Use(purpose="messages to let uploads go", charge=Charge.SQS_REQUEST, quantity=files, rule="one a file"),
        Use(purpose="copies", charge=Charge.S3_PUT, quantity=files * parts, rule="one COPY a file, or its parts"),
        Use(
            purpose="looking at uploads and copies",
            charge=Charge.S3_GET,
            quantity=files * looks,
            rule=f"a HEAD before it is let go, and one before it is copied from {LOOK_BYTES // 1024} KB on",
        ),
        _reads("pointers", 2 * files, "consistent, before the copy and before it is let go"),
        _writes("pointers", files, "one unit a row"),
        _hidden("invocations", Charge.LAMBDA_REQUEST, 2 * files / UPLOADS_A_BATCH, "ten uploads at a time"),
        _hidden(
            "time of the functions",
            Charge.LAMBDA_GB_SECOND,
            files * (COPY_UPLOAD_GB_S + RELEASE_UPLOAD_GB_S),
            "0.2 s of CopyUpload and 0.05 s of ReleaseUpload an upload",
        ),
        Use(
            purpose="attic",
            charge=Charge.S3_STANDARD_GB_MONTH,
            quantity=files * size_bytes / GB * attic_days / DAYS_A_MONTH,
            rule=f"{attic_days} days at the rate of STANDARD",
        ),
    ]
    return [*requests, *logged(2 * files / UPLOADS_A_BATCH, lines=2 * files)]


def floor(work: Workload, files: float = MILLION) -> list[Use]:
    """What S3, SQS and DynamoDB charge at the least, however the functions are written."""
    return [*(_announced(files) if work.announced else _events(files)), *_objects(work, files)]


def _objects(work: Workload, files: float) -> list[Use]:
    """Each file read once and given a row; each archive and its manifest written once."""
    archives = files / work.bundled
    return [
        Use(purpose="reading files", charge=Charge.S3_GET, quantity=files, rule="one GET a file"),
        _writes("rows of files", files, "one unit a row"),
        Use(
            purpose="archives",
            charge=archive_put(work.storage_class),
            quantity=archives,
            rule=f"one PUT for {work.bundled:,.4g} files",
        ),
        Use(purpose="manifests", charge=Charge.S3_PUT, quantity=archives, rule="one PUT for each archive"),
    ]


def _part_units(references: float) -> int:
    return math.ceil((references * REFERENCE_BYTES + PART_ITEM_BYTES) / 1024)


def _writes(purpose: str, quantity: float, rule: str) -> Use:
    return Use(purpose=purpose, charge=Charge.DYNAMODB_WRITE_UNIT, quantity=quantity, rule=rule)


def _reads(purpose: str, quantity: float, rule: str) -> Use:
    return Use(purpose=purpose, charge=Charge.DYNAMODB_READ_UNIT, quantity=quantity, rule=rule)
