"""Function Resolve and what it calls, on moto: its answers, and that no failure of AWS is one of them."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from urllib.request import Request, urlopen

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ClientError, ConnectTimeoutError, ReadTimeoutError
from botocore.stub import Stubber
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

import resolve
from neve.aws import clients
from neve.aws.signing import CdnSigner, S3Signer, signature_of
from neve.aws.standing import S3Standing
from neve.domain.layout import Layout, content_key
from neve.domain.pointer import InContent, OnHost
from neve.domain.recall import Recall
from neve.domain.route import has_dot_segments
from neve.ports import Recalls, Standing
from tests.bad_keys import BAD_KEYS
from tests.memory_serve import MemoryRecalls, MemoryStanding
from tests.moto_cloud import CONTENT, CONTEXT, CREDENTIALS, UPLOADS, MotoCloud, moto_cloud
from tests.url_events import url_event

NOW = datetime(2026, 9, 1, 12, 0, 0, 123457, tzinfo=UTC)
KEY = "img/a b.jpg"
PATH = "/img/a%20b.jpg"
CDN = "https://cdn.example.com"

Answer = dict[str, Any]


@pytest.fixture
def cloud() -> Iterator[MotoCloud]:
    with moto_cloud() as made:
        yield made


def ask(path: str = PATH, **event: Any) -> Answer:
    return resolve.handler(url_event(path, **event), CONTEXT)  # type: ignore[arg-type]  # as much of a context as is read


def given(**settings: object) -> None:
    """Deploy Resolve with other settings."""
    os.environ |= {f"NEVE_{name.upper()}": str(value) for name, value in settings.items()}
    for function in (resolve.config, resolve.rules, resolve.resolver):
        function.cache_clear()


def in_content(key: str = KEY, **changed: Any) -> InContent:
    pointer = InContent(
        key=key,
        content_key=key,
        content_version="c1",
        upload_version="u1",
        sequencer="1",
        size_bytes=3,
        etag="e",
        since=NOW,
    )
    return replace(pointer, **changed)


def archive(cloud: MotoCloud, key: str = KEY, body: bytes = b"one") -> None:
    """Have nothing but the archive hold the file, and the pointer name it."""
    version = cloud.upload(key, body)
    cloud.announce(version)
    cloud.run()
    cloud.pointers.move(None, in_content(key, content_version=version.version_id))
    clients.s3().delete_object(Bucket=CONTENT, Key=key)


# -- Answers


def test_a_file_in_the_content_bucket_is_at_the_cdn(cloud: MotoCloud) -> None:
    cloud.pointers.move(None, in_content())
    answer = ask(query="v=2&w=a+b")
    assert answer["statusCode"] == 302
    assert answer["headers"]["Location"] == f"{CDN}/img/a%20b.jpg?v=2&w=a+b"
    assert answer["headers"]["Cache-Control"] == "public, max-age=300"
    assert answer["body"] == ""
    assert ask(method="HEAD") == ask()


@pytest.mark.parametrize("layout", Layout)
def test_any_key_is_found_wherever_it_lies(cloud: MotoCloud, layout: Layout) -> None:
    given(key_layout=layout.value)
    for key in (key for key in BAD_KEYS if not has_dot_segments(key) and len(key.encode()) < 1000):
        path = "/" + quote(key)
        assert ask(path)["statusCode"] == 404
        clients.s3().put_object(Bucket=CONTENT, Key=content_key(key, layout), Body=b"one")
        assert ask(path)["headers"]["Location"] == f"{CDN}/{quote(content_key(key, layout))}"
        clients.s3().put_object(Bucket=UPLOADS, Key=key, Body=b"one")
        assert "Signature=" in ask(path)["headers"]["Location"]
        cloud.pointers.claim_host(OnHost(key=key, url="https://www1.example.com/x", since=NOW))
        assert ask(path)["headers"]["Location"] == "https://www1.example.com/x"


def test_an_upload_and_a_private_file_are_at_signed_urls_that_no_cache_keeps(cloud: MotoCloud) -> None:
    clients.s3().put_object(Bucket=UPLOADS, Key=KEY, Body=b"one")
    cloud.pointers.move(None, in_content("private/a"))
    for path, bucket in ((PATH, UPLOADS), ("/private/a", CONTENT)):
        for method in ("GET", "HEAD"):
            answer = ask(path, method=method, query="v=1&X-Amz-Expires=604800")
            assert answer["statusCode"] == 302
            assert answer["headers"]["Cache-Control"] == "private, no-store"
            assert bucket in answer["headers"]["Location"]
            assert "v=1" not in answer["headers"]["Location"]


def test_a_file_that_was_let_go_and_whose_pointer_is_lost_is_still_found(cloud: MotoCloud) -> None:
    clients.s3().put_object(Bucket=UPLOADS, Key=KEY, Body=b"one")
    clients.s3().put_object(Bucket=CONTENT, Key=KEY, Body=b"one")
    clients.s3().delete_object(Bucket=UPLOADS, Key=KEY)
    assert ask()["headers"]["Location"] == f"{CDN}/img/a%20b.jpg"


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", 404), ("", 404), ("/%FC.jpg", 404), ("/a/../b", 400), ("/a/%2e%2e/b", 400), ("/none.jpg", 404)],
)
def test_a_path_without_a_file_is_told_so_and_the_answer_kept_nowhere(cloud: MotoCloud, path: str, status: int) -> None:
    for method in ("GET", "HEAD"):
        answer = ask(path, method=method)
        assert (answer["statusCode"], answer["headers"]["Cache-Control"]) == (status, "no-store")
        assert bool(answer["body"]) == (method == "GET")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_files_are_only_read(cloud: MotoCloud, method: str) -> None:
    answer = ask(method=method)
    assert (answer["statusCode"], answer["headers"]["Allow"]) == (405, "GET, HEAD")


def test_the_names_of_the_cdn_are_chosen_by_key_or_at_random(cloud: MotoCloud) -> None:
    cloud.pointers.move(None, in_content())
    names = [f"https://img{number}.example.com" for number in range(4)]
    for choice, count in (("by-key", 1), ("random", 4)):
        given(cdn_urls=" ".join(names), cdn_choice=choice)
        hosts = {urlsplit(ask()["headers"]["Location"]).hostname for _ in range(100)}
        assert len(hosts) == count


def test_each_answer_is_counted_by_its_kind(cloud: MotoCloud, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.pointers.move(None, in_content())
    ask()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("to_cdn") for line in lines] == [[1.0]]
    ask("/none.jpg")
    assert '"unknown":[1.0]' in capsys.readouterr().out.replace(" ", "")


def test_an_answer_that_cannot_be_counted_is_given_all_the_same(
    cloud: MotoCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POWERTOOLS_METRICS_NAMESPACE")
    cloud.pointers.move(None, in_content())
    assert ask()["statusCode"] == 302


# -- Failures


def _error(status: int, code: str) -> Any:
    return AWSResponse("", status, HTTPHeaders(), None), {
        "Error": {"Code": code, "Message": ""},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }


def denied(service: str) -> Any:
    return _error(403, "403") if service == "s3" else _error(400, "AccessDeniedException")


def throttled(service: str) -> Any:
    return _error(503, "503") if service == "s3" else _error(400, "ThrottlingException")


def elsewhere(service: str) -> Any:
    """The bucket is in another region, the table in none."""
    status, code = (301, "301") if service == "s3" else (400, "ResourceNotFoundException")
    return _error(status, code)


def timed_out(service: str) -> Any:
    raise ReadTimeoutError(endpoint_url=f"https://{service}")


def not_connected(service: str) -> Any:
    raise ConnectTimeoutError(endpoint_url=f"https://{service}")


@contextmanager
def failing(at: int, how: Callable[[str], Any]) -> Iterator[list[str]]:
    """Have call number `at` to AWS fail; the names of the calls that were made."""
    calls: list[str] = []

    def before(*, model: Any, **_: Any) -> Any:
        calls.append(model.name)
        return how(model.service_model.service_name) if len(calls) == at else None

    watched = [client.meta.events for client in (clients.s3(), clients.dynamodb(), clients.sqs())]
    for events in watched:
        events.register_first("before-call", before, unique_id="failing")
    try:
        yield calls
    finally:
        for events in watched:
            events.unregister("before-call", unique_id="failing")


@pytest.mark.parametrize("how", [denied, throttled, elsewhere, timed_out, not_connected], ids=lambda how: how.__name__)
@pytest.mark.parametrize("answer", ["not-found", "restore"])
def test_a_call_that_fails_is_answered_503_whichever_it_is(
    cloud: MotoCloud, how: Callable[[str], Any], answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where without the failure the answer would be 404: then the file might have been there after all."""
    archive(cloud)
    clients.dynamodb().delete_item(TableName="pointers", Key={"key": {"S": KEY}})
    given(archived_answer=answer)
    expected = 202 if answer == "restore" else 404
    for at in range(1, 30):
        with failing(at, how) as calls:
            answered = ask()
        if len(calls) < at:
            assert answered["statusCode"] == expected
            break
        if answered["statusCode"] == 202:
            assert answer == "restore"
            continue  # the queue failed, and the outbox took the job
        assert answered["statusCode"] == 503, calls
        assert answered["headers"]["Retry-After"] == "5"
        assert answered["headers"]["Cache-Control"] == "no-store"
    assert at == 5 if answer == "not-found" else at > 8


@pytest.mark.parametrize(
    "event", [{}, {"rawPath": PATH}, {"rawPath": PATH, "requestContext": {"http": {}}}, {"requestContext": None}]
)
def test_an_event_that_is_none_is_answered_503(cloud: MotoCloud, event: dict[str, Any]) -> None:
    assert resolve.handler(event, CONTEXT)["statusCode"] == 503  # type: ignore[arg-type]


def test_settings_that_are_missing_are_answered_503(cloud: MotoCloud) -> None:
    given()
    del os.environ["NEVE_POINTERS_TABLE"]
    assert ask()["statusCode"] == 503


def test_whatever_a_visitor_waits_for_is_asked_by_clients_that_do_not_wait_long(
    cloud: MotoCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive(cloud)
    given(archived_answer="restore")
    made: list[tuple[Any, ...]] = []

    def noted(client: Any) -> Callable[..., Any]:
        def asked_for(*config: Any) -> Any:
            made.append(config)
            return client

        return asked_for

    for name in ("s3", "dynamodb", "sqs"):
        monkeypatch.setattr(clients, name, noted(getattr(clients, name)()))
    assert ask()["statusCode"] == 202
    assert set(made) == {(clients.PROMPT,), (clients.PROMPT_S3,)}


def test_no_look_up_is_begun_that_might_outlast_the_invocation(cloud: MotoCloud) -> None:
    cloud.pointers.move(None, in_content())
    late = SimpleNamespace(**{**vars(CONTEXT), "get_remaining_time_in_millis": lambda: 3_900})
    with failing(0, denied) as calls:
        assert resolve.handler(url_event(PATH), late)["statusCode"] == 503  # type: ignore[arg-type]
    assert calls == []


# -- Recalls


def test_a_file_that_only_the_archive_has_is_brought_back_by_who_asks_for_it(cloud: MotoCloud) -> None:
    archive(cloud)
    given(archived_answer="restore")
    answers = [ask(method=method) for method in ("GET", "HEAD", "GET")]
    assert [answer["statusCode"] for answer in answers] == [202] * 3
    assert int(answers[0]["headers"]["Retry-After"]) == pytest.approx(4 * 3600 + 60, abs=5)
    assert "being restored, back about" in answers[0]["body"]
    assert len(cloud.bodies("requests")) == 1
    cloud.run()
    assert ask()["statusCode"] == 202
    cloud.complete_thaws()
    cloud.run()
    answer = ask()
    assert (answer["statusCode"], answer["headers"]["Location"]) == (302, f"{CDN}/img/a%20b.jpg")
    assert clients.s3().get_object(Bucket=CONTENT, Key=KEY)["Body"].read() == b"one"


def test_one_that_is_deleted_again_is_brought_back_again(cloud: MotoCloud) -> None:
    archive(cloud)
    given(archived_answer="restore")
    jobs: list[str] = []
    for _ in range(2):
        assert ask()["statusCode"] == 202
        recall = cloud.recalls.get(KEY)
        assert recall
        jobs.append(recall.job)
        cloud.run()
        cloud.complete_thaws()
        cloud.run()
        assert ask()["statusCode"] == 302
        clients.s3().delete_object(Bucket=CONTENT, Key=KEY)
    assert all(cloud.restores.job(job) for job in jobs)


# -- The ports


@pytest.fixture(params=["memory", "aws"])
def standing(request: pytest.FixtureRequest) -> Iterator[tuple[Standing, Callable[[str], object]]]:
    """A bucket, and what puts an object there."""
    if request.param == "memory":
        memory = MemoryStanding()
        yield memory, memory.keys.add
        return
    with moto_cloud():
        yield (
            S3Standing(clients.s3(), UPLOADS),
            lambda key: clients.s3().put_object(Bucket=UPLOADS, Key=key, Body=b"one"),
        )


def test_what_stands_in_a_bucket_is_held_by_it(standing: tuple[Standing, Callable[[str], object]]) -> None:
    bucket, put = standing
    for key in ("a", "a/b", "ü+?\n"):
        assert not bucket.holds(key)
        put(key)
        assert bucket.holds(key)
    assert not bucket.holds("a/")


def test_what_is_hidden_behind_a_delete_marker_does_not_stand(cloud: MotoCloud) -> None:
    clients.s3().put_object(Bucket=UPLOADS, Key="a", Body=b"one")
    clients.s3().delete_object(Bucket=UPLOADS, Key="a")
    assert not S3Standing(clients.s3(), UPLOADS).holds("a")


def test_a_bucket_that_may_not_be_listed_says_nothing_about_what_is_missing() -> None:
    client = boto3.client("s3", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    with Stubber(client) as answers:
        answers.add_client_error("head_object", "403", http_status_code=403)
        with pytest.raises(ClientError):
            S3Standing(client, "b").holds("a")


@pytest.fixture(params=["memory", "aws"])
def recalls(request: pytest.FixtureRequest) -> Iterator[Recalls]:
    if request.param == "memory":
        yield MemoryRecalls()
        return
    with moto_cloud() as made:
        yield made.recalls


@pytest.mark.parametrize("key", ["a", "#ü\n", "k" * 1024])
def test_a_recall_is_claimed_by_one_and_taken_over_by_one(recalls: Recalls, key: str) -> None:
    recall = Recall(stored=key, pin="v1", job="j1", asked_at=NOW, sent_at=NOW)
    assert recalls.get(key) is None
    assert recalls.swap(None, recall)
    assert not recalls.swap(None, replace(recall, job="j2"))
    assert recalls.get(key) == recall
    again = replace(recall, sent_at=NOW + timedelta(minutes=15))
    assert recalls.swap(recall, again)
    assert not recalls.swap(recall, again)
    other = replace(recall, job="j2", asked_at=again.sent_at, sent_at=again.sent_at)
    assert recalls.swap(again, other)
    assert not recalls.swap(again, other)
    assert recalls.get(key) == other


# -- Signatures


def test_a_presigned_url_names_the_region_the_method_and_nothing_that_the_client_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {**CREDENTIALS, "AWS_DEFAULT_REGION": "eu-central-1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    signer = S3Signer(clients.s3.__wrapped__(clients.PROMPT_S3), "my-bucket")
    url = urlsplit(signer.signed("a b/ü+?.jpg", head=False, lifetime_s=60))
    assert (url.netloc, url.path) == ("my-bucket.s3.eu-central-1.amazonaws.com", "/a%20b/%C3%BC%2B%3F.jpg")
    asked = parse_qs(url.query)
    assert (asked["X-Amz-Algorithm"], asked["X-Amz-Expires"]) == (["AWS4-HMAC-SHA256"], ["60"])
    assert {name for name in asked if not name.startswith("X-Amz-")} == set()
    assert signer.signed("a", head=True, lifetime_s=60) != signer.signed("a", head=False, lifetime_s=60)


def parameter(key: Any) -> Any:
    """A client of Systems Manager that hands out `key` once."""
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    client = boto3.client("ssm", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    stubber = Stubber(client)
    stubber.add_response(
        "get_parameter", {"Parameter": {"Value": pem}}, {"Name": "/neve/cdn-key", "WithDecryption": True}
    )
    stubber.activate()
    return client


def test_cloudfront_finds_its_own_url_signed_by_the_key_whose_id_it_names() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    client = parameter(key)
    signer = CdnSigner(
        url=lambda stored: f"{CDN}/{quote(stored)}",
        key_id="K2JCJMDEHXQW5F",
        sign=lambda: signature_of(client, "/neve/cdn-key"),
        clock=lambda: NOW,
    )
    for _ in range(2):  # the parameter is read once
        url, _, query = signer.signed("private/a b", head=False, lifetime_s=600).partition("?")
        assert url == f"{CDN}/private/a%20b"
        asked = parse_qs(query)
        until = int((NOW + timedelta(seconds=600)).timestamp())
        assert (asked["Expires"], asked["Key-Pair-Id"]) == ([str(until)], ["K2JCJMDEHXQW5F"])
        policy = f'{{"Statement":[{{"Resource":"{url}","Condition":{{"DateLessThan":{{"AWS:EpochTime":{until}}}}}}}]}}'
        signature = base64.b64decode(asked["Signature"][0].translate(str.maketrans("-_~", "+=/")))
        key.public_key().verify(signature, policy.encode(), padding.PKCS1v15(), hashes.SHA1())  # raises if it is not


def test_a_parameter_with_another_kind_of_key_is_refused() -> None:
    with pytest.raises(ValueError, match="holds no RSA key"):
        signature_of(parameter(ec.generate_private_key(ec.SECP256R1())), "/neve/cdn-key")


def test_private_files_are_signed_for_cloudfront_where_the_stack_says_so(
    cloud: MotoCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = parameter(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    monkeypatch.setattr(clients, "ssm", lambda _: client)
    given(signing="cloudfront", cdn_key_id="K2", cdn_key_parameter="/neve/cdn-key")
    cloud.pointers.move(None, in_content("private/a"))
    location = ask("/private/a", query="v=1")["headers"]["Location"]
    assert location.startswith(f"{CDN}/private/a?Expires=")
    assert location.endswith("&Key-Pair-Id=K2")


# -- Ranges


@contextmanager
def served(get: Callable[[BaseHTTPRequestHandler], tuple[int, dict[str, str], bytes]]) -> Iterator[str]:
    """A server on loopback that answers with `get`; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = get(self)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_client_that_follows_the_redirect_gets_the_range_that_it_asked_for(cloud: MotoCloud) -> None:
    cloud.pointers.move(None, in_content())

    def site(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        path, _, query = request.path.partition("?")
        answer = ask(path, query=query)
        return answer["statusCode"], answer["headers"], answer["body"].encode()

    def cdn(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        assert request.path == "/img/a%20b.jpg?v=1"
        assert request.headers["Range"] == "bytes=2-4"
        return 206, {"Content-Range": "bytes 2-4/10"}, b"234"

    with served(cdn) as cdn_url, served(site) as site_url:
        given(cdn_urls=cdn_url)
        request = Request(f"{site_url}{PATH}?v=1", headers={"Range": "bytes=2-4"})
        with urlopen(request, timeout=5) as answer:
            assert (answer.status, answer.read()) == (206, b"234")
