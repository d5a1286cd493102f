"""The request ledger: what this process asked of AWS, counted where botocore sends it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

from neve.domain.metering import Attempt, Metered, metered
from neve.domain.prices import Charge
from neve.domain.tally import Tally
from neve.domain.thaw import Tier

if TYPE_CHECKING:
    from boto3 import Session
    from botocore.client import BaseClient
    from botocore.hooks import BaseEventHooks

_PARAMETERS = "neve-parameters"
"""Where botocore's context of a call keeps what it was called with."""

_thawed: ContextVar[tuple[str, int] | None] = ContextVar("thawed", default=None)


@contextmanager
def thawing(storage_class: str, size_bytes: int) -> Iterator[None]:
    """Say what RestoreObject is asked for meanwhile, in this thread: neither the request nor the answer does."""
    token = _thawed.set((storage_class, size_bytes))
    try:
        yield
    finally:
        _thawed.reset(token)


@dataclass
class Ledger:
    """Attempts at requests, and what AWS charges for them by neve.domain.metering.

    Each attempt that botocore makes is one, retries and pages among them. Whatever goes wrong in here, the request is
    none the worse for it: it is then among what has no price.
    """

    _requests: Counter[str] = field(default_factory=Counter)
    _counted: Counter[Charge] = field(default_factory=Counter)
    _imputed: Counter[Charge] = field(default_factory=Counter)
    _unpriced: Counter[str] = field(default_factory=Counter)
    _retries: int = 0
    _sent_bytes: int = 0
    _received_bytes: int = 0
    _classes: dict[str, str] = field(default_factory=dict)
    """The storage classes of multipart uploads by their ids: only what begins or lists an upload names its class."""
    _lock: Lock = field(default_factory=Lock)

    def watch(self, client: BaseClient) -> None:
        """Count what `client` sends from now on."""
        self._register(client.meta.events)

    def watch_all(self, session: Session) -> None:
        """Count what the clients send that `session` makes from now on."""
        self._register(session.events)

    def _register(self, events: BaseEventHooks) -> None:
        events.register("before-parameter-build", self._note)
        events.register("before-send", self._sending)
        events.register("response-received", self._received)

    def impute(self, charges: Mapping[Charge, float]) -> None:
        """Add what no request tells of, such as Lambda's time; neve.domain.tally.RULES has the rules."""
        with self._lock:
            _add(self._imputed, charges)

    def settle(self) -> Tally:
        """What was counted since the last settlement; counting starts anew."""
        with self._lock:
            tally = Tally(
                requests=dict(self._requests),
                counted=dict(self._counted),
                imputed=dict(self._imputed),
                unpriced=dict(self._unpriced),
                retries=self._retries,
                sent_bytes=self._sent_bytes,
                received_bytes=self._received_bytes,
            )
            for counter in (self._requests, self._counted, self._imputed, self._unpriced):
                counter.clear()
            self._retries = self._sent_bytes = self._received_bytes = 0
        return tally

    def _note(self, *, params: Mapping[str, Any], context: dict[str, Any], **_: Any) -> None:
        context[_PARAMETERS] = params

    def _sending(self, *, request: Any, **_: Any) -> None:
        headers = request.headers  # what is sent in chunks has its length in the second
        sent_bytes = _number(headers.get("Content-Length") or headers.get("X-Amz-Decoded-Content-Length"))
        with self._lock:
            self._sent_bytes += sent_bytes

    def _received(
        self,
        *,
        event_name: str,
        response_dict: Mapping[str, Any] | None,
        parsed_response: Mapping[str, Any] | None,
        context: Mapping[str, Any],
        **_: Any,
    ) -> None:
        """One attempt has ended: with an answer, or without one."""
        service, operation = event_name.split(".")[1:3]
        asked, answer = context.get(_PARAMETERS, {}), parsed_response or {}
        try:
            attempt = self._attempt(service, operation, asked, answer, response_dict or {})
            found = metered(attempt)
        except Exception:  # noqa: BLE001  # a surprise in a request or its answer must not end what asked for it
            found = Metered(unpriced=f"{service}:{operation}")
        with self._lock:
            self._requests[f"{service}:{operation}"] += 1
            self._retries += context.get("retries", {}).get("attempt", 1) > 1
            self._received_bytes += _body_bytes(response_dict or {})
            _add(self._counted, found.counted)
            _add(self._imputed, found.imputed)
            if found.unpriced:
                self._unpriced[found.unpriced] += 1

    def _attempt(
        self,
        service: str,
        operation: str,
        asked: Mapping[str, Any],
        answer: Mapping[str, Any],
        response: Mapping[str, Any],
    ) -> Attempt:
        known: dict[str, Any] = {}
        match service:
            case "s3":
                known = self._s3(operation, asked, answer, response)
            case "dynamodb":
                known = _dynamodb(asked, answer, response)
            case "sqs" | "sns":
                known = {"payload_bytes": _message_bytes(asked) + _message_bytes(answer)}
            case "cloudwatch":
                known = {"items": len(asked.get("MetricDataQueries", []))}
            case "ssm":
                known = {"decrypts": bool(asked.get("WithDecryption"))}
        return Attempt(
            service=service,
            operation=operation,
            status=int(response.get("status_code", 0)),
            error=str(answer.get("Error", {}).get("Code", "")),
            **known,
        )

    def _s3(
        self, operation: str, asked: Mapping[str, Any], answer: Mapping[str, Any], response: Mapping[str, Any]
    ) -> dict[str, Any]:
        if operation == "RestoreObject":
            storage_class, size_bytes = _thawed.get() or ("", 0)
            tier = asked.get("RestoreRequest", {}).get("GlacierJobParameters", {}).get("Tier", "Standard")
            return {"storage_class": storage_class, "payload_bytes": size_bytes, "tier": Tier(tier.lower())}
        if operation in ("GetObject", "HeadObject"):
            lies_in = response.get("headers", {}).get("x-amz-storage-class") or "STANDARD"
            return {"storage_class": lies_in, "payload_bytes": int(answer.get("ContentLength", 0))}
        if "UploadId" not in asked:
            storage_class = asked.get("StorageClass", "STANDARD")
            if operation == "CreateMultipartUpload" and "UploadId" in answer:
                self._classes[answer["UploadId"]] = storage_class
            for upload in answer.get("Uploads", []):  # ListMultipartUploads
                self._classes[upload["UploadId"]] = upload.get("StorageClass", "STANDARD")
            return {"storage_class": storage_class}
        if operation == "ListParts" and "StorageClass" in answer:
            self._classes[asked["UploadId"]] = answer["StorageClass"]
        storage_class = self._classes.get(asked["UploadId"], "")
        if operation in ("AbortMultipartUpload", "CompleteMultipartUpload") and "Error" not in answer:
            self._classes.pop(asked["UploadId"], None)
        return {"storage_class": storage_class}


def _dynamodb(asked: Mapping[str, Any], answer: Mapping[str, Any], response: Mapping[str, Any]) -> dict[str, Any]:
    stated = answer.get("ConsumedCapacity")
    if stated:
        parts = stated if isinstance(stated, list) else [stated]
        return {"units": sum(float(part["CapacityUnits"]) for part in parts)}
    items = asked.get("TransactItems") or asked.get("Statements") or [asked]
    written = [_size_bytes(value) for name, value in asked.items() if name in _WRITTEN]
    return {"items": len(items), "payload_bytes": sum(written) or _body_bytes(response)}


_WRITTEN = frozenset({"ExpressionAttributeValues", "Item", "Key", "Statements", "TransactItems"})
"""The parameters of a write that hold what is written."""


def _size_bytes(value: Any) -> int:
    """About what DynamoDB counts: the bytes of names and values."""
    match value:
        case Mapping():
            return sum(_size_bytes(name) + _size_bytes(each) for name, each in value.items())
        case str():
            return len(value.encode())
        case bytes():
            return len(value)
        case list():
            return sum(_size_bytes(each) for each in value)
    return 1


def _message_bytes(value: Mapping[str, Any]) -> int:
    """The bytes of the messages in a request of SQS or SNS, or in the answer to one."""
    bodies = [value.get("MessageBody", ""), value.get("Message", ""), value.get("Subject", "")]
    for listed in ("Entries", "PublishBatchRequestEntries", "Messages"):
        bodies += [each.get(name, "") for each in value.get(listed, []) for name in ("MessageBody", "Message", "Body")]
    return sum(len(body.encode()) for body in bodies)


def _body_bytes(response: Mapping[str, Any]) -> int:
    """How long the answer is. A body that is handed on as a stream is as long as S3 says, read or not."""
    body = response.get("body")
    return len(body) if isinstance(body, bytes) else _number(response.get("headers", {}).get("Content-Length"))


def _number(stated: str | bytes | None) -> int:
    return int(stated) if stated and stated.isdigit() else 0


def _add(counter: Counter[Charge], charges: Mapping[Charge, float]) -> None:
    for charge, units in charges.items():
        counter[charge] += units  # type: ignore[assignment]  # typeshed has counters of whole numbers only


LEDGER = Ledger()
"""The ledger of this process."""
