"""What neve.ports promises of runs, audits and sources, held against the ports in memory and the adapters (moto)."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import pytest
from botocore.response import StreamingBody
from botocore.stub import Stubber
from moto.s3.models import s3_backends

from neve.aws import clients
from neve.aws.audits_table import GLANCE, SOURCES_BYTES
from neve.aws.crc64 import crc64nvme, stated
from neve.aws.pieces import PIECE_BYTES
from neve.domain.audit import KEEP, Audit, Cause, LastAudit, Progress, Report, Run, Stage
from neve.domain.digest import Digest
from neve.domain.restore import DETAIL_CHARACTERS
from neve.domain.sampling import Month, Rolling
from neve.domain.thaw import Need, Tier
from neve.domain.verdict import Finding, Sight, Sighting, Verdict
from neve.domain.version import ObjectVersion
from neve.errors import NeveError, SourceChanged, SourceDamaged, SourceGone, Transient
from neve.ports import Archives, Audits, Bundles, Sources
from tests.bad_keys import BAD_KEYS
from tests.contract.test_ports import archive, bundle
from tests.memory import MemoryArchives, MemoryBundles, MemoryContent
from tests.memory_audits import MemoryAudits, MemorySources
from tests.moto_cloud import AUDITS, CONTENT, MotoCloud, moto_cloud

NOW = datetime(2026, 11, 22, 12, 0, 0, 123457, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
RUN, LATER_RUN = "20261122-120000-aaaaaaaa", "20261122-130000-bbbbbbbb"


@dataclass
class Ports:
    """The ports of one cloud, and what a test needs to look behind them."""

    audits: Audits
    sources: Sources
    archives: Archives
    bundles: Bundles
    behind: MotoCloud | MemoryContent

    def upload(self, key: str, body: bytes) -> ObjectVersion:
        if isinstance(self.behind, MotoCloud):
            return self.behind.upload(key, body, ChecksumAlgorithm="CRC64NVME")
        number = sum(name == key for name, _ in self.behind.objects) + 1
        etag = hashlib.md5(body).hexdigest()
        version = ObjectVersion(
            key=key, version_id=f"v{number}", size_bytes=len(body), etag=etag, sequencer="", event_at=NOW
        )
        self.behind.put(version, body, checksums={"CRC64NVME": stated(crc64nvme(body))})
        return version

    def upload_in_place(self, key: str, body: bytes) -> ObjectVersion:
        """As upload, while the bucket keeps no versions."""
        if isinstance(self.behind, MotoCloud):
            suspended: Any = {"Bucket": CONTENT, "VersioningConfiguration": {"Status": "Suspended"}}
            enabled: Any = {"Bucket": CONTENT, "VersioningConfiguration": {"Status": "Enabled"}}
            clients.s3().put_bucket_versioning(**suspended)
            clients.s3().put_object(Bucket=CONTENT, Key=key, Body=body)
            clients.s3().put_bucket_versioning(**enabled)  # moto's HEAD knows no version id while it is suspended
        etag = hashlib.md5(body).hexdigest()
        version = ObjectVersion(key=key, version_id="null", size_bytes=len(body), etag=etag, sequencer="", event_at=NOW)
        if isinstance(self.behind, MemoryContent):
            self.behind.put(version, body)
        return version

    def damage(self, version: ObjectVersion, body: bytes) -> None:
        """Have other bytes lie where those of the version lay; what S3 states of them stays."""
        if isinstance(self.behind, MotoCloud):
            [region] = s3_backends["123456789012"].values()
            found = region.get_object(CONTENT, version.key, version_id=version.version_id)
            assert found
            found.value = body  # type: ignore[misc]  # it has a setter, which mypy does not see
        else:
            source, _ = self.behind.objects[version.identity]
            self.behind.objects[version.identity] = (replace(source, size_bytes=len(body)), body)


def behind_aws(cloud: MotoCloud) -> Ports:
    return Ports(cloud.audits, cloud.sources, cloud.archives, cloud.bundles, cloud)


@pytest.fixture
def aws() -> Iterator[Ports]:
    with moto_cloud() as cloud:
        yield behind_aws(cloud)


@pytest.fixture(params=["memory", "aws"])
def ports(request: pytest.FixtureRequest) -> Ports:
    if request.param == "aws":
        made: Ports = request.getfixturevalue("aws")
        return made
    bundles, content = MemoryBundles(), MemoryContent()
    return Ports(MemoryAudits(), MemorySources(content), MemoryArchives(bundles=bundles), bundles, content)


@pytest.fixture
def audits(ports: Ports) -> Audits:
    return ports.audits


@pytest.fixture
def sources(ports: Ports) -> Sources:
    return ports.sources


def run(run_id: str = RUN, **changed: Any) -> Run:
    drawn = {Cause.RANDOM: (7,), Cause.ROLLING: (3, 1, 2)}
    return replace(Run(id=run_id, created_at=NOW, drawn=drawn, archives=40, cut=5, repair=True), **changed)


def audit(**changed: Any) -> Audit:
    made = Audit(
        run=RUN,
        archive=7,
        cause=Cause.RANDOM,
        need=Need(tier=Tier.BULK, days=1),
        repair=False,
        begun_at=NOW,
    )
    return replace(made, **changed)


def report(of: Audit, verdict: Verdict = Verdict.INTACT, **changed: Any) -> Report:
    made = Report(
        run=of.run,
        archive=of.archive,
        cause=of.cause,
        begun_at=of.begun_at,
        finished_at=NOW + DAY,
        verdict=verdict,
        counts={Verdict.INTACT: 2, Verdict.SOURCE_GONE: 1},
        size_bytes=9000,
    )
    return replace(made, **changed)


def opened(audits: Audits, made: Run | None = None) -> Run:
    return audits.open_run(made or run(), rolling=None, month=None)


def begun(audits: Audits, made: Audit | None = None, *, owner: str = "me") -> Audit:
    """An audit that is leased to `owner`."""
    standing = audits.begin(made or audit())
    assert standing
    leased = audits.lease(standing, owner=owner, now=NOW, until=NOW + 16 * MINUTE)
    assert leased
    return leased


def finished(audits: Audits, made: Audit | None = None, verdict: Verdict = Verdict.INTACT, **changed: Any) -> Report:
    leased = begun(audits, made)
    ended = report(leased, verdict, **changed)
    assert audits.finish(leased, ended, owner="me")
    return ended


# Runs


@pytest.mark.parametrize(
    "made",
    [
        run(),
        run(drawn={}, repair=False, cut=0),
        run(drawn={Cause.ASKED: tuple(random.Random(1).sample(range(1, 10**9), 10_000))}),
    ],
    ids=["drawn", "empty", "asked"],
)
def test_a_run_comes_back_as_it_was_drawn(audits: Audits, made: Run) -> None:
    assert audits.run(RUN) is None
    assert opened(audits, made) == made
    assert audits.run(RUN) == made


def test_a_draw_is_frozen(audits: Audits) -> None:
    opened(audits)
    finished(audits)
    standing = audits.run(RUN)
    assert standing
    assert standing.ended == 1
    again = audits.open_run(
        run(drawn={Cause.RANDOM: (8,)}, archives=41),
        rolling=(audits.rolling(), Rolling(frontier=9)),
        month=(Month(name="2026-11", stored_bytes=1, archives=1), Month(name="2026-11", stored_bytes=2, archives=2)),
    )
    assert again == standing
    assert audits.run(RUN) == standing
    assert audits.rolling() == Rolling()
    assert audits.month("2026-11") is None


FIRST = Month(name="2026-11", stored_bytes=10**15, archives=10**7)
SPENT = replace(FIRST, thawed_bytes=10**13, micro_usd=250_000, cut=3)
PASSED = Rolling(frontier=4, credit=1 / 3, ticked_at=NOW)


def test_the_rolling_pass_and_its_month_move_with_the_draw(audits: Audits) -> None:
    assert audits.rolling() == Rolling()
    assert audits.month("2026-11") is None
    audits.open_run(run(), rolling=(Rolling(), PASSED), month=(FIRST, SPENT))
    rolling, month = audits.rolling(), audits.month("2026-11")
    assert (rolling, month) == (replace(PASSED, revision=1), replace(SPENT, revision=1))
    assert month
    further, dearer = replace(rolling, frontier=8, credit=0.0), replace(month, thawed_bytes=2 * 10**13)
    audits.open_run(run(LATER_RUN), rolling=(rolling, further), month=(month, dearer))
    assert audits.rolling() == replace(further, revision=2)
    assert audits.month("2026-11") == replace(dearer, revision=2)
    assert audits.month("2026-12") is None


def test_the_pass_may_move_into_another_month(audits: Audits) -> None:
    audits.open_run(run(), rolling=(Rolling(), PASSED), month=(FIRST, SPENT))
    december = replace(FIRST, name="2026-12")
    audits.open_run(run(LATER_RUN), rolling=(audits.rolling(), PASSED), month=(december, december))
    assert audits.month("2026-11") == replace(SPENT, revision=1)
    assert audits.month("2026-12") == replace(december, revision=1)


@pytest.mark.parametrize("lost", ["rolling", "month"])
def test_who_draws_from_what_has_changed_meanwhile_draws_nothing(audits: Audits, lost: str) -> None:
    audits.open_run(run(), rolling=(Rolling(), PASSED), month=(FIRST, SPENT))
    rolling, month = audits.rolling(), audits.month("2026-11")
    assert month
    seen = (Rolling(), month) if lost == "rolling" else (rolling, FIRST)
    for stale in (seen, (replace(rolling, revision=7), replace(month, revision=7))):
        with pytest.raises(Transient):
            audits.open_run(run(LATER_RUN), rolling=(stale[0], Rolling(frontier=99)), month=(stale[1], FIRST))
    assert audits.run(LATER_RUN) is None
    assert (audits.rolling(), audits.month("2026-11")) == (rolling, month)


def test_runs_are_listed_by_time(audits: Audits) -> None:
    for each in (LATER_RUN, RUN):
        opened(audits, run(each))
    assert [each.id for each in audits.runs()] == [LATER_RUN, RUN]
    assert list(audits.runs(newest_first=False)) == [run(), run(LATER_RUN)]


def test_a_run_is_looked_after_until_it_is_told(audits: Audits) -> None:
    opened(audits)
    opened(audits, run(LATER_RUN, created_at=NOW + MINUTE))
    later = NOW + 2 * MINUTE
    assert list(audits.untold(NOW)) == []
    assert [each.id for each in audits.untold(later)] == [RUN, LATER_RUN]
    audits.told(RUN)
    assert [each.id for each in audits.untold(later)] == [RUN, LATER_RUN], "it has not ended"
    assert audits.end_run(RUN, NOW)
    assert not audits.end_run(RUN, later)
    assert not audits.end_run("20200101-000000-cccccccc", NOW), "and it makes no row"
    assert audits.run(RUN) == run(finished_at=NOW)
    assert next(audits.untold(later)) == run(finished_at=NOW)
    for _ in range(2):
        audits.told(RUN)
        assert audits.run(RUN) == run(finished_at=NOW, told=True)
        assert [each.id for each in audits.untold(later)] == [LATER_RUN]
    assert [each.id for each in audits.runs()] == [LATER_RUN, RUN]


# Audits under way


@pytest.mark.parametrize(
    "made",
    [audit(), audit(cause=Cause.ASKED, repair=True, need=Need(tier=Tier.STANDARD, days=3), archive=123_456_789_012)],
    ids=["plain", "large"],
)
def test_an_audit_begins_once(audits: Audits, made: Audit) -> None:
    assert audits.begin(made) == made
    leased = audits.lease(made, owner="me", now=NOW, until=NOW + MINUTE, trying=True)
    assert audits.begin(replace(made, begun_at=NOW + DAY, cause=Cause.ROLLING)) == leased
    assert audits.waiting(made.archive) == [leased]
    assert audits.last([made.archive]) == {made.archive: LastAudit(archive=made.archive, begun_at=NOW)}


def test_an_audit_that_has_ended_does_not_begin_again(audits: Audits) -> None:
    opened(audits)
    ended = finished(audits)
    assert audits.begin(audit(begun_at=NOW + 9 * DAY)) is None
    assert audits.waiting(7) == []
    assert list(audits.due(NOW + 99 * DAY)) == []
    assert audits.last([7])[7].begun_at == ended.begun_at


def test_the_last_audit_is_the_one_that_was_begun_last(audits: Audits) -> None:
    """Messages of two runs may come in any order."""
    later = audit(run=LATER_RUN, begun_at=NOW + MICROSECOND)
    assert audits.begin(later) == later
    assert audits.begin(audit()) == audit()
    assert audits.last([7]) == {7: LastAudit(archive=7, begun_at=NOW + MICROSECOND)}
    assert audits.waiting(7) == [audit(), later]
    third = audit(run="20261123-000000-cccccccc", begun_at=NOW + DAY)
    audits.begin(third)
    assert audits.last([7]) == {7: LastAudit(archive=7, begun_at=NOW + DAY)}


def test_the_audits_of_an_archive_wait_for_it_alone(audits: Audits) -> None:
    made = [audit(archive=7), audit(archive=70), audit(archive=7, run=LATER_RUN)]
    for each in made:
        audits.begin(each)
    assert audits.waiting(7) == [made[0], made[2]]
    assert audits.waiting(70) == [made[1]]
    assert audits.waiting(8) == []


def test_one_has_the_lease_until_it_ends(audits: Audits) -> None:
    audits.begin(audit())
    until = NOW + 16 * MINUTE
    assert audits.lease(audit(), owner="me", now=NOW, until=until) == audit(lease_owner="me", leased_until=until)
    assert audits.lease(audit(), owner="other", now=until, until=until + MINUTE) is None
    longer = audits.lease(audit(), owner="me", now=NOW, until=until + MINUTE)
    assert longer == audit(lease_owner="me", leased_until=until + MINUTE)
    other = audits.lease(audit(), owner="other", now=until + MINUTE + MICROSECOND, until=until + DAY)
    assert other == audit(lease_owner="other", leased_until=until + DAY)
    assert audits.lease(audit(archive=8), owner="me", now=NOW, until=until) is None, "there is none"
    assert audits.waiting(8) == []


def test_tries_are_counted_where_somebody_tries(audits: Audits) -> None:
    audits.begin(audit())
    tries = []
    for trying in (False, True, True, False):
        leased = audits.lease(audit(), owner="me", now=NOW, until=NOW + MINUTE, trying=trying)
        assert leased
        tries.append(leased.tries)
    assert tries == [0, 1, 2, 2]
    assert audits.lease(audit(), owner="other", now=NOW, until=NOW + MINUTE, trying=True) is None
    assert audits.waiting(7)[0].tries == 2


def test_the_sweep_looks_when_it_was_told_to(audits: Audits) -> None:
    audits.begin(audit())
    assert list(audits.due(NOW + GLANCE)) == []
    assert list(audits.due(NOW + GLANCE + MICROSECOND)) == [audit()]
    leased = begun(audits)
    audits.release(leased, owner="other", due_at=NOW + 9 * DAY)
    assert list(audits.due(NOW + DAY)) == [leased]
    audits.release(leased, owner="me", due_at=NOW + 2 * DAY)
    assert audits.waiting(7) == [audit()], "the lease is given back"
    assert list(audits.due(NOW + 2 * DAY)) == []
    audits.begin(audit(archive=8))
    assert list(audits.due(NOW + 2 * DAY + MICROSECOND)) == [audit(archive=8), audit()]
    audits.release(leased, owner="me", due_at=NOW)
    assert list(audits.due(NOW + MINUTE)) == [], "who has no lease any more changes nothing"


FAR = Progress(size_bytes=5 * 10**12, crc=2**64 - 1)


def test_progress_is_noted_by_who_has_the_lease(audits: Audits) -> None:
    audits.begin(audit())
    leased = audits.lease(audit(), owner="me", now=NOW, until=NOW + MINUTE, trying=True)
    assert leased
    hashed = replace(leased, stage=Stage.WAITING, of_source=FAR, of_archive=Progress(size_bytes=1, crc=0), tries=0)
    assert not audits.save(hashed, owner="other")
    assert audits.waiting(7) == [leased]
    assert audits.save(replace(hashed, lease_owner="other", leased_until=None), owner="me")
    assert audits.waiting(7) == [hashed], "the lease stays as it is"


def test_what_has_ended_is_not_brought_back(audits: Audits) -> None:
    opened(audits)
    leased = begun(audits)
    assert audits.finish(leased, report(leased), owner="me")
    assert not audits.save(leased, owner="me")
    audits.release(leased, owner="me", due_at=NOW)
    assert audits.lease(leased, owner="me", now=NOW, until=NOW + DAY) is None
    assert audits.waiting(7) == []
    assert list(audits.due(NOW + 99 * DAY)) == []


# Sightings


def sighting(number: int, **changed: Any) -> Sighting:
    body = f"{number}".encode()
    digest = Digest(
        size_bytes=number,
        sha256=hashlib.sha256(body).hexdigest(),
        md5=hashlib.md5(body, usedforsecurity=False).hexdigest(),
    )
    return replace(Sighting(sight=Sight.READ, digest=digest), **changed)


def test_sightings_come_back_by_their_numbers(audits: Audits) -> None:
    made = [sighting(number) for number in range(10_000)]
    made[7] = Sighting(sight=Sight.GONE, detail="404 NoSuchVersion \ud800")
    made[8] = Sighting(sight=Sight.READ, digest=Digest(size_bytes=10**13, crc64nvme="AAAAAAAAAAA="))
    made[9] = Sighting(sight=Sight.UNREAD, detail="\U0001f600" * 50)
    audits.put_sources(audit(), made)
    audits.put_sources(audit(run=LATER_RUN), [sighting(1)])
    found = audits.sources(audit())
    assert found[7].detail.startswith("404 NoSuchVersion ")
    assert [*found[:7], *found[8:]] == [*made[:7], *made[8:]]
    assert audits.sources(audit(run=LATER_RUN)) == [sighting(1)]
    assert audits.sources(audit(archive=8)) == []


def test_sightings_take_the_place_of_earlier_ones_however_many_items_those_needed(audits: Audits) -> None:
    noise = random.Random(1)
    wordy = [
        Sighting(sight=Sight.UNREAD, detail="".join(chr(noise.randrange(0x10000, 0x110000)) for _ in range(100)))
        for _ in range(2_000)
    ]
    audits.put_sources(audit(), wordy)
    assert audits.sources(audit()) == wordy
    for few in ([sighting(number) for number in range(2_000)], [], wordy[:1]):
        audits.put_sources(audit(), few)
        assert audits.sources(audit()) == few


def test_no_detail_is_kept_at_length(audits: Audits) -> None:
    audits.put_sources(audit(), [Sighting(sight=Sight.CHANGED, detail="d" * 5_000)])
    assert audits.sources(audit()) == [Sighting(sight=Sight.CHANGED, detail="d" * DETAIL_CHARACTERS)]


def test_sightings_expire_and_lie_away_from_what_waits(aws: Ports) -> None:
    aws.audits.put_sources(audit(), [sighting(number) for number in range(SOURCES_BYTES // 50)])
    items = clients.dynamodb().scan(TableName=AUDITS)["Items"]
    assert len(items) > 1
    assert {item["expires_at"]["N"] for item in items} == {str(int((NOW + KEEP).timestamp()))}
    assert {item["pk"]["S"] for item in items} == {f"audit#{RUN}#0000000007"}


# How they ended


def finding(key: str, **changed: Any) -> Finding:
    made = Finding(verdict=Verdict.LOST, evidence=f"archive 12 of 3 bytes: {key!r}", key=key, pin="null-e", number=9)
    return replace(made, **changed)


def test_an_audit_ends_in_one_step(audits: Audits) -> None:
    opened(audits)
    leased = begun(audits)
    findings = (*map(finding, BAD_KEYS), Finding(verdict=Verdict.CONTAINER_DAMAGED, evidence="e" * 300))
    ended = report(leased, Verdict.LOST, findings=findings, found=77, repair="b" * 32, rows_repaired=3)
    assert audits.finish(leased, ended, owner="me")
    assert audits.waiting(7) == []
    assert list(audits.reports()) == [ended]
    assert audits.run(RUN) == run(ended=1, verdicts={Verdict.LOST: 1}, members=3, size_bytes=9000)
    last = LastAudit(archive=7, begun_at=NOW, finished_at=NOW + DAY, verdict=Verdict.LOST)
    assert audits.last([7]) == {7: last}


def test_an_audit_is_counted_once(audits: Audits) -> None:
    opened(audits)
    leased = begun(audits)
    assert not audits.finish(leased, report(leased), owner="other")
    assert audits.waiting(7) == [leased]
    assert list(audits.reports()) == []
    assert audits.run(RUN) == run()
    assert audits.last([7])[7].finished_at is None
    assert audits.finish(leased, report(leased), owner="me")
    assert not audits.finish(leased, report(leased, Verdict.LOST), owner="me")
    assert list(audits.reports()) == [report(leased)]
    assert audits.run(RUN) == run(ended=1, verdicts={Verdict.INTACT: 1}, members=3, size_bytes=9000)


def test_a_run_adds_up_its_audits(audits: Audits) -> None:
    opened(audits)
    verdicts = [Verdict.INTACT, Verdict.UNREAD, Verdict.INTACT, Verdict.SOURCE_GONE]
    for archive_, verdict in zip((7, 3, 1, 2), verdicts, strict=True):
        standing = audits.run(RUN)
        assert standing
        assert not standing.complete
        finished(audits, audit(archive=archive_), verdict)
    standing = audits.run(RUN)
    assert standing
    assert standing.complete
    assert standing.verdicts == {Verdict.INTACT: 2, Verdict.UNREAD: 1, Verdict.SOURCE_GONE: 1}
    assert (standing.members, standing.size_bytes) == (12, 36_000)


def test_audits_that_end_side_by_side_are_all_counted(aws: Ports) -> None:
    opened(aws.audits, run(drawn={Cause.ROLLING: tuple(range(1, 21))}))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda serial: finished(aws.audits, audit(archive=serial)), range(1, 21)))
    standing = aws.audits.run(RUN)
    assert standing
    assert (standing.ended, standing.complete, standing.members) == (20, True, 60)


def test_an_audit_without_a_run_does_not_end(audits: Audits) -> None:
    leased = begun(audits)
    with pytest.raises(NeveError):
        audits.finish(leased, report(leased), owner="me")
    assert audits.waiting(7) == [leased]
    assert list(audits.reports()) == []


def test_what_could_not_be_read_leaves_the_last_verdict_as_it_was(audits: Audits) -> None:
    opened(audits)
    opened(audits, run(LATER_RUN))
    finished(audits)
    before = audits.last([7])[7]
    finished(audits, audit(run=LATER_RUN, begun_at=NOW + DAY), Verdict.UNREAD, finished_at=NOW + 9 * DAY)
    assert audits.last([7]) == {7: replace(before, begun_at=NOW + DAY)}


def test_reports_are_listed_by_run_and_archive(audits: Audits) -> None:
    opened(audits)
    opened(audits, run(LATER_RUN))
    made = [audit(archive=12), audit(archive=7), audit(run=LATER_RUN, archive=3)]
    ended = [finished(audits, each) for each in made]
    assert list(audits.reports(RUN)) == [ended[1], ended[0]]
    assert list(audits.reports(newest_first=True)) == [ended[2], ended[0], ended[1]]
    assert list(audits.reports("20261122")) == [], "the beginning of an id is none"
    assert [each.archive for each in audits.reports(RUN, newest_first=True)] == [12, 7]


def test_last_audits_are_listed_by_serial_and_by_how_long_ago_they_were_begun(audits: Audits) -> None:
    opened(audits)
    begun_at = {3: NOW, 20: NOW - DAY, 100: NOW + MICROSECOND}
    for serial, at in begun_at.items():
        finished(audits, audit(archive=serial, begun_at=at))
    audits.begin(audit(archive=5, begun_at=NOW - 2 * DAY))
    full = {
        serial: LastAudit(archive=serial, begun_at=at, finished_at=NOW + DAY, verdict=Verdict.INTACT)
        for serial, at in begun_at.items()
    } | {5: LastAudit(archive=5, begun_at=NOW - 2 * DAY)}
    assert audits.last([100, 4, 5, 3]) == {serial: full[serial] for serial in (3, 5, 100)}
    assert audits.last([]) == {}
    assert list(audits.audited()) == [full[serial] for serial in (3, 5, 20, 100)]
    begun_alone = {serial: replace(each, finished_at=None, verdict=None) for serial, each in full.items()}
    assert list(audits.longest_ago()) == [begun_alone[serial] for serial in (5, 20, 3, 100)]
    audits.begin(audit(run=LATER_RUN, archive=5, begun_at=NOW + DAY))
    assert [last.archive for last in audits.longest_ago()] == [20, 3, 100, 5]


# Sources


@pytest.mark.parametrize("size_bytes", [0, 1, 1000, PIECE_BYTES, PIECE_BYTES + 1])
def test_a_source_is_read_in_pieces_from_anywhere(ports: Ports, size_bytes: int) -> None:
    body = (bytes(range(251)) * (size_bytes // 251 + 1))[:size_bytes]
    version = ports.upload("a", body)
    for first in {0, 1, size_bytes // 2, size_bytes, size_bytes + 1}:
        pieces = list(ports.sources.stream(version, first=first))
        assert b"".join(pieces) == body[first:]
        assert all(0 < len(piece) <= PIECE_BYTES for piece in pieces)


def test_every_source_can_be_read(ports: Ports) -> None:
    for key in BAD_KEYS:
        version = ports.upload(key, key.encode())
        assert b"".join(ports.sources.stream(version)) == key.encode()
        assert ports.sources.describe(version).key == key


def test_a_source_is_described_with_the_checksums_that_s3_keeps(ports: Ports) -> None:
    version = ports.upload("a", b"old")
    ports.upload("a", b"newer")
    found = ports.sources.describe(version)
    assert (found.identity, found.size_bytes, found.etag) == (version.identity, 3, version.etag)
    assert (found.sha256, found.md5, found.checksums) == ("", "", {"CRC64NVME": stated(crc64nvme(b"old"))})
    assert b"".join(ports.sources.stream(version)) == b"old"


def test_a_source_that_is_not_there_is_gone(ports: Ports) -> None:
    version = ports.upload("a", b"a")
    for missing in (replace(version, key="b"), replace(version, version_id="00000000-0000-0000-0000-000000000000")):
        with pytest.raises(SourceGone):
            next(ports.sources.stream(missing))
        with pytest.raises(SourceGone):
            ports.sources.describe(missing)


def test_what_was_overwritten_in_place_has_changed(ports: Ports) -> None:
    version = ports.upload_in_place("a", b"old")
    assert b"".join(ports.sources.stream(version)) == b"old"
    assert ports.sources.describe(version).identity == version.identity
    ports.upload_in_place("a", b"newer")
    with pytest.raises(SourceChanged):
        next(ports.sources.stream(version))
    with pytest.raises(SourceChanged):
        ports.sources.describe(version)


BODY = bytes(range(256)) * 20
FLIPPED = BODY[:3000] + bytes([BODY[3000] ^ 4]) + BODY[3001:]


@pytest.mark.parametrize("damaged", [FLIPPED, BODY[:-1], b"", BODY + b"x"], ids=["flipped", "cut", "empty", "longer"])
def test_a_source_is_read_as_it_is_whatever_s3_states_of_it(ports: Ports, damaged: bytes) -> None:
    version = ports.upload("a", BODY)
    ports.damage(version, damaged)
    assert b"".join(ports.sources.stream(version)) == damaged
    assert b"".join(ports.sources.stream(version, first=2900)) == damaged[2900:]
    assert ports.sources.describe(version).checksums == {"CRC64NVME": stated(crc64nvme(BODY))}


def test_the_checksum_does_not_fit_what_is_read_as_it_is(aws: Ports) -> None:
    """Elsewhere botocore raises at the end of such a body."""
    version = aws.upload("a", BODY)
    aws.damage(version, FLIPPED)
    assert isinstance(aws.behind, MotoCloud)
    with pytest.raises(SourceDamaged):
        aws.behind.content.fetch(version)


def test_a_body_that_breaks_off_is_no_shorter_source(aws: Ports) -> None:
    version = aws.upload("a", BODY)
    broken = StreamingBody(BytesIO(BODY[:1000]), len(BODY))
    with Stubber(clients.s3()) as stub:
        stub.add_response("get_object", {"Body": broken, "ContentLength": len(BODY)})
        pieces = aws.sources.stream(version)
        assert next(pieces) == BODY[:1000]
        with pytest.raises(Transient):
            next(pieces)


# CRC64NVME


def test_crc64nvme_is_the_one_that_is_published_and_can_be_taken_in_pieces() -> None:
    """The check value of CRC-64/NVME in the catalogue of parametrised CRC algorithms."""
    assert crc64nvme(b"123456789") == 0xAE8B14860A799888
    assert crc64nvme(b"6789", crc64nvme(b"12345")) == 0xAE8B14860A799888
    assert crc64nvme(b"") == 0


def test_s3_states_the_same_crc64nvme(aws: Ports) -> None:
    aws.upload("a", BODY)
    answer = clients.s3().head_object(Bucket=CONTENT, Key="a", ChecksumMode="ENABLED")
    assert answer["ChecksumCRC64NVME"] == stated(crc64nvme(BODY))


# Archives


def test_archives_are_listed_from_a_serial_on(ports: Ports) -> None:
    made = [archive(serial=serial) for serial in (9, 10, 100, 17)]
    for row in made:
        ports.archives.put(row)
    assert [row.serial for row in ports.archives.all()] == [9, 10, 17, 100]
    assert list(ports.archives.all(first=10)) == [made[1], made[3], made[2]]
    assert [row.serial for row in ports.archives.all(first=11, newest_first=True)] == [100, 17]
    assert list(ports.archives.all(first=101)) == []


def test_the_last_serial_is_told_even_if_no_archive_came_of_it(ports: Ports) -> None:
    assert ports.archives.drawn() == 0
    ports.bundles.create(bundle())
    ports.bundles.claim("b", owner="me", now=NOW, until=NOW + MINUTE)
    assert ports.bundles.assign_serial("b") == 1
    assert ports.archives.drawn() == 1
