"""The fault campaign: thousands of random faults and legitimate changes, over whole audits on ports in memory.

`make chaos`, or `python -m tests.chaos.campaign [--flips N] [--changes N] [--seed N]`. Archives are real ones, made by
the archive thread's own flows, of random members with hostile keys. Every fault has to be found and named, and no
change that is no fault may be told of. It prints tables for docs/benchmarks.md, and ends with 1 if anything was missed.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from neve.domain.audit import Report
from neve.domain.manifest import BLOCK_BYTES, Manifest, parse_manifest, render_manifest
from neve.domain.restore import key_of as key_of_place
from neve.domain.verdict import QUIET, Verdict
from neve.domain.version import NULL_VERSION, ObjectVersion
from neve.errors import ManifestInvalid
from tests.audit_cloud import AuditCloud, flipped
from tests.bad_keys import BAD_KEYS
from tests.memory import CONTENT
from tests.restore_cloud import DAY, wanted

FLIPS = 1_000
CHANGES = 10_000
MEBIBYTE = 1024 * 1024
ARCHIVES = 40
"""Archives that faults are injected into at once, one each, and audited by one run."""

Identity = tuple[str, str]
Found = Mapping[Identity, Verdict]
"""Findings by (key, pin); ("", "") is the archive as a whole."""
WHOLE: Identity = ("", "")


@dataclass
class Line:
    """A line of the table."""

    injected: int = 0
    found: int = 0
    named: int = 0
    harmless: int = 0


@dataclass
class Result:
    """What a campaign came to. `missed` says in words what was not as it should be."""

    faults: dict[str, Line] = field(default_factory=dict)
    changes: Counter[str] = field(default_factory=Counter)
    audited: int = 0
    members: int = 0
    false_alarms: int = 0
    missed: list[str] = field(default_factory=list)


# -- The world ---------------------------------------------------------------------------------------------------------


def size_of(draw: random.Random, largest: int) -> int:
    """0 to `largest` bytes: small ones, block boundaries and large ones alike."""
    kind = draw.random()
    if kind < 0.1:
        return 0
    if kind < 0.3:
        return min(largest, max(0, BLOCK_BYTES * draw.randint(1, 8) + draw.choice([-1, 0, 1])))
    return min(largest, int(2 ** draw.uniform(0, largest.bit_length())))


def key_of(draw: random.Random, number: int) -> str:
    """A key that something or other chokes on, of its own for each number."""
    if number < len(BAD_KEYS):
        return BAD_KEYS[number]
    return f"{number:05}{draw.choice(BAD_KEYS)[:200]}"


def made(draw: random.Random, archives: int, *, largest: int) -> AuditCloud:
    """So many archives, of 1 to 12 members each."""
    cloud = AuditCloud(target_bytes=64 * MEBIBYTE)
    cloud.reader.piece_bytes = cloud.sources.piece_bytes = MEBIBYTE
    number = 0
    for _ in range(archives):
        versions = []
        for _ in range(draw.randint(1, 12)):
            version_id = NULL_VERSION if draw.random() < 0.4 else f"v{number}"
            body = draw.randbytes(size_of(draw, largest))
            versions.append(cloud.upload(key_of(draw, number), body, version_id, content_type=draw.choice(["", "a/b"])))
            number += 1
        cloud.archived(*versions)
    assert len(cloud.archives.rows) == archives
    return cloud


def audited(cloud: AuditCloud, serials: Iterable[int]) -> dict[int, Report]:
    """The reports on these archives, of one run."""
    cloud.now += 3 * DAY  # the copies of the run before have expired
    run = cloud.ask(*serials)
    cloud.settle()
    return {report.archive: report for report in cloud.reports(run)}


def found_in(report: Report) -> Found:
    return {(finding.key, finding.pin): finding.verdict for finding in report.findings}


# -- Faults ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """One fault in one archive: its line in the table, what has to be found, and how it is undone."""

    line: str
    expected: Found
    undo: Callable[[], None]
    what: str


def ranges_of(manifest: Manifest) -> list[tuple[int, int, str]]:
    """The whole of a tar, cut up into (first, last + 1, what it is)."""
    cut: list[tuple[int, int, str]] = []
    at = 0
    for number, member in enumerate(manifest.members):
        first, last = member.offset_bytes, member.offset_bytes + member.source.size_bytes
        if number == 0:
            cut.append((0, first - BLOCK_BYTES, "archive: its own list, with headers"))
            at = first - BLOCK_BYTES
        cut.append((at, first, "archive: header or padding of a member"))
        cut.append((first, last, "archive: bytes of a member"))
        at = last
    cut.append((at, manifest.object_size_bytes, "archive: padding and end"))
    return [part for part in cut if part[0] < part[1]]


def flip_archive(cloud: AuditCloud, draw: random.Random, serial: int) -> Fault:
    """One bit, half of the times anywhere in the object, half of the times anywhere in a part of it."""
    manifest = cloud.manifest(serial)
    parts = ranges_of(manifest)
    at = draw.randrange(manifest.object_size_bytes)
    if draw.random() < 0.5:
        first, last, _ = draw.choice(parts)
        at = draw.randrange(first, last)
    [line] = [line for first, last, line in parts if first <= at < last]
    bit = 1 << draw.randrange(8)
    cloud.flip(serial, at, bit)
    hit = [
        each.source.identity
        for each in manifest.members
        if each.offset_bytes <= at < each.offset_bytes + each.source.size_bytes
    ]
    expected = dict.fromkeys(hit, Verdict.ARCHIVE_DAMAGED) or {WHOLE: Verdict.CONTAINER_DAMAGED}
    return Fault(line, expected, lambda: cloud.flip(serial, at, bit), f"archive {serial}, byte {at}, bit {bit}")


def truncate(cloud: AuditCloud, draw: random.Random, serial: int) -> Fault:
    """The object ends anywhere."""
    manifest = cloud.manifest(serial)
    key = manifest.object_key
    whole = cloud.store.objects[key]
    end = draw.randrange(len(whole))
    cloud.store.objects[key] = whole[:end]
    hit = [each.source.identity for each in manifest.members if each.offset_bytes + each.source.size_bytes > end]
    expected = dict.fromkeys(hit, Verdict.ARCHIVE_DAMAGED) or {WHOLE: Verdict.CONTAINER_DAMAGED}
    undo = lambda: cloud.store.objects.update({key: whole})  # noqa: E731
    return Fault("archive: cut short", expected, undo, f"archive {serial} cut at {end}")


def flip_source(cloud: AuditCloud, draw: random.Random, serial: int) -> Fault:
    """One bit of a member's source, of which S3 goes on stating what it stated."""
    members = [each.source.identity for each in cloud.manifest(serial).members if each.source.size_bytes]
    if not members:
        return flip_archive(cloud, draw, serial)
    identity = draw.choice(members)
    stated, body = cloud.content.objects[identity]
    at = draw.randrange(len(body))
    cloud.content.objects[identity] = (stated, flipped(body, at, 1 << draw.randrange(8)))
    undo = lambda: cloud.content.objects.update({identity: (stated, body)})  # noqa: E731
    return Fault("source", {identity: Verdict.SOURCE_DAMAGED}, undo, f"source {identity!r}, byte {at}")


def flip_manifest(cloud: AuditCloud, draw: random.Random, serial: int) -> Fault:
    """One bit of a manifest's object. One that then says the same (the case of a hexadecimal digit) is not at fault."""
    manifest = cloud.manifest(serial)
    rendered = render_manifest(manifest)
    at = draw.randrange(len(rendered))
    bit = 1 << draw.randrange(8)
    undo = lambda: cloud.store.manifests.update({serial: manifest})  # noqa: E731
    what = f"manifest {serial}, byte {at}, bit {bit}"
    try:
        cloud.store.manifests[serial] = parse_manifest(flipped(rendered, at, bit))
    except ManifestInvalid:
        del cloud.store.manifests[serial]  # to an audit it is the same as one that is gone
    same = cloud.store.manifests.get(serial) == manifest
    return Fault("manifest", {} if same else {WHOLE: Verdict.MANIFEST_WRONG}, undo, what)


def named(expected: Found, found: Found) -> bool:
    """Whether exactly that was found; of a wrong manifest also each member of which it says something else."""
    if expected == {WHOLE: Verdict.MANIFEST_WRONG}:
        return set(found.values()) == {Verdict.MANIFEST_WRONG} and WHOLE in found
    return found == expected


def inject_faults(result: Result, draw: random.Random, flips: int, *, largest: int) -> None:
    """So many flips in archives; for every ten of them two in sources, two in manifests, and one archive cut short."""
    cloud = made(draw, ARCHIVES, largest=largest)
    inject = [flip_archive] * flips
    inject += [flip_source] * (flips // 5) + [flip_manifest] * (flips // 5) + [truncate] * (flips // 10)
    draw.shuffle(inject)
    for start in range(0, len(inject), ARCHIVES):
        batch = inject[start : start + ARCHIVES]
        faults = {serial: each(cloud, draw, serial) for serial, each in enumerate(batch, start=1)}
        mailed = len(cloud.mails.published)
        reports = audited(cloud, faults)
        alarms = sum(bool(fault.expected) for fault in faults.values())
        if len(cloud.mails.published) - mailed != bool(alarms):
            result.missed.append(f"{len(cloud.mails.published) - mailed} mails were sent for {alarms} faults")
        for serial, fault in faults.items():
            judge(result, fault, found_in(reports[serial]))
            fault.undo()


def judge(result: Result, fault: Fault, found: Found) -> None:
    line = result.faults.setdefault(fault.line, Line())
    line.injected += 1
    line.harmless += not fault.expected
    line.found += bool(found)
    line.named += bool(found) and named(fault.expected, found)
    if not named(fault.expected, found):
        result.missed.append(f"{fault.what}: {dict(fault.expected)} was expected, {dict(found)} found")


# -- Changes that are no faults ----------------------------------------------------------------------------------------


@dataclass
class Life:
    """A content bucket in use: what its users do, and what an audit has to say of each archived version then."""

    cloud: AuditCloud
    draw: random.Random
    new: list[ObjectVersion] = field(default_factory=list)
    versions: int = 0
    jobs: int = 0

    @property
    def standing(self) -> list[Identity]:
        """The archived versions that the bucket still has."""
        return [identity for identity in self.cloud.files.rows if identity in self.cloud.content.objects]

    def change(self, standing: Sequence[Identity]) -> str:
        """One change; what kind it was."""
        key, pin = self.draw.choice(standing)
        while (key, pin) not in self.cloud.content.objects:  # another change of this round was first
            key, pin = self.draw.choice(standing)
        unversioned = pin.startswith(NULL_VERSION)
        kinds = ["deleted for good", "deleted with a marker", "new key"]
        kinds += ["restored"] * (len(key.encode()) < 60)  # version ids of the memory fake have the key in them
        kinds += ["overwritten in place"] * 4 if unversioned else ["overwritten, a new version"] * 4
        kind = self.draw.choice(kinds)
        match kind:
            case "deleted for good":
                self.cloud.delete(key, pin)
            case "deleted with a marker":
                pass  # what is archived is a version, which stays readable
            case "overwritten in place":
                self._put(key, NULL_VERSION)
            case "overwritten, a new version":
                self._put(key)
            case "new key":
                self._put(key_of(self.draw, 1_000 + self.versions), self.draw.choice(["", NULL_VERSION]))
            case _:
                self.jobs += 1
                self.cloud.job([wanted(key, f"s3://{CONTENT}/{key}", pin)], job=f"job-{self.jobs}")
        return kind

    def _put(self, key: str, version_id: str = "") -> None:
        self.versions += 1
        body = self.draw.randbytes(size_of(self.draw, 4_000)) + b"%d" % self.versions
        self.new.append(self.cloud.upload(key, body, version_id or f"n{self.versions}"))

    def archive(self) -> None:
        """What was written since is archived; the last version only, of what was overwritten in place meanwhile.

        What was restored is in the content bucket as well, and is not archived a second time.
        """
        self.cloud.settle()
        for place, made_there in self.cloud.destination.objects.items():
            for each in made_there:
                assert each.source is not None
                source = replace(each.source, version_id=each.version_id)
                self.cloud.content.objects.setdefault((key_of_place(place), each.version_id), (source, each.body))
        self.cloud.archived(*[each for each in self.new if each.identity in self.cloud.content.objects])
        self.new.clear()

    def expected(self, identity: Identity) -> Verdict:
        """What an audit has to say of an archived version as the bucket is now."""
        key, pin = identity
        if identity in self.cloud.content.objects:
            return Verdict.INTACT
        in_place = any(
            other == key and each.startswith(f"{NULL_VERSION}-") for other, each in self.cloud.content.objects
        )
        return Verdict.SOURCE_CHANGED if in_place and pin.startswith(f"{NULL_VERSION}-") else Verdict.SOURCE_GONE

    def repair(self, serial: int) -> int:
        """Damage an archive and have it repaired, one mail that is no false alarm; whether there was enough left."""
        members = self.cloud.manifest(serial).members
        whole = [
            each for each in members if each.source.size_bytes and each.source.identity in self.cloud.content.objects
        ]
        if whole:  # else it would be lost
            self.cloud.flip(serial, whole[0].offset_bytes)
            self.cloud.now += 3 * DAY
            self.cloud.ask(serial, repair=True)
            self.cloud.settle()
            self.cloud.mails.published.clear()
        return int(bool(whole))


def live(result: Result, draw: random.Random, changes: int) -> None:
    """So many changes, in rounds; after each round every archive that counts is audited."""
    life = Life(cloud=made(draw, ARCHIVES, largest=4_000), draw=draw)
    cloud = life.cloud
    rounds = max(1, min(20, changes // 50))
    repaired = iter(draw.sample(range(1, ARCHIVES + 1), min(rounds, ARCHIVES)))
    for number in range(rounds):
        standing = life.standing
        count = changes // rounds + (number < changes % rounds)
        if changes >= ARCHIVES:
            done = life.repair(next(repaired))
            result.changes["repaired"] += done
            count -= done
        for _ in range(count):
            result.changes[life.change(standing)] += 1
        life.archive()
        serials = [serial for serial, row in cloud.archives.rows.items() if not row.superseded_by]
        for serial, report in audited(cloud, serials).items():
            result.audited += 1
            result.members += sum(report.counts.values())
            expected = Counter(life.expected(member.source.identity) for member in cloud.manifest(serial).members)
            alarm = report.verdict not in QUIET or bool(report.findings)
            result.false_alarms += alarm
            if alarm or dict(report.counts) != dict(expected):
                result.missed.append(f"archive {serial}: {dict(expected)} was expected, {report} found")
        result.false_alarms += len(cloud.mails.published)
        cloud.mails.published.clear()


# -- The report --------------------------------------------------------------------------------------------------------


def run(*, flips: int, changes: int, seed: int, largest: int = MEBIBYTE) -> Result:
    """The campaign."""
    result = Result()
    inject_faults(result, random.Random(seed), flips, largest=largest)
    live(result, random.Random(seed + 1), changes)
    return result


def table(result: Result) -> Iterator[str]:
    """The tables, in Markdown."""
    yield "| fault | injected | says the same | found | named correctly |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    total = Line()
    for name, line in sorted(result.faults.items()):
        yield f"| {name} | {line.injected:,} | {line.harmless:,} | {line.found:,} | {line.named:,} |"
        total.injected += line.injected
        total.harmless += line.harmless
        total.found += line.found
        total.named += line.named
    yield f"| **all** | {total.injected:,} | {total.harmless:,} | **{total.found:,}** | **{total.named:,}** |"
    yield ""
    yield "| legitimate change | made |"
    yield "| --- | ---: |"
    for name, count in sorted(result.changes.items()):
        yield f"| {name} | {count:,} |"
    yield f"| **all** | {result.changes.total():,} |"
    yield ""
    yield (
        f"{result.audited:,} audits of archives, {result.members:,} members, came after these changes: "
        f"**{result.false_alarms:,} false alarms**."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign as the command line says; 1 if anything was missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.campaign", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--flips", type=int, default=FLIPS, help="single-bit flips in archives")
    parser.add_argument("--changes", type=int, default=CHANGES, help="legitimate changes")
    parser.add_argument("--seed", type=int, default=20261122)
    chosen = parser.parse_args(arguments)
    began = time.monotonic()
    result = run(flips=chosen.flips, changes=chosen.changes, seed=chosen.seed)
    print("\n".join(table(result)))
    print(f"\nSeed {chosen.seed}, {time.monotonic() - began:.0f} s.")
    for problem in result.missed[:20]:
        print(f"MISSED: {problem}", file=sys.stderr)
    return int(bool(result.missed))


if __name__ == "__main__":
    sys.exit(main())
