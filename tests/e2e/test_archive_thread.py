"""Files put into the content bucket of the deployed stacks come out of their archives byte for byte."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from neve_local.cloud import LocalCloud
from tests.deployed import Stacks

ODD_KEYS = (
    "plain.txt",
    "with space and + and % and 'quotes\".txt",
    "new\nline\tand\x01control",
    "emoji-🏔️/névé.jpg",
    "../../etc/passwd",
    "/leading/slash",
    "a//b",
    "trailing/",
    "prefix",
    "prefix/of/another",
    "CASE.txt",
    "case.txt",
    "caf\u00e9",
    "cafe\u0301",
    "ü" * 512,
)


Stored = dict[tuple[str, str], bytes]
"""Bytes by (key, version id)."""


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """What was put into the content bucket, all at once: each bundle waits for its timer."""

    every_kind: Stored
    described: Stored
    again: Stored
    gone: str
    neighbours: Stored


@pytest.fixture(scope="module")
def uploaded(stacks: Stacks) -> Uploaded:
    stacks.sqs.send_message(QueueUrl=stacks.outputs["CollectQueue"], MessageBody="this is not JSON")
    gone = stacks.upload({"gone.txt": b"gone"})
    ((key, version_id),) = gone
    stacks.s3.delete_object(Bucket=stacks.outputs["ContentBucket"], Key=key, VersionId=version_id)
    draw = random.Random(1)
    target = int(stacks.outputs["TargetBytes"])
    sizes = [0, 1, 511, 512, 513, 100_000, target, target + 1]
    bodies = {f"sizes/{size}.bin": draw.randbytes(size) for size in sizes}
    bodies |= {name: draw.randbytes(1_000 + number) for number, name in enumerate(ODD_KEYS)}
    bodies |= {f"many/{number:03}.bin": draw.randbytes(20_000) for number in range(250)}
    again: Stored = {}
    for body in (b"first", b"second", b"third"):
        again |= stacks.upload({"again.txt": body})
    described = stacks.upload(
        {"with/metadata.html": b"<p>snow</p>"},
        ContentType="text/html; charset=utf-8",
        CacheControl="max-age=60",
        ContentDisposition="inline",
        ContentEncoding="identity",
        ContentLanguage="de",
        Metadata={"photographer": "nobody"},
        Tagging="season=winter",
    )
    return Uploaded(
        every_kind=stacks.upload(bodies),
        described=described,
        again=again,
        gone=key,
        neighbours=stacks.upload({f"neighbour/{number}": b"here" for number in range(5)}),
    )


def test_files_of_every_size_and_name_come_back_byte_for_byte(stacks: Stacks, uploaded: Uploaded) -> None:
    stacks.verify(uploaded.every_kind)


def test_metadata_and_tags_travel_in_the_manifest(stacks: Stacks, uploaded: Uploaded) -> None:
    (row,) = stacks.wait_until_archived(list(uploaded.described)).values()
    manifest = stacks.store.manifest(row.archive)
    assert manifest is not None
    source = manifest.members[row.number].source
    assert (source.content_type, source.cache_control) == ("text/html; charset=utf-8", "max-age=60")
    assert (source.content_disposition, source.content_language) == ("inline", "de")
    assert source.user_metadata == {"photographer": "nobody"}
    assert source.tags == {"season": "winter"}


def test_each_version_of_a_key_is_archived(stacks: Stacks, uploaded: Uploaded) -> None:
    assert len(uploaded.again) == 3
    stacks.verify(uploaded.again)


def test_a_version_deleted_before_it_is_archived_is_parked_and_its_neighbours_are_not(
    stacks: Stacks, uploaded: Uploaded
) -> None:
    stacks.verify(uploaded.neighbours)
    stacks.wait_for(
        "the deleted version parked",
        lambda: any(item.version and item.version.key == uploaded.gone for _, item in stacks.parking_lot.all()),
    )


def test_a_message_that_is_no_event_is_parked_and_holds_back_nothing(stacks: Stacks, uploaded: Uploaded) -> None:
    stacks.verify(uploaded.neighbours)
    stacks.wait_for(
        "the message parked", lambda: any("not JSON" in item.evidence for _, item in stacks.parking_lot.all())
    )


def test_no_dead_letter_queue_holds_anything(stacks: Stacks) -> None:
    for name, url in stacks.outputs.items():
        if name.endswith("DeadLetterQueue"):
            answer = stacks.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
            assert answer["Attributes"]["ApproximateNumberOfMessages"] == "0", name


def test_the_stacks_are_deployed_and_deploying_the_same_again_does_nothing(
    cloud: LocalCloud, settings: dict[str, str | int | float]
) -> None:
    outputs = cloud.outputs()
    assert {"ContentBucket", "ArchiveBucket", "FilesTable", "CollectFunction", "AlertsTopic"} <= outputs.keys()
    assert outputs["TargetBytes"] == str(4 * 1024 * 1024)
    said: list[str] = []
    again = LocalCloud(cloud.layout.folder, say=said.append)
    assert again.deploy(settings) == outputs
    assert said == ["the stacks are up to date"]
