"""Function Resolve: where a file is now, for who asks for its URL. It stands behind a function URL, not a queue.

What goes wrong here, whatever it is, is answered 503: a visitor and the caches before him must never take a failure
for a file that does not exist.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from functools import cache
from typing import Any

from aws_lambda_powertools.utilities.data_classes.lambda_function_url_event import LambdaFunctionUrlEvent
from aws_lambda_powertools.utilities.typing import LambdaContext

from neve.aws import clients
from neve.aws.archives_table import DynamoArchives
from neve.aws.files_table import DynamoFiles
from neve.aws.invocation import count, deadline, impute_time, logger, metrics, now, write_ledger_at_times
from neve.aws.pointers_table import DynamoPointers
from neve.aws.recalls_table import DynamoRecalls
from neve.aws.restores_table import DynamoRestores
from neve.aws.sending import sender
from neve.aws.signing import CdnSigner, S3Signer, signature_of
from neve.aws.standing import S3Standing
from neve.aws.thaws_table import DynamoThaws
from neve.config import ResolveConfig, read
from neve.domain.layout import Layout
from neve.domain.route import (
    METHODS,
    Answer,
    Asked,
    PathAmbiguous,
    PathRefused,
    Rules,
    failed,
    key_of,
    not_allowed,
    refused,
    unknown,
)
from neve.flows.recall import Recaller
from neve.flows.resolve import CHOICES, Resolver
from neve.ports import Signer

LONGEST_LOOK = timedelta(seconds=4)
"""How long a look-up with clients.PROMPT takes at most; none is begun that might outlast the invocation."""


@cache
def config() -> ResolveConfig:
    """The settings of this function."""
    return read(ResolveConfig, os.environ)


@cache
def rules() -> Rules:
    """How the site serves its files."""
    settings = config()
    return Rules(
        layout=Layout(settings.key_layout),
        cdn_bases=settings.cdn_urls.split(),
        private_prefixes=[prefix for prefix in settings.private_prefixes.split(",") if prefix],
        choose=CHOICES[settings.cdn_choice],
        restores=settings.archived_answer == "restore",
        redirect_max_age_s=settings.redirect_max_age_s,
        upload_url_s=settings.upload_url_s,
        signed_url_s=settings.signed_url_s,
    )


@cache
def resolver() -> Resolver:
    """The use case on AWS."""
    settings, s3 = config(), clients.s3(clients.PROMPT_S3)
    return Resolver(
        pointers=DynamoPointers(clients.dynamodb(clients.PROMPT), settings.pointers_table),
        uploads=S3Standing(s3, settings.uploads_bucket),
        content=S3Standing(s3, settings.content_bucket),
        upload_signer=S3Signer(s3, settings.uploads_bucket),
        content_signer=_content_signer(settings),
        recaller=_recaller(settings) if rules().restores else None,
        rules=rules(),
        clock=now,
    )


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer one request. Never raises."""
    began = time.monotonic()
    try:
        request = LambdaFunctionUrlEvent(event)
        answer = _answer(request, context)
        head = request.http_method == "HEAD"
    except Exception:  # noqa: BLE001  # whatever it is, the visitor is told to come again
        logger().exception("failed", path=event.get("rawPath"))
        answer, head = failed(), False
    _count(answer, began)
    return {"statusCode": answer.status, "headers": answer.headers, "body": "" if head else answer.text}


def _count(answer: Answer, began: float) -> None:
    try:
        count(answer.kind, 1)
        metrics().flush_metrics()
        impute_time(began)
        write_ledger_at_times()
    except Exception:  # noqa: BLE001  # the answer is none the worse for it
        logger().exception("not counted", kind=answer.kind)


def _answer(request: LambdaFunctionUrlEvent, context: LambdaContext) -> Answer:
    method = request.http_method
    if method not in METHODS:
        return not_allowed()
    try:
        # AWS hands over the path as the client sent it, percent signs and all, unlike an API Gateway's HTTP API.
        asked = Asked(key=key_of(request.raw_path), query=request.raw_query_string, head=method == "HEAD")
    except PathAmbiguous as error:
        return refused(str(error))
    except PathRefused as error:
        return unknown(str(error))
    return resolver().resolve(asked, until=deadline(context) - LONGEST_LOOK)


def _content_signer(settings: ResolveConfig) -> Signer:
    if settings.signing == "s3":
        return S3Signer(clients.s3(clients.PROMPT_S3), settings.content_bucket)
    return CdnSigner(
        url=rules().cdn_url,
        key_id=settings.cdn_key_id,
        sign=lambda: signature_of(clients.ssm(clients.PROMPT), settings.cdn_key_parameter),
        clock=now,
    )


def _recaller(settings: ResolveConfig) -> Recaller:
    dynamodb = clients.dynamodb(clients.PROMPT)
    return Recaller(
        files=DynamoFiles(dynamodb, settings.files_table),
        archives=DynamoArchives(dynamodb, settings.archives_table),
        thaws=DynamoThaws(dynamodb, settings.restores_table),
        restores=DynamoRestores(dynamodb, settings.restores_table),
        recalls=DynamoRecalls(dynamodb, settings.restores_table),
        requests_queue=sender(settings.requests_queue_url, settings.outbox_table, clients.PROMPT),
        content=S3Standing(clients.s3(clients.PROMPT_S3), settings.content_bucket),
        content_bucket=settings.content_bucket,
        clock=now,
    )
