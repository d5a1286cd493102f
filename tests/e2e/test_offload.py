"""Files leave a host for S3 and Glacier while their URLs are fetched all along: real web servers, a real agent.

About 40 seconds.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import struct
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from neve.aws.outbox_table import DynamoOutbox
from neve.aws.pointers_table import DynamoPointers
from neve.domain.pointer import InContent
from neve_edge.outbox import SqliteOutbox
from neve_edge.webserver.site import site
from neve_local.cdn import ContentCdn
from tests.browser import CHROMIUM, WITHOUT_CHROMIUM, browse
from tests.deployed import Stacks, policy
from tests.edge_agent import Host, Visitor, fetch, watch_departures
from tests.webservers import WebServer, missing, running

PREFIX = "web/"
SERVERS = ("nginx", "lighttpd")
IMAGES = tuple(f"photos/{number:02}.png" for number in range(20))
NAMES = (
    *IMAGES,
    "with space+plus 100%.png",
    "what? #1 & more;=.png",
    "Übergröße é 雪.png",
    "quote'\"<b>.png",
    "deep/er/and deeper/x.png",
    ".hidden.png",
)
SLOW = ("slow/1.bin", "slow/2.bin")
TRUST = {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::000000000000:root"}, "Action": "sts:AssumeRole"}
ROLE = "EdgeHost"
NOBODY_SENDS = policy({"Effect": "Deny", "Principal": "*", "Action": "sqs:SendMessage", "Resource": "*"})
NO_SENDING = policy({"Effect": "Deny", "Action": "sqs:SendMessage", "Resource": "*"})


@dataclass(frozen=True, kw_only=True)
class Site:
    """A host with its web servers, by name, and the stacks behind them."""

    host: Host
    stacks: Stacks
    servers: dict[str, WebServer]
    pointers: DynamoPointers
    log: Path

    def pointer(self, name: str) -> InContent | None:
        found = self.pointers.get(self.host.key_prefix + name)
        return found if isinstance(found, InContent) else None

    def body(self, pointer: InContent) -> bytes:
        """The bytes of the version that a pointer names."""
        answer = self.stacks.s3.get_object(
            Bucket=self.stacks.outputs["ContentBucket"], Key=pointer.content_key, VersionId=pointer.content_version
        )
        return bytes(answer["Body"].read())

    def wait_until_moved(self, names: Sequence[str]) -> None:
        """Poll until none of these files is in the folder; what the agent logged is told if that never is."""
        try:
            self.stacks.wait_for("every file moved", lambda: not self.host.left(names))
        except AssertionError as error:
            left = self.host.left(names)
            raise AssertionError(f"{error}: {len(left)}, such as {left[:3]}\n{self.log.read_text()[-3000:]}") from error

    @property
    def urls(self) -> dict[str, str]:
        return {name: f"{server.url}/files/" for name, server in self.servers.items()}


@pytest.fixture(scope="module")
def edge(stacks: Stacks) -> dict[str, str]:
    """The environment of a host that has the policy NeveEdge, and nothing else."""
    session = stacks.cloud.session()
    iam = session.client("iam")
    role = iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument=policy(TRUST))["Role"]["Arn"]
    iam.attach_role_policy(RoleName=ROLE, PolicyArn=stacks.outputs["NeveEdgePolicy"])
    given = session.client("sts").assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    return {
        **stacks.cloud.environment(),
        "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
        "AWS_SESSION_TOKEN": given["SessionToken"],
    }


@pytest.fixture(scope="module")
def place(stacks: Stacks, edge: dict[str, str], attached: None) -> Iterator[Site]:
    """The host, served by those web servers that are installed; skipped if none is."""
    there = [name for name in SERVERS if not missing(name)]
    if not there:
        pytest.skip("; ".join(missing(name) for name in SERVERS))
    folder = Path(tempfile.mkdtemp(prefix="neve-edge-"))
    folder.chmod(0o755)
    files = folder / "files"
    files.mkdir()
    one = site(root=str(files), url="/files/", to=stacks.outputs["ResolverUrl"].rstrip("/"), key_prefix=PREFIX)
    dynamodb = stacks.cloud.session().client("dynamodb")
    host = Host.make(files, folder / "host", environment=edge, key_prefix=PREFIX)
    try:
        servers: dict[str, WebServer] = {}
        with ExitStack() as stack:
            for name in there:
                servers[name] = stack.enter_context(running(name, folder / name, [one]))
                fetch(f"{servers[name].url}/files/none")  # Resolve starts, once for each visitor at a time
            yield Site(
                host=host,
                stacks=stacks,
                servers=servers,
                pointers=DynamoPointers(dynamodb, stacks.outputs["PointersTable"]),
                log=folder / "agent.log",
            )
    finally:
        shutil.rmtree(folder)


def image(draw: random.Random) -> bytes:
    """A PNG of noise, 10 to 160 pixels wide and as high."""
    side = draw.randrange(10, 161)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + draw.randbytes(side) for _ in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@dataclass(frozen=True, kw_only=True)
class Moved:
    """Files that have left the host, what visitors got meanwhile, and for which of them there was proof."""

    bodies: dict[str, bytes]
    visitor: Visitor
    proved: set[str]


@pytest.fixture(scope="module")
def moved(place: Site) -> Moved:
    """Files come, at once or written slowly, and go, while the agent is killed again and again."""
    draw, host, proved = random.Random(7), place.host, set[str]()
    bodies = {name: image(draw) for name in NAMES} | {name: draw.randbytes(300_000) for name in SLOW}
    visitor = Visitor(servers=place.urls, bodies={})

    def prove(name: str) -> None:
        # At the very moment at which it has left the folder.
        pointer = place.pointer(name)
        assert pointer is not None, f"{name} has gone, and no pointer names a copy"
        assert place.body(pointer) == bodies[name], name
        proved.add(name)

    def write_slowly(name: str) -> None:
        file = host.files / name
        file.parent.mkdir(exist_ok=True)
        with file.open("wb") as stream:
            for start in range(0, 300_000, 50_000):
                stream.write(bodies[name][start : start + 50_000])
                stream.flush()
                time.sleep(0.4)
        visitor.bodies[name] = bodies[name]

    with visitor.visiting(), watch_departures(host, bodies, prove):
        writers = [threading.Thread(target=write_slowly, args=[name]) for name in SLOW]
        for writer in writers:
            writer.start()
        for start in range(0, len(NAMES), 7):
            agent = host.start("run", log=place.log)
            for name in NAMES[start : start + 7]:
                host.move_in(name, bodies[name])
                visitor.bodies[name] = bodies[name]
                time.sleep(draw.uniform(0, 0.2))
            time.sleep(draw.uniform(0.5, 2))
            assert agent.poll() is None, place.log.read_text()[-3000:]
            agent.kill()
            agent.wait()
        for writer in writers:
            writer.join()
        with host.agent("run", log=place.log):
            place.wait_until_moved(list(bodies))
            visitor.go_round()
    return Moved(bodies=bodies, visitor=visitor, proved=proved)


def test_every_url_is_answered_with_the_right_bytes_at_every_moment(place: Site, moved: Moved) -> None:
    failures = [each for each in moved.visitor.fetched if not each.well]
    assert failures == [], f"{len(failures)} of {len(moved.visitor.fetched)}"
    for name in moved.bodies:
        for server in place.servers:
            redirected = [each.redirected for each in moved.visitor.seen(name, server)]
            assert (redirected[0], redirected[-1]) == (False, True), (name, server)
            assert redirected == sorted(redirected), f"{name} came back to {server}"


def test_a_file_leaves_the_folder_only_after_proof_and_goes_to_the_attic(place: Site, moved: Moved) -> None:
    assert moved.proved == set(moved.bodies)
    attic = [path for path in (place.host.files / ".neve-attic").rglob("*") if path.is_file()]
    assert {path.read_bytes() for path in attic} >= set(moved.bodies.values())


def test_what_was_moved_ends_in_glacier(place: Site, moved: Moved) -> None:
    pointers = {name: place.pointer(name) for name in moved.bodies}
    place.stacks.verify(
        {
            (pointer.content_key, pointer.content_version): moved.bodies[name]
            for name, pointer in pointers.items()
            if pointer
        }
    )


def test_ranges_conditions_and_query_strings_survive_the_redirects(place: Site, moved: Moved, cdn: ContentCdn) -> None:
    name = "with space+plus 100%.png"
    for base in place.urls.values():
        url = f"{base}{quote(name)}"
        status, got, ended = fetch(f"{url}?width=100&x=%2F", Range="bytes=5-9")
        assert (status, got) == (206, moved.bodies[name][5:10])
        assert ended == f"{cdn.url}/{PREFIX}{quote(name)}?width=100&x=%2F"
        assert fetch(url, If_None_Match=f'"{hashlib.md5(moved.bodies[name]).hexdigest()}"')[:2] == (304, b"")
        assert fetch(url, method="HEAD")[:2] == (200, b"")
        assert fetch(f"{base}never/was.png")[0] == 404


def test_the_cdns_double_has_uploads_as_a_second_origin(place: Site, cdn: ContentCdn) -> None:
    outputs, s3 = place.stacks.outputs, place.stacks.s3
    s3.put_object(Bucket=outputs["ContentBucket"], Key="both 1+1", Body=b"content", CacheControl="max-age=7")
    for key in ("both 1+1", "double/only here"):
        s3.put_object(Bucket=outputs["UploadsBucket"], Key=key, Body=b"uploads")
    assert fetch(f"{cdn.url}/both%201%2B1?versionId=x")[:2] == (200, b"content")
    assert fetch(f"{cdn.url}/double/only%20here")[:2] == (200, b"uploads")
    assert [fetch(f"{cdn.url}/{path}")[0] for path in ("both%201+1", "nowhere", "")] == [404, 404, 404]


@pytest.mark.skipif(CHROMIUM is None, reason=WITHOUT_CHROMIUM)
def test_a_browser_shows_a_page_of_images_through_the_redirects(
    place: Site, moved: Moved, cdn: ContentCdn, tmp_path: Path
) -> None:
    images = [f"{base}{quote(name)}" for base in place.urls.values() for name in NAMES]
    sizes = [struct.unpack(">I", moved.bodies[name][16:20])[0] for _ in place.urls for name in NAMES]
    before = cdn.served.total()
    page = next(iter(place.servers.values())).pages / "gallery.html"
    page.write_text(
        f"<!DOCTYPE html><meta charset=utf-8><link rel=icon href='data:,'>"
        f"<body>{''.join(f'<img src={json.dumps(url)}>' for url in images)}<pre id='measured'></pre><script>"
        "onload = () => { document.getElementById('measured').textContent ="
        " JSON.stringify([...document.images].map(image => image.naturalWidth)); };</script>"
    )
    first = next(iter(place.servers.values()))
    assert browse(f"{first.url}/gallery.html", tmp_path, width=1200) == sizes
    assert cdn.served.total() - before >= len(NAMES)


def test_what_sqs_refuses_is_kept_and_sent_in_order_once_it_does_not(place: Site, tmp_path: Path) -> None:
    iam, stacks, queue = (
        place.stacks.cloud.session().client("iam"),
        place.stacks,
        place.stacks.outputs["AnnouncementsQueue"],
    )
    files = tmp_path / "shared"
    files.mkdir()
    host = Host.make(files, tmp_path / "host", environment=place.host.environment, key_prefix="shared/", queue=True)
    first, second = ({f"{wave}/{number}.jpg": bytes([number]) for number in range(12)} for wave in "ab")

    def unsent() -> int:
        with closing(SqliteOutbox(host.journal)) as outbox:
            return outbox.backlog(queue).entries

    iam.put_role_policy(RoleName=ROLE, PolicyName="refused", PolicyDocument=NO_SENDING)
    with host.agent("watch", log=place.log):
        for name, body in first.items():
            host.move_in(name, body)
        stacks.wait_for("all of them in the outbox", lambda: unsent() == len(first))
        iam.delete_role_policy(RoleName=ROLE, PolicyName="refused")
        for name, body in second.items():
            host.move_in(name, body)
        stacks.wait_for("those behind them, which SQS would take by now", lambda: unsent() == len(first | second))
    with host.agent("relay", log=place.log):
        stacks.wait_for("the outbox drained", lambda: unsent() == 0)
    heard: list[str] = []
    while len(heard) < len(first | second):
        answer = stacks.sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=2)
        for message in answer["Messages"]:
            heard.append(json.loads(message["Body"])["path"])
            stacks.sqs.change_message_visibility(
                QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=4
            )
    assert (set(heard[:12]), set(heard[12:])) == (set(first), set(second))
    with host.agent("work", log=place.log):
        stacks.wait_for("all of them moved", lambda: not host.left([*first, *second]))
    for name, body in (first | second).items():
        assert fetch(f"{stacks.outputs['ResolverUrl']}shared/{name}")[:2] == (200, body)


def test_a_release_that_sqs_refuses_waits_in_the_outbox_and_is_relayed(place: Site) -> None:
    stacks, bucket = place.stacks, place.stacks.outputs["UploadsBucket"]
    outbox = DynamoOutbox(stacks.cloud.session().client("dynamodb"), stacks.outputs["OutboxTable"])
    queue = stacks.outputs["ReleaseQueue"]
    allowed = stacks.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["Policy"])["Attributes"]["Policy"]
    bodies = {f"refused/{number}": bytes([number]) * 50 for number in range(5)}
    stacks.sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": NOBODY_SENDS})
    try:
        for key, body in bodies.items():
            stacks.s3.put_object(Bucket=bucket, Key=key, Body=body)
        stacks.wait_for("every pointer", lambda: all(isinstance(place.pointers.get(key), InContent) for key in bodies))
        stacks.wait_for("every release in the outbox", lambda: outbox.backlog(queue).entries >= len(bodies))
    finally:
        stacks.sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": allowed})
    stacks.sqs.send_message(QueueUrl=stacks.outputs["RelayQueue"], MessageBody="now")

    def uploads(kind: str) -> set[str]:
        answer = stacks.s3.list_object_versions(Bucket=bucket, Prefix="refused/")
        return {each["Key"] for each in answer.get(kind, []) if each["IsLatest"] is (kind == "DeleteMarkers")}

    stacks.wait_for("every upload let go", lambda: uploads("DeleteMarkers") == set(bodies))
    assert uploads("Versions") == set(bodies)  # in the attic
    assert not outbox.backlog(queue).entries
    for key, body in bodies.items():
        assert fetch(f"{stacks.outputs['ResolverUrl']}{key}")[:2] == (200, body)
