"""The backup queue under the functions, on moto: what SQS refuses arrives all the same, and people are told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from botocore.exceptions import ClientError

from neve.aws import clients
from neve.aws.queue import SqsQueue
from neve.domain.outbox import Cause
from neve.domain.parked import Reason
from neve.errors import MessageRefused
from tests.moto_cloud import OUTBOX, MotoCloud, moto_cloud


@pytest.fixture
def cloud() -> Iterator[MotoCloud]:
    """What fails is shown again at once."""
    with moto_cloud(target_bytes=1_000) as made, patch.object(SqsQueue, "show_again"):
        yield made


@contextmanager
def refused(service: Any, operation: str, code: str, status: int, *, table: str = "") -> Iterator[None]:
    """Every such call fails, or those about `table`."""

    def answer(*, params: Any, **_: Any) -> None:
        if table and f'"{table}"' not in str(params["body"]):
            return
        response: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
        raise ClientError(response, operation)

    name = f"before-call.*.{operation}"
    service.meta.events.register_first(name, answer)
    try:
        yield
    finally:
        service.meta.events.unregister(name, answer)


def relay(cloud: MotoCloud) -> None:
    cloud.queue("relay").send('{"message": "relay"}')
    assert cloud.deliver("relay") == 1


def counted(out: str) -> dict[str, float]:
    """The metrics in what functions printed."""
    lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return {
        metric["Name"]: sum(line[metric["Name"]])
        for line in lines
        if "_aws" in line
        for each in line["_aws"]["CloudWatchMetrics"]
        for metric in each["Metrics"]
    }


@pytest.mark.parametrize(
    ("code", "status", "cause"),
    [("AccessDenied", 403, Cause.DENIED), ("InternalError", 500, Cause.FAILED)],
)
def test_a_file_is_archived_though_collect_could_not_send(
    cloud: MotoCloud, capsys: pytest.CaptureFixture[str], code: str, status: int, cause: Cause
) -> None:
    cloud.announce(cloud.upload("a", b"1" * 2_000))
    with refused(clients.sqs(), "SendMessage", code, status):
        cloud.deliver("collect")
    assert cloud.bodies("large") == []
    [entry] = cloud.outbox.oldest(cloud.urls["large"], 10)
    assert entry.cause is cause
    assert counted(capsys.readouterr().out)["outbox"] == 1

    relay(cloud)
    assert not cloud.outbox.queues()
    relayed = counted(capsys.readouterr().out)
    assert (relayed["relayed"], relayed.get("denied", 0)) == (1, int(cause is Cause.DENIED))
    cloud.run()
    assert [row.key for row in cloud.all_files()] == ["a"]


def test_while_sqs_is_out_relays_tell_what_waits_and_for_how_long(
    cloud: MotoCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.announce(cloud.upload("a", b"1" * 2_000))
    cloud.queue("relay").send('{"message": "relay"}')
    with refused(clients.sqs(), "SendMessage", "ServiceUnavailable", 503):
        cloud.deliver("collect")
        capsys.readouterr()
        assert cloud.deliver("relay") == 1
    assert cloud.deliver("relay") == 0  # that SQS is out is no failure of Relay's
    waits = counted(capsys.readouterr().out)
    assert waits["outbox_waiting"] == 1
    assert waits["outbox_oldest_s"] > 0


def test_if_the_outbox_is_out_as_well_the_event_comes_back(cloud: MotoCloud) -> None:
    cloud.announce(cloud.upload("a", b"1" * 2_000))
    with (
        refused(clients.sqs(), "SendMessage", "InternalError", 500),
        refused(clients.dynamodb(), "PutItem", "InternalServerError", 500, table=OUTBOX),
    ):
        cloud.deliver("collect")
    assert not cloud.outbox.queues()
    cloud.run()
    assert [row.key for row in cloud.all_files()] == ["a"]


def test_a_message_that_sqs_never_takes_is_parked(cloud: MotoCloud) -> None:
    cloud.announce(cloud.upload("a", b"1" * 2_000))
    with refused(clients.sqs(), "SendMessage", "AccessDenied", 403):
        cloud.deliver("collect")
    cloud.queue("relay").send('{"message": "relay"}')
    with refused(clients.sqs(), "SendMessage", "InvalidMessageContents", 400):
        cloud.deliver("relay")
    assert [item.reason for _, item in cloud.parking_lot.all()] == [Reason.MESSAGE_REFUSED]
    assert not cloud.outbox.queues()


def test_what_relay_did_not_foresee_fails_it_so_that_its_alarm_rings(cloud: MotoCloud) -> None:
    cloud.announce(cloud.upload("a", b"1" * 2_000))
    with refused(clients.sqs(), "SendMessage", "AccessDenied", 403):
        cloud.deliver("collect")
    cloud.queue("relay").send('{"message": "relay"}')
    with refused(clients.dynamodb(), "DeleteItem", "AccessDeniedException", 400):
        cloud.deliver("relay")
        assert cloud.deliver("relay") == 1  # it was not acknowledged
    assert cloud.outbox.holds(cloud.urls["large"])


def test_moto_refuses_what_is_too_long_as_sqs_does(cloud: MotoCloud) -> None:
    with pytest.raises(MessageRefused, match="InvalidParameterValue"):
        cloud.queue("large").send("x" * 1_048_577)
