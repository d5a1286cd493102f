"""Resolve: files that move while they are looked for, look-ups that fail, and files that only the archive has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest

from neve.domain.index import ArchiveRow, ArchiveState, FileRow
from neve.domain.layout import Layout, content_key
from neve.domain.pointer import InContent, OnHost
from neve.domain.recall import AGAIN, EXTRACTION, SOON, UNHEARD, Recall, back_at
from neve.domain.restore import Ending, Job, JobState, Request, parse_plan
from neve.domain.route import Answer, Asked, Kind, Rules
from neve.domain.thaw import Need, Thaw, ThawState, Tier
from neve.errors import NeveError, Transient
from neve.flows.copy_upload import UploadCopier
from neve.flows.recall import Recaller
from neve.flows.release_upload import UploadReleaser
from neve.flows.resolve import Resolver
from tests.interleave import Steps, explored
from tests.memory import CONTENT, START, MemoryArchives, MemoryFiles, MemoryParkingLot, MemoryQueue
from tests.memory_offload import MemoryPointers
from tests.memory_restore import MemoryRestores, MemoryThaws
from tests.memory_serve import MemoryRecalls, MemorySigner
from tests.memory_uploads import UPLOADS, MemoryUploads

KEY = "photos/a.jpg"
NOW = START + timedelta(days=1)
ENOUGH = timedelta(seconds=6)
RULES = Rules(
    layout=Layout.AS_IS,
    cdn_bases=("https://cdn.example.com",),
    private_prefixes=("private/",),
    redirect_max_age_s=300,
    upload_url_s=60,
    signed_url_s=600,
)
RESTORING = replace(RULES, restores=True)


@dataclass(frozen=True)
class StandingIn:
    """The port Standing on a bucket of MemoryUploads."""

    uploads: MemoryUploads
    bucket: str

    def holds(self, key: str) -> bool:
        return self.uploads.current(self.bucket, key) is not None


def as_it_is(port: Any) -> Any:
    return port


@dataclass
class Site:
    """Resolve over memory, beside the functions that move files. `watch` wraps what they all call."""

    rules: Rules = RULES
    watch: Callable[[Any], Any] = as_it_is
    now: datetime = NOW
    buckets: MemoryUploads = field(default_factory=MemoryUploads)
    pointers: MemoryPointers = field(default_factory=MemoryPointers)
    files: MemoryFiles = field(default_factory=MemoryFiles)
    archives: MemoryArchives = field(default_factory=MemoryArchives)
    thaws: MemoryThaws = field(default_factory=MemoryThaws)
    restores: MemoryRestores = field(default_factory=MemoryRestores)
    recalls: MemoryRecalls = field(default_factory=MemoryRecalls)
    requests: MemoryQueue = field(default_factory=MemoryQueue)

    def ask(self, key: str = KEY, **asked: Any) -> Answer:
        return self.resolver.resolve(Asked(key=key, **asked), until=self.now + ENOUGH)

    @property
    def resolver(self) -> Resolver:
        content = self.watch(StandingIn(self.buckets, CONTENT))
        recaller = Recaller(
            files=self.watch(self.files),
            archives=self.watch(self.archives),
            thaws=self.watch(self.thaws),
            restores=self.watch(self.restores),
            recalls=self.watch(self.recalls),
            requests_queue=self.watch(self.requests),
            content=content,
            content_bucket=CONTENT,
            clock=lambda: self.now,
        )
        return Resolver(
            pointers=self.watch(self.pointers),
            uploads=self.watch(StandingIn(self.buckets, UPLOADS)),
            content=content,
            upload_signer=MemorySigner("uploads"),
            content_signer=MemorySigner("content"),
            recaller=recaller if self.rules.restores else None,
            rules=self.rules,
            clock=lambda: self.now,
        )

    def move(self, upload: Any) -> None:
        """Copy an upload, and let it go as soon as that is done."""
        UploadCopier(
            uploads=self.watch(self.buckets),
            pointers=self.watch(self.pointers),
            parking_lot=MemoryParkingLot(),
            uploads_queue=MemoryQueue(),
            release_queue=MemoryQueue(),
            files=self.watch(self.files),
            archives=self.watch(self.archives),
            uploads_bucket=UPLOADS,
            content_bucket=CONTENT,
            layout=self.rules.layout,
            release_after_s=900,
            clock=lambda: self.now,
        ).copy(upload, until=self.now + timedelta(minutes=5))
        UploadReleaser(
            uploads=self.watch(self.buckets), pointers=self.watch(self.pointers), content_bucket=CONTENT
        ).release(upload)

    def archive(self, key: str = KEY, version_id: str = "c1", **changed: Any) -> None:
        """Have the archive, and nothing else, hold a version that lay at `key` in the content bucket."""
        self.files.rows[key, version_id] = replace(ROW, key=key, version_id=version_id, pin=version_id, **changed)
        self.archives.rows[ROW.archive] = ARCHIVE

    def sent(self) -> list[Request]:
        """The restores that were asked for."""
        found = [parse_plan(body) for body, _ in self.requests.sent]
        assert all(isinstance(each, Request) for each in found)
        return [each for each in found if isinstance(each, Request)]


ROW = FileRow(
    key=KEY,
    version_id="c1",
    pin="c1",
    size_bytes=1,
    sha256="",
    md5="",
    last_modified=START,
    archive=7,
    number=0,
    offset_bytes=0,
)
ARCHIVE = ArchiveRow(
    serial=7,
    kind="tar",
    bundle="",
    object_key="archives/0000000007.tar",
    object_version_id="v1",
    storage_class="GLACIER",
    size_bytes=25_000_000,
    sha256="",
    source_bytes=24_000_000,
    files=240,
    duplicates=0,
    state=ArchiveState.ARCHIVED,
    written_at=START,
)


def pointer(version_id: str = "c1", key: str = KEY) -> InContent:
    return InContent(
        key=key,
        content_key=key,
        content_version=version_id,
        upload_version="u1",
        sequencer="1",
        size_bytes=1,
        etag="e",
        since=START,
    )


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def restoring() -> Site:
    """A site that brings files back which only the archive has."""
    return Site(rules=RESTORING)


# -- What is signed


def test_each_location_is_signed_by_the_signer_of_its_bucket(site: Site) -> None:
    site.buckets.put(UPLOADS, KEY, b"one")
    assert site.ask().location == f"signed:uploads:GET:60:{KEY}"
    assert site.ask(head=True).location == f"signed:uploads:HEAD:60:{KEY}"
    site.buckets.put(CONTENT, "private/a", b"one")
    assert site.ask("private/a", query="v=1").location == "signed:content:GET:600:private/a"
    site.buckets.put(CONTENT, "a", b"one")
    assert site.ask("a", query="v=1").location == "https://cdn.example.com/a?v=1"


# -- Files that move


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("restores", [False, True])
def test_a_file_is_never_unknown_while_it_is_moved(layout: Layout, restores: bool) -> None:
    def live(steps: Steps) -> None:
        site = Site(rules=replace(RULES, layout=layout, restores=restores), watch=steps.watch)
        upload = site.buckets.put(UPLOADS, KEY, b"one")
        answers: list[Answer] = []
        steps.run([lambda: site.move(upload), lambda: answers.extend(site.ask() for _ in range(2))])
        assert {each.kind for each in answers} <= {Kind.UPLOAD, Kind.CDN}
        assert site.ask().kind is Kind.CDN
        assert site.buckets.served(UPLOADS, KEY) is None, "it was let go"
        assert site.buckets.served(CONTENT, content_key(KEY, layout)) == b"one"

    assert explored(live, preemptions=2) > 50


def test_a_file_that_is_uploaded_anew_while_it_is_moved_is_never_unknown() -> None:
    def live(steps: Steps) -> None:
        site = Site(watch=steps.watch)
        first = site.buckets.put(UPLOADS, KEY, b"one")

        def again() -> None:
            site.move(site.buckets.put(UPLOADS, KEY, b"two"))

        answers: list[Answer] = []
        steps.run([lambda: site.move(first), again, lambda: answers.append(site.ask())])
        assert {each.kind for each in answers} <= {Kind.UPLOAD, Kind.CDN}

    assert explored(live, preemptions=1) > 50


def test_a_file_that_a_host_has_until_it_is_moved_is_never_unknown() -> None:
    def live(steps: Steps) -> None:
        site = Site(watch=steps.watch)
        site.pointers.rows[KEY] = OnHost(key=KEY, url="https://www1.example.com/a", since=START)
        upload = site.buckets.put(UPLOADS, KEY, b"one")
        answers: list[Answer] = []
        steps.run([lambda: site.move(upload), lambda: answers.extend(site.ask() for _ in range(2))])
        assert {each.kind for each in answers} <= {Kind.HOST, Kind.CDN}

    assert explored(live, preemptions=2) > 10


# -- Look-ups that fail


class Denied(Exception):
    """What S3 or DynamoDB says instead of an answer."""


@dataclass
class Failing:
    """A port whose call number `at`, counted with all others, raises."""

    port: Any
    calls: list[str]
    at: int
    error: Exception

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.port, name)

        def call(*args: Any, **named: Any) -> Any:
            self.calls.append(name)
            if len(self.calls) == self.at:
                raise self.error
            return found(*args, **named)

        return call


@pytest.mark.parametrize(
    "error", [Denied(), Transient("throttled"), TimeoutError()], ids=lambda error: type(error).__name__
)
def test_a_look_up_that_fails_is_never_an_answer(error: Exception) -> None:
    """Wherever a file may be, and also where it is nowhere."""
    made = 0
    for rules in (RULES, RESTORING):
        for at in range(1, 20):
            calls: list[str] = []
            site = Site(rules=rules, watch=partial(Failing, calls=calls, at=at, error=error))
            site.archive()
            try:
                answer = site.ask()
            except type(error):
                made += 1
            else:
                assert len(calls) < at, "every call was made, and none failed"
                assert answer.kind is (Kind.RESTORING if rules.restores else Kind.UNKNOWN)
                break
    assert made == 4 + 10


def test_no_look_up_is_begun_when_the_time_is_up(site: Site) -> None:
    with pytest.raises(Transient, match="no time is left to look at: pointer"):
        site.resolver.resolve(Asked(key=KEY), until=NOW - timedelta(seconds=1))


# -- Files that only the archive has


def test_a_file_that_only_the_archive_has_is_unknown_unless_it_is_to_be_restored(site: Site) -> None:
    site.archive()
    assert site.ask().kind is Kind.UNKNOWN
    assert not site.requests.sent


def test_what_no_archive_has_is_unknown(restoring: Site) -> None:
    assert restoring.ask().kind is Kind.UNKNOWN
    restoring.pointers.rows[KEY] = pointer()
    assert restoring.ask().kind is Kind.UNKNOWN


@pytest.mark.parametrize("pointed", [False, True])
def test_the_first_who_asks_has_the_file_restored_to_its_place(restoring: Site, pointed: bool) -> None:
    restoring.archive()
    if pointed:
        restoring.pointers.rows[KEY] = pointer()
    answer = restoring.ask()
    assert (answer.status, answer.cache_control) == (202, "no-store")
    # 3 to 5 hours by Standard, and a minute for the extraction
    back = NOW + timedelta(hours=4, minutes=1)
    assert answer.retry_after_s == 4 * 3600 + 60
    assert answer.text == f"being restored, back about {back:%d %b %Y, %H:%M} UTC ({back:%Y-%m-%dT%H:%M:%SZ})"
    [request] = restoring.sent()
    [wanted] = request.items
    assert (wanted.key, wanted.pin, wanted.destination) == (KEY, "c1", f"s3://{CONTENT}/{KEY}")
    assert (request.chunk, request.chunks, request.overwrite) == (1, 1, False)
    assert request.need == Need(tier=Tier.STANDARD, days=1)
    assert 0 < request.estimate_usd < 0.01
    assert request.job == f"{NOW:%Y%m%dT%H%M%S}-recall-" + request.job[-8:]


def test_the_version_is_restored_that_the_pointer_names_and_no_older_one(restoring: Site) -> None:
    restoring.archive(version_id="c0")
    restoring.pointers.rows[KEY] = pointer("c1")
    assert restoring.ask().kind is Kind.UNKNOWN
    restoring.archive(version_id="c1")
    restoring.archive(version_id="c2", last_modified=NOW)
    restoring.ask()
    assert [request.items[0].pin for request in restoring.sent()] == ["c1"]


def test_without_a_pointer_the_newest_version_is_restored(restoring: Site) -> None:
    restoring.archive(version_id="c0")
    restoring.archive(version_id="c1", last_modified=NOW)
    restoring.ask()
    assert [request.items[0].pin for request in restoring.sent()] == ["c1"]


def test_with_the_layout_hashed_the_file_is_restored_to_its_place_in_the_content_bucket() -> None:
    site = Site(rules=replace(RESTORING, layout=Layout.HASHED))
    stored = content_key(KEY, Layout.HASHED)
    site.archive(stored)
    assert site.ask().kind is Kind.RESTORING
    [request] = site.sent()
    assert request.items[0].destination == f"s3://{CONTENT}/{stored}"


def test_an_archive_without_a_row_is_no_proof_that_there_is_no_file(restoring: Site) -> None:
    restoring.archive()
    restoring.archives.rows.clear()
    with pytest.raises(NeveError, match="archive 7"):
        restoring.ask()


def test_however_many_ask_one_job_is_sent(restoring: Site) -> None:
    restoring.archive()
    assert {restoring.ask().status for _ in range(500)} == {202}
    assert len(restoring.requests.sent) == 1


def test_of_those_who_ask_at_once_one_sends_a_job_in_any_order() -> None:
    def live(steps: Steps) -> None:
        site = Site(rules=RESTORING, watch=steps.watch)
        site.archive()
        answers: list[Answer] = []
        steps.run([lambda: answers.append(site.ask())] * 3)
        assert [each.kind for each in answers] == [Kind.RESTORING] * 3
        assert len(site.requests.sent) == 1

    assert explored(live, preemptions=1) > 100


def test_a_job_that_was_never_heard_of_is_sent_again_and_is_the_same(restoring: Site) -> None:
    restoring.archive()
    restoring.ask()
    [lost] = restoring.requests.take()
    restoring.now += UNHEARD - timedelta(seconds=1)
    assert restoring.ask().status == 202, "who wrote the recall may just be about to send its job"
    assert not restoring.requests.sent
    restoring.now += timedelta(seconds=1)
    assert [restoring.ask().status for _ in range(2)] == [202, 202]
    assert restoring.requests.take() == [lost]


def job(site: Site, **changed: Any) -> Job:
    """The job of the file's recall, as PlanRestore has opened it."""
    recall = site.recalls.rows[KEY]
    made = Job(id=recall.job, created_at=NOW, need=Need(tier=Tier.STANDARD, days=1), overwrite=False, chunks=1)
    site.restores.rows[recall.job] = replace(made, **changed)
    return site.restores.rows[recall.job]


def test_while_its_job_runs_a_file_is_being_restored_however_long_it_takes(restoring: Site) -> None:
    restoring.archive()
    restoring.ask()
    job(restoring)
    restoring.now += timedelta(days=3)
    answer = restoring.ask()
    assert (answer.status, answer.retry_after_s) == (202, SOON.total_seconds())
    assert len(restoring.requests.sent) == 1


def test_a_job_that_ended_while_the_file_was_looked_for_has_brought_it_back(restoring: Site) -> None:
    restoring.archive()
    restoring.ask()
    job(restoring, state=JobState.FINISHED, ended={Ending.RESTORED: 1})
    looks = iter([False, True])

    @dataclass
    class Late:
        def holds(self, key: str) -> bool:
            return next(looks)

    resolver = restoring.resolver
    assert resolver.recaller
    late = Late()
    resolver = replace(resolver, content=late, recaller=replace(resolver.recaller, content=late))
    assert resolver.resolve(Asked(key=KEY), until=NOW + ENOUGH).kind is Kind.CDN


def test_a_file_that_was_restored_and_is_gone_again_is_restored_again(restoring: Site) -> None:
    restoring.archive()
    restoring.ask()
    job(restoring, state=JobState.FINISHED, files=1, ended={Ending.RESTORED: 1}, finished_at=NOW)
    restoring.now += timedelta(seconds=1)
    assert restoring.ask().status == 202
    assert len({request.job for request in restoring.sent()}) == 2


def test_a_job_that_failed_is_followed_by_another_after_a_while_and_not_at_once(restoring: Site) -> None:
    restoring.archive()
    restoring.ask()
    failed = job(restoring, state=JobState.FINISHED, files=1, ended={Ending.OVER_CAP: 1}, finished_at=NOW)
    restoring.now += timedelta(minutes=20)
    answer = restoring.ask()
    assert (answer.status, answer.retry_after_s) == (503, 40 * 60)
    assert failed.id in answer.text
    assert len(restoring.requests.sent) == 1
    restoring.now = NOW + AGAIN
    assert restoring.ask().status == 202
    assert len(restoring.requests.sent) == 2


def test_a_restored_file_is_served_as_ever(restoring: Site) -> None:
    restoring.archive()
    restoring.pointers.rows[KEY] = pointer()
    restoring.ask()
    restoring.buckets.put(CONTENT, KEY, b"one")
    assert restoring.ask().kind is Kind.CDN


def thawing(**changed: Any) -> Thaw:
    thaw = Thaw(
        archive=7,
        state=ThawState.THAWING,
        tier=Tier.STANDARD,
        days=1,
        wanted_days=1,
        ready_at=NOW + timedelta(hours=3),
        due_at=None,
    )
    return replace(thaw, **changed)


@pytest.mark.parametrize(
    ("storage_class", "thaw", "asked", "expected"),
    [
        ("GLACIER", None, NOW, NOW + timedelta(hours=4) + EXTRACTION),
        ("GLACIER", None, NOW - timedelta(hours=3), NOW + timedelta(hours=1) + EXTRACTION),
        ("GLACIER", None, NOW - timedelta(hours=9), NOW + SOON),
        ("DEEP_ARCHIVE", None, NOW, NOW + timedelta(hours=10, minutes=30) + EXTRACTION),
        ("GLACIER_IR", None, NOW, NOW + EXTRACTION),
        ("GLACIER", thawing(), NOW, NOW + timedelta(hours=2) + EXTRACTION),
        ("GLACIER", thawing(tier=Tier.EXPEDITED, ready_at=NOW + timedelta(minutes=5)), NOW, NOW + timedelta(minutes=4)),
        ("GLACIER", thawing(state=ThawState.CLAIMED), NOW, NOW + timedelta(hours=2) + EXTRACTION),
        ("GLACIER", thawing(state=ThawState.WARM, warm_until=NOW + timedelta(days=1)), NOW, NOW + EXTRACTION),
        ("GLACIER", thawing(state=ThawState.WARM, warm_until=NOW), NOW, NOW + timedelta(hours=4) + EXTRACTION),
    ],
    ids=str,
)
def test_when_a_file_is_back_is_told_by_how_its_thaw_stands(
    storage_class: str, thaw: Thaw | None, asked: datetime, expected: datetime
) -> None:
    archive = replace(ARCHIVE, storage_class=storage_class)
    assert back_at(archive, thaw, asked_at=asked, now=NOW) == expected


def test_a_recall_is_taken_over_by_one_only() -> None:
    recalls = MemoryRecalls()
    recall = Recall(stored=KEY, pin="c1", job="j", asked_at=NOW, sent_at=NOW)
    assert recalls.swap(None, recall)
    assert not recalls.swap(None, recall)
    later = replace(recall, sent_at=NOW + UNHEARD)
    assert recalls.swap(recall, later)
    assert not recalls.swap(recall, later)
