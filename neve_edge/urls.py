"""URLs of files for view layers: a page names the files where they are, and its visitors are not redirected.

    urls = connect(pointers_table="neve-...", cdn_urls=["https://img1.example.com"], site_url="https://files.example.com")
    urls.url_for("photos/a.jpg")
    urls.urls_for(["photos/a.jpg", "photos/b.jpg"])

The rule is Resolve's own (neve.domain.route). What a pointer alone does not tell gets the URL of the site, where
Resolve looks everywhere else: so every key has a URL, and a table that cannot be read breaks no page.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from neve.aws import clients
from neve.aws.pointers_table import DynamoPointers
from neve.aws.signing import CdnSigner, S3Signer, signature_of
from neve.domain.layout import Layout
from neve.domain.pointer import Pointer
from neve.domain.route import Kind, PathRefused, Rules, key_of, path_of, pointed
from neve.errors import NeveError
from neve.flows.resolve import CHOICES
from neve.ports import Pointers, Signer

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Urls:
    """Where files are, by their keys. Threads may share it.

    URLs on the CDN are remembered for `remember_s` seconds, the last `most` of them; a file that is replaced keeps its
    URL. `site_url` is where Resolve answers, without a slash at the end. `monotonic` is a clock in seconds.
    """

    pointers: Pointers
    rules: Rules
    signer: Signer
    site_url: str
    remember_s: float = 60
    most: int = 10_000
    monotonic: Callable[[], float] = time.monotonic
    _known: dict[str, tuple[float, str]] = field(default_factory=dict, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def url_for(self, key: str) -> str:
        """The URL of the file that the application calls `key`."""
        return self.urls_for([key])[key]

    def urls_for(self, keys: Iterable[str]) -> dict[str, str]:
        """The URLs of several files, by their keys, from one request to DynamoDB for each hundred."""
        wanted = list(dict.fromkeys(keys))
        found = self._remembered(wanted)
        pointers = self._read([key for key in wanted if key not in found and _can_be_asked_for(key)])
        for key in wanted:
            if key not in found:
                found[key] = self._url(key, pointers.get(key))
        return found

    def _url(self, key: str, pointer: Pointer | None) -> str:
        answer = pointed(key, pointer, self.rules)
        if answer is None:
            return self.site_url + path_of(key)
        if answer.to_sign:
            return self.signer.signed(answer.to_sign, head=False, lifetime_s=answer.lifetime_s)
        if answer.kind is Kind.CDN:
            self._remember(key, answer.location)
        return answer.location

    def _read(self, keys: Sequence[str]) -> Mapping[str, Pointer]:
        try:
            return self.pointers.get_many(keys) if keys else {}
        except (NeveError, BotoCoreError, ClientError):
            log.warning("pointers could not be read; %d files get the site's URLs", len(keys), exc_info=True)
            return {}

    def _remembered(self, keys: Iterable[str]) -> dict[str, str]:
        now = self.monotonic()
        with self._lock:
            known = {key: self._known[key] for key in keys if key in self._known}
        return {key: url for key, (until, url) in known.items() if until > now}

    def _remember(self, key: str, url: str) -> None:
        with self._lock:
            self._known.pop(key, None)  # the newest stands last
            self._known[key] = (self.monotonic() + self.remember_s, url)
            while len(self._known) > self.most:
                del self._known[next(iter(self._known))]


def connect(
    *,
    pointers_table: str,
    cdn_urls: Sequence[str],
    site_url: str,
    content_bucket: str = "",
    private_prefixes: Sequence[str] = (),
    signed_url_s: int = 300,
    cdn_choice: str = "by-key",
    cdn_key_id: str = "",
    cdn_key_parameter: str = "",
    remember_s: float = 60,
    session: boto3.Session | None = None,
) -> Urls:
    """The URLs of a deployed stack, by its outputs PointersTable, ContentCdn and SiteCdn and its settings.

    Private files are signed by S3, which takes `content_bucket`, or by CloudFront, if `cdn_key_id` is given. The
    credentials are those that boto3 finds; they need dynamodb:BatchGetItem on the table, and for private files
    s3:GetObject or ssm:GetParameter.
    """
    session = session or boto3.Session()
    rules = Rules(
        layout=Layout.AS_IS,  # it makes no difference: a pointer says itself where the file lies
        cdn_bases=[url.rstrip("/") for url in cdn_urls],
        private_prefixes=private_prefixes,
        choose=CHOICES[cdn_choice],
        redirect_max_age_s=0,
        upload_url_s=0,
        signed_url_s=signed_url_s,
    )
    return Urls(
        pointers=DynamoPointers(session.client("dynamodb", config=clients.PROMPT), pointers_table),
        rules=rules,
        signer=_signer(session, rules, content_bucket, cdn_key_id, cdn_key_parameter),
        site_url=site_url.rstrip("/"),
        remember_s=remember_s,
    )


def _signer(session: boto3.Session, rules: Rules, bucket: str, key_id: str, parameter: str) -> Signer:
    if not key_id:
        return S3Signer(session.client("s3", config=clients.PROMPT_S3), bucket)
    ssm = session.client("ssm", config=clients.PROMPT)
    return CdnSigner(
        url=rules.cdn_url,
        key_id=key_id,
        sign=lambda: signature_of(ssm, parameter),
        clock=lambda: datetime.now(UTC),
    )


def _can_be_asked_for(key: str) -> bool:
    """Whether a URL names this key, so that a pointer may be read by it."""
    try:
        return key_of(path_of(key)) == key
    except PathRefused:
        return False
