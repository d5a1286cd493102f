"""`neve rebuild-index` on moto: tables and manifests are lost, and come back; and the ports that only it needs."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import boto3
import pytest
import typer
from typer.testing import CliRunner, Result

from neve.aws import clients
from neve.aws.archive_listing import S3ArchiveListing
from neve.domain.bundle import Bundle, BundleState
from neve.domain.index import ArchiveRow, FileRow
from neve.domain.manifest import Manifest, manifest_key
from neve.domain.rebuild import MARGIN, REBUILT
from neve.domain.thaw import Need, Tier
from neve.errors import Transient
from neve.ports import ArchiveListing, Bundles, StoredArchive
from neve_cli import clock, rebuilding
from neve_cli.main import app
from neve_cli.stack import Stack
from tests.memory import MemoryArchiveStore, MemoryBundles, MemoryContent
from tests.memory_listing import MemoryListing
from tests.moto_cloud import ARCHIVE, ARCHIVES, CONTENT, FILES, MotoCloud, moto_cloud

NOW = datetime(2026, 9, 1, 12, 0, tzinfo=UTC)
ETAG = hashlib.md5(b"x").hexdigest()


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[MotoCloud]:
    """A cloud with two tars, one of which repeats a version, and a large object."""
    with moto_cloud(target_bytes=1_000) as made:
        outputs = {"ArchiveBucket": ARCHIVE, "ContentBucket": CONTENT, "FilesTable": FILES, "ArchivesTable": ARCHIVES}
        deployed = Stack(
            name="neve", region="us-east-1", session=boto3.Session(), outputs=outputs | {"StorageClass": ""}
        )
        deployed.__dict__.update(s3=clients.s3(), dynamodb=clients.dynamodb())
        monkeypatch.setattr("neve_cli.stack.find", lambda _: deployed)
        twice = made.upload("a", b"one")
        for versions in ([twice, made.upload("b", b"two")], [made.upload("c", b"x")], [made.upload("d", b"x" * 1_001)]):
            made.announce(*versions)
            made.run()
        yield made


def run(*words: str, given: str = "") -> Result:
    return CliRunner().invoke(app, ["rebuild-index", *words], input=given)


def read(*words: str) -> Any:
    return json.loads(run(*words, "--json").stdout)


def rows(cloud: MotoCloud) -> tuple[set[FileRow], list[ArchiveRow]]:
    """What the tables say, but for what no manifest tells."""
    archives = [replace(row, bundle=REBUILT, written_at=NOW, archived_at=NOW) for row in cloud.archives.all()]
    return set(cloud.all_files()), archives


def lose_tables() -> None:
    for table, keys in ((FILES, ("shard", "sort")), (ARCHIVES, ("pk", "sk"))):
        for item in clients.dynamodb().scan(TableName=table)["Items"]:
            clients.dynamodb().delete_item(TableName=table, Key={key: item[key] for key in keys})


def lose_manifests() -> dict[int, bytes]:
    """Delete the manifests; what they were."""
    had: dict[int, bytes] = {}
    for serial in (1, 2, 3):
        where: Any = {"Bucket": ARCHIVE, "Key": manifest_key(serial)}
        had[serial] = clients.s3().get_object(**where)["Body"].read()
        clients.s3().delete_object(**where)
    return had


# The command


def test_tables_that_were_lost_come_back_and_the_pipeline_goes_on(cloud: MotoCloud) -> None:
    before = rows(cloud)
    lose_tables()
    done = run()
    assert done.exit_code == 0, done.output
    assert "3 archives with 4 files: 4 rows of files written or changed" in done.stdout
    assert f"{3 + MARGIN:,} is the last serial drawn; the largest in use is 3" in done.stdout
    assert rows(cloud) == before
    again = read()
    assert (again["archives"], again["rows"], again["last_serial"], again["left_out"]) == (3, 0, 3 + MARGIN, 0)
    assert rows(cloud) == before
    cloud.announce(cloud.upload("e", b"new"))
    cloud.run()
    assert cloud.archives.get(3 + MARGIN + 1) is not None


def test_a_dry_run_writes_nothing_and_names_the_price(cloud: MotoCloud) -> None:
    lose_tables()
    done = run("--dry-run")
    assert (done.exit_code, cloud.all_files(), cloud.archives.drawn()) == (0, [], 0)
    assert "3 archives with 4 files can be taken into the index\n  price    $0." in done.stdout
    told = read("--dry-run", "--to", "2")
    assert (told["through"], told["archives"], told["usd"] > 0, told["last_serial"]) == (2, 2, True, 3 + MARGIN)


def test_what_is_left_out_is_named_counted_and_reported(
    cloud: MotoCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(rebuilding, "SHOWN", 1)
    lose_manifests()
    done = run("--report", str(tmp_path / "report"))
    assert done.exit_code == 1
    assert "left out: archives/0000000001.tar: it has no manifest" in done.stderr
    assert "left out: 2 more\n" in done.stderr
    lines = [json.loads(line) for line in (tmp_path / "report").read_text().splitlines()]
    assert [(line["serial"], line["object_key"][-4:]) for line in lines] == [(1, ".tar"), (2, ".tar"), (3, "ject")]
    assert "2 more; --report FILE writes them all" in run().stderr
    told = read("--from", "2")
    assert (told["from"], told["left_out"], len(told["first_left_out"])) == (2, 2, 1)


def test_a_report_that_cannot_be_written_is_told_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("neve_cli.stack.find", lambda _: None)
    done = run("--report", str(tmp_path / "no" / "report"))
    assert done.exit_code == 1
    assert "the report cannot be written" in done.stderr


@pytest.mark.parametrize("words", [["--yes"], ["--tier", "bulk"], ["--from", "3", "--to", "2"]])
def test_options_that_mean_nothing_together_are_refused(words: list[str]) -> None:
    assert run(*words).exit_code == 2


def test_an_interrupted_rebuild_says_where_to_go_on(cloud: MotoCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neve.flows.rebuild.WINDOW", 1)
    settled = cloud.archives.put
    for error, status, word in ((KeyboardInterrupt, 130, "interrupted"), (Transient("throttled"), 3, "broken off")):
        lose_tables()

        def put(_: Any, row: ArchiveRow, error: Any = error) -> ArchiveRow:
            if row.serial == 2:
                raise error
            return settled(row)

        monkeypatch.setattr("neve.aws.archives_table.DynamoArchives.put", put)
        monkeypatch.setattr(clock, "pause", lambda _: None)
        done = run("--to", "9")
        assert done.exit_code == status, done.output
        assert f"neve: {word}; go on with `neve rebuild-index --from 2 --to 9`" in done.stderr
        assert [row.serial for row in cloud.archives.all()] == [1]


def test_how_far_it_is_is_told_once_a_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = (NOW + timedelta(seconds=31 * number) for number in range(9))
    monkeypatch.setattr(clock, "now", lambda: next(times))
    show = rebuilding._Lines("rebuilding", 5, clock.now())
    for through in range(1, 5):
        show(through, f"{through} archives")
    assert capsys.readouterr().out.splitlines() == [
        "2026-09-01 12:01:02  rebuilding: serial 2 of 5; 2 archives",
        "2026-09-01 12:02:04  rebuilding: serial 4 of 5; 4 archives",
    ]


def test_a_terminal_is_shown_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with rebuilding._bar("rebuilding", 1, 3) as show:
        show(2, "2 archives")
    shown = capsys.readouterr().out
    assert "2/3" in shown
    assert "2 archives" in shown


# From archives


def test_lost_manifests_come_back_from_the_archives_in_two_runs(cloud: MotoCloud, tmp_path: Path) -> None:
    before = rows(cloud)
    had = lose_manifests()
    lose_tables()
    first = run("--from-archives", "--yes", "--days", "2", "--report", str(tmp_path / "report"))
    assert first.exit_code == 1, first.output
    assert "3 archives without a manifest: 0 can be read now, 0 thaw already, 2 have to be thawed" in first.stdout
    assert "tier     bulk, thawed within 12.0 hours; copies stay 2 days" in first.stdout
    assert "0 manifests written again; 2 archives thawing (2 asked for now)" in first.stdout
    assert "archives/0000000003.object: it is a large object, and nothing in it tells its key" in first.stderr
    assert len((tmp_path / "report").read_text().splitlines()) == 3
    assert not cloud.all_files()
    cloud.complete_thaws()
    second = read("--from-archives")
    assert (second["recovered"], second["thawing"], second["archives"], second["left_out"]) == (2, 0, 2, 1)
    assert second["missing"] | {"usd": 0, "usd_by_part": {}} == {
        "readable": 2, "thawing": 0, "asleep": 0, "hopeless": 1, "asleep_bytes": 0, "tier": "bulk", "days": 3,
        "usd": 0, "usd_by_part": {},
    }  # fmt: skip
    for serial in (1, 2):
        stands = clients.s3().get_object(Bucket=ARCHIVE, Key=manifest_key(serial))
        assert stands["Body"].read() == had[serial]
    files, archives = rows(cloud)
    assert archives == [row for row in before[1] if row.kind == "tar"]
    assert files == {row for row in before[0] if row.archive != 3}
    assert len(cloud.glacier.asked) == 2


def test_waiting_reads_what_thaws_as_soon_as_it_can(cloud: MotoCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    lose_manifests()
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        cloud.complete_thaws()

    monkeypatch.setattr(clock, "pause", pause)
    done = run("--from-archives", "--wait", "--tier", "standard", given="y\n")
    assert done.exit_code == 1, done.output
    assert "Thaw 2 archives for $0." in done.stderr
    assert (done.stdout.count("written again"), pauses) == (2, [rebuilding.ROUND_S])
    assert done.stderr.count("left out:") == 1


def test_nothing_is_thawed_without_a_yes(cloud: MotoCloud) -> None:
    lose_manifests()
    for words, given in ((["--dry-run"], ""), ([], "n\n"), ([], "")):
        assert run("--from-archives", *words, given=given).exit_code == 1
        assert not cloud.glacier.asked


def test_a_tier_that_a_class_does_not_have_is_refused_before_anything_is_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    missing = rebuilding._Missing(counts=Counter(), asleep={"GLACIER": (1, 1), "DEEP_ARCHIVE": (1, 1)})
    with pytest.raises(typer.Exit):
        rebuilding._require_offered(missing, Need(tier=Tier.EXPEDITED, days=1))
    assert "DEEP_ARCHIVE has no tier expedited" in capsys.readouterr().err


# The ports


@pytest.fixture(params=["memory", "aws"])
def bucket(request: pytest.FixtureRequest) -> Iterator[tuple[ArchiveListing, Bundles]]:
    """The listing of a bucket with archives 2 and 17, a manifest, and foreign keys; and bundles of an empty table."""
    keys = ["archives/0000000002.tar", "archives/0000000017.object", "archives/00000000017.tar", "archives/readme"]
    if request.param == "memory":
        store = MemoryArchiveStore(content=MemoryContent())
        stated = StoredArchive(version_id="v", size_bytes=1, etag=ETAG, checksums={}, storage_class="STANDARD")
        store.stated |= dict.fromkeys(keys, stated)
        store.manifests[5] = cast("Manifest", None)
        yield MemoryListing(store, foreign=keys[2:]), MemoryBundles()
        return
    with moto_cloud() as moto:
        for key in [*keys, manifest_key(5)]:
            clients.s3().put_object(Bucket=ARCHIVE, Key=key, Body=b"x")
        yield S3ArchiveListing(clients.s3(), ARCHIVE), moto.bundles


def test_a_listing_has_archives_and_manifests_from_a_serial_on(bucket: tuple[ArchiveListing, Bundles]) -> None:
    listing, _ = bucket
    assert [each.serial for each in listing.archives()] == [0, 2, 17, 0]
    assert [each.serial for each in listing.archives(2)] == [2, 17, 0]
    assert [each.serial for each in listing.archives(3)] == [17, 0]
    assert [(each.key, each.serial) for each in listing.manifests()] == [(manifest_key(5), 5)]
    assert list(listing.manifests(6)) == []
    first = next(listing.archives(2))
    assert (first.key, first.size_bytes, first.etag, first.storage_class) == (
        "archives/0000000002.tar", 1, ETAG, "STANDARD"
    )  # fmt: skip
    assert first.modified.tzinfo


def test_the_counter_of_serials_is_raised_and_never_lowered(bucket: tuple[ArchiveListing, Bundles]) -> None:
    _, bundles = bucket
    assert bundles.raise_serials(1_000) == 1_000
    assert bundles.raise_serials(7) == 1_000
    bundles.create(Bundle(id="b", kind="tar", state=BundleState.SEALED, size_bytes=0, count=0, due_at=NOW))
    assert bundles.assign_serial("b") == 1_001
    assert bundles.raise_serials(1_001) == 1_001
