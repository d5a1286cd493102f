"""Drill dies before each of its calls to AWS, and runs again; every drill ends well, told twice at most."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

import drill
from neve.aws import clients, invocation
from neve.aws.drills_table import DynamoDrills
from neve.domain.drill import DrillState, Start, render_start
from neve.domain.events import DRILL_PREFIX
from tests.moto_cloud import AUDITS, CONTENT, ELSEWHERE, Killed, MotoCloud, moto_cloud

LATER = timedelta(minutes=16)
"""When the sweep looks at what somebody has just begun."""


@pytest.fixture
def cloud() -> Iterator[MotoCloud]:
    with moto_cloud() as made:
        made.announce(made.upload("a", b"a" * 700))
        made.run()
        yield made


def lived(cloud: MotoCloud, number: int, kill_at: int) -> int:
    """Live through drill `number`, dying once; how many calls Drill has made."""
    drill_id = f"20260901T120000-{number:06x}"
    cloud.queue("drills").send(render_start(Start(drill=drill_id, files=1)))
    calls = hear(cloud, 0, kill_at)
    cloud.deliver("requests")
    cloud.complete_thaws()
    cloud.deliver("extract")
    sqs, url = clients.sqs(), cloud.urls["restored"]
    for message in sqs.receive_message(QueueUrl=url)["Messages"]:
        cloud.queue("drills").send(message["Body"])
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    calls = hear(cloud, calls, kill_at)
    later = replace(drill.driller(), clock=lambda: invocation.now() + LATER)
    later.sweep(until=invocation.now() + 2 * LATER)
    standing = DynamoDrills(clients.dynamodb(), AUDITS).get(drill_id)
    assert standing is not None
    assert (standing.state, standing.good, len(standing.compared)) == (DrillState.DONE, True, 1)
    return calls


def hear(cloud: MotoCloud, calls: int, kill_at: int) -> int:
    """Have Drill handle what waits for it; `calls` were made before."""
    cloud.calls, cloud.kill_at = calls, kill_at
    for _ in range(3):
        try:
            while cloud.deliver("drills"):
                pass
            break
        except Killed:
            pass  # the message comes again
    cloud.kill_at = 0
    return cloud.calls


def test_it_may_die_before_every_call(cloud: MotoCloud) -> None:
    whole = lived(cloud, 0, 0)
    assert whole > 20
    for at in range(1, whole + 1):
        lived(cloud, at, at)
    for bucket in (CONTENT, ELSEWHERE):
        left = clients.s3().list_object_versions(Bucket=bucket, Prefix=DRILL_PREFIX)
        assert not left.get("Versions"), "every copy was deleted"
    mails = clients.sqs().get_queue_attributes(
        QueueUrl=cloud.urls["alerts"], AttributeNames=["ApproximateNumberOfMessages"]
    )
    told = int(mails["Attributes"]["ApproximateNumberOfMessages"])
    assert whole + 1 <= told <= whole + 2, "only one death is between telling and recording it"
