"""The work on announced files: upload, verify, wait for the pointer, and only then let the file go.

    announced -> uploaded -> verified -> pointed -> moved, hashed again -> in the attic, or deleted
                    |            |          |               |
                    +------------+----------+---------------+--> changed meanwhile: back to the start

What is verified is noted in the journal, and so is a move before it is made: whoever comes after a death goes on from
there, and doing a step twice does no harm. A second upload is one more version of the same bytes; a second look costs
a request; a move starts at whatever it finds. The announcement is done last.

What cannot be done now is put off with its reason, for longer each time, and the file stays where it is. Only one that
has gone, or is no regular file, is given up.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from queue import Empty, SimpleQueue
from urllib.parse import quote

from neve.domain.pointer import InContent, OnHost, Pointer
from neve.errors import NeveError, Transient
from neve_edge.announcement import Found, seen
from neve_edge.announcements import Announcements, Taken
from neve_edge.attic import Attic, AtticUnfit, Fate, Outcome, token, unchanged
from neve_edge.journal import Journal, Move, Remains, Upload
from neve_edge.opening import NotRegular, open_file
from neve_edge.pointing import HostPointers, Looks, first_look
from neve_edge.reading import Reading, Unfinished, read
from neve_edge.ready import Writer
from neve_edge.settings import Folder
from neve_edge.uploading import Proof, Uploads
from neve_edge.webserver.site import HERE

_LOG = logging.getLogger("neve.edge")

IN_HAND = 3_000
"""Files that a worker has in memory: they wait to be uploaded, verified, or for their pointers."""
UPLOADS_AHEAD = 400
"""Of those so many are handed to the threads that upload, which therefore never wait for the journal."""
VERIFY_AT_ONCE = 2_000
"""A page of a listing tells of 1,000 versions: the more are asked for together, the more of them are wanted."""
GATHER_S, VERIFY_WITHIN_S = 0.05, 8.0
"""What has been uploaded is gathered for so long, so that a transaction or a look-up serves many files."""
BREATH_S = 0.01
"""While many are being uploaded, to be woken for each that ends would slow the threads down that upload."""
LET_GO_AT_ONCE = 500
PATIENCE_S = 60.0
"""A file that has no pointer after this time is put off, and others are worked on."""
HOLD_EVERY_S, RECOVER_EVERY_S, PURGE_EVERY_S = 60.0, 60.0, 600.0
PURGE_AT_ONCE = 100
"""They are hashed before anything else goes on, and 100 pointers are one request."""
AGAIN_S = 5.0
"""Between two tries at announcements that can be neither taken nor ended: the disk is full, or AWS is away."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1, 900
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
_NO_FILE = (errno.ELOOP, errno.ENXIO, errno.EISDIR)

Place = tuple[str, str]
"""A file: the name of its folder, and its path in it."""


class Count(StrEnum):
    """What a worker counts."""

    UPLOADED = "uploaded"
    UPLOADED_BYTES = "uploaded_bytes"
    VERIFIED = "verified"
    POINTED = "pointed"
    KEPT = "kept"
    ATTIC = "attic"
    DELETED = "deleted"
    CHANGED = "changed"
    GONE = "gone"
    NO_FILE = "no_file"
    PUT_OFF = "put_off"
    PURGED = "purged"


def pause_s(tries: int, chance: float) -> int:
    """How long a file is put off after so many tries: pauses double, and `chance` (0 to 1) spreads them.

    Half of a pause is kept. Source: AWS Architecture Blog, "Exponential Backoff And Jitter" ("equal jitter").
    """
    longest: int = min(LONGEST_PAUSE_S, FIRST_PAUSE_S << min(tries, 16))
    return max(1, round(longest * (0.5 + chance / 2)))


def is_settled(found: Found, reading: Reading, *, quiet_s: float, tries: int, now: datetime) -> bool:
    """Whether a file that was read is finished, as far as can be told.

    Where the kernel does not know of writers, the file has to be as it was when it was found to be finished, or old
    enough. A time in the future says nothing; then it has to have waited once. Who is wrong here uploads a version too
    many: a file that changes is not let go.
    """
    if reading.writer is Writer.NONE or reading.seen.same_bytes_as(found.seen):
        return True
    age_s = now.timestamp() - reading.seen.mtime_ns / 1e9
    return age_s >= quiet_s or (age_s < 0 and tries > 1)


@dataclass(frozen=True, kw_only=True)
class Ports:
    """What a worker works with. `clock` tells aware UTC, `monotonic` seconds, `chance` gives numbers from 0 to 1.

    Without `pointers` a file is copied once its upload is verified, and only files that are kept are worked on.
    """

    announcements: Announcements
    journal: Journal
    uploads: Uploads
    pointers: HostPointers | None
    clock: Callable[[], datetime]
    monotonic: Callable[[], float]
    chance: Callable[[], float]


@dataclass
class _Work:
    """A file in hand. Further announcements of it that come meanwhile end with the first."""

    folder: Folder
    taken: list[Taken]
    upload: Upload | None
    looks: Looks

    @property
    def found(self) -> Found:
        return self.taken[-1].announcement.found

    @property
    def place(self) -> Place:
        return self.found.folder, self.found.path

    @property
    def tries(self) -> int:
        return self.taken[0].tries

    @property
    def verified(self) -> Upload:
        assert self.upload is not None, "only what was uploaded comes here"
        return self.upload


@dataclass(frozen=True, kw_only=True)
class _Sent:
    """How an upload ended: with `upload`, `fresh` if it was made now; `gone`; or put off, for `after_s` if given."""

    upload: Upload | None = None
    fresh: bool = False
    gone: Count | None = None
    why: str = ""
    after_s: int | None = None


_Ended = tuple[_Work, _Sent | BaseException]


@dataclass
class Worker:
    """Works on announced files, `parallel` uploads at a time. One thread calls it; `counts` says what it did so far."""

    ports: Ports
    folders: Sequence[Folder]
    parallel: int = 8
    counts: Counter[Count] = field(default_factory=Counter)
    _works: dict[Place, _Work] = field(default_factory=dict)
    _uploading: int = 0
    _ended: SimpleQueue[_Ended] = field(default_factory=SimpleQueue)
    _unverified: list[_Work] = field(default_factory=list)
    _waiting: dict[Place, _Work] = field(default_factory=dict)
    _endings: list[tuple[list[Taken], int | None, str, bool]] = field(default_factory=list)
    _due: dict[str, float] = field(default_factory=dict)
    _verify_at: float | None = None
    _take_at: float = float("-inf")

    def __post_init__(self) -> None:
        self._attics = {folder.name: Attic(folder) for folder in self.folders}
        self._senders = ThreadPoolExecutor(self.parallel, thread_name_prefix="upload")
        self._movers = ThreadPoolExecutor(min(4, self.parallel), thread_name_prefix="move")

    def prepare(self) -> None:
        """Make the attics, and end what a death has left half done. Raises AtticUnfit, OSError."""
        for attic in self._attics.values():
            self._prepare(attic)
        self._every("recover", RECOVER_EVERY_S, self._recover)

    def close(self) -> None:
        """End the threads; what was in hand is taken up again by who comes next."""
        self._senders.shutdown(wait=False, cancel_futures=True)
        self.ports.uploads.give_up()
        self._senders.shutdown()
        self._movers.shutdown(cancel_futures=True)

    @property
    def in_hand(self) -> int:
        """How many files it has taken and not ended."""
        return len(self._works) + sum(len(taken) for taken, *_ in self._endings)

    def run(self, stopped: Callable[[], bool]) -> None:
        """Work until `stopped` says so. It is asked every second."""
        self.prepare()
        while not stopped():
            self.step(wait_s=1.0)

    def step(self, *, wait_s: float = 0.0) -> None:
        """Take what there is, and bring everything in hand as far as it goes now; waits for something to do."""
        self._every("recover", RECOVER_EVERY_S, self._recover)
        self._every("purge", PURGE_EVERY_S, self._purge)
        self._every("hold", HOLD_EVERY_S, self._hold)
        self._every("end again", AGAIN_S, self._end_again)
        self._take(0.0 if self._uploading or self._unverified else min(wait_s, self._next_look_s()))
        self._collect(min(wait_s, GATHER_S))
        self._verify()
        self._look()

    # -- Taking and ending

    def _take(self, wait_s: float) -> None:
        room = min(IN_HAND - self.in_hand, UPLOADS_AHEAD - self._uploading)
        few = room < UPLOADS_AHEAD // 4 and self._uploading  # many at once cost less
        if room <= 0 or few or self.ports.monotonic() < self._take_at:
            time.sleep(wait_s)
            return
        try:
            taken = self.ports.announcements.take(room, wait_s=wait_s)
        except Transient as error:
            _LOG.warning("cannot take announcements retry_in_s=%g why=%r", AGAIN_S, str(error))
            self._take_at = self.ports.monotonic() + AGAIN_S
            return
        fit = [each for each in taken if not self._refuse(each)]
        places = [(each.announcement.found.folder, each.announcement.found.path) for each in fit]
        try:
            known = self.ports.journal.uploads(places)
        except Transient as error:
            self._finish(fit, FIRST_PAUSE_S, str(error))
            return
        now = self.ports.monotonic()
        for place, each in zip(places, fit, strict=True):
            if place in self._works:
                self._works[place].taken.append(each)
                continue
            folder = self._attics[place[0]].folder
            work = _Work(folder=folder, taken=[each], upload=known.get(place), looks=first_look(now))
            self._works[place] = work
            self._submit(work)

    def _refuse(self, taken: Taken) -> bool:
        """Whether this host's settings do not fit an announcement; then it is given back.

        The settings of two hosts may differ, or those of this one have changed since: what was meant to have one key
        must not be uploaded under another.
        """
        found = taken.announcement.found
        try:
            here = self._attics[found.folder].folder.key_of(found.path)
        except KeyError:
            why = f"this host has no folder {found.folder}: add it to edge.toml"
        except ValueError as error:
            why = str(error)
        else:
            if here == found.key:
                return False
            why = (
                f"it was announced as {found.key} and would be {here} here: give the folder {found.folder} the same "
                "key_prefix on all hosts; a scan announces anew what is here"
            )
        self._finish([taken], pause_s(taken.tries, self.ports.chance()), why, refused=True)
        return True

    def _submit(self, work: _Work) -> None:
        def ended(future: Future[_Sent]) -> None:
            if not future.cancelled():
                self._ended.put((work, future.exception() or future.result()))

        self._uploading += 1
        self._senders.submit(self._send, work).add_done_callback(ended)

    def _end(self, works: Iterable[_Work], count: Count) -> None:
        """These are done with."""
        ended = list(works)
        self.counts[count] += len(ended)
        for work in ended:
            del self._works[work.place]
        self._finish([each for work in ended for each in work.taken], None, "")

    def _put_off(self, works: Iterable[_Work], why: str, *, after_s: int | None = None) -> None:
        """These come back: after a while, or after as long as their tries say."""
        for work in works:
            del self._works[work.place]
            self.counts[Count.PUT_OFF] += 1
            self._finish(work.taken, after_s or pause_s(work.tries, self.ports.chance()), why)

    def _finish(self, taken: list[Taken], after_s: int | None, why: str, *, refused: bool = False) -> None:
        if not taken:
            return
        try:
            if after_s is None:
                self.ports.announcements.done(taken)
            else:
                self.ports.announcements.later(taken, after_s=after_s, why=why, refused=refused)
        except Transient as error:
            _LOG.warning("cannot end announcements files=%d why=%r", len(taken), str(error))
            self._endings.append((taken, after_s, why, refused))

    def _end_again(self) -> None:
        endings, self._endings = self._endings, []
        for taken, after_s, why, refused in endings:
            self._finish(taken, after_s, why, refused=refused)

    def _hold(self) -> None:
        self.ports.announcements.hold([each for work in self._works.values() for each in work.taken])

    # -- Uploading

    def _send(self, work: _Work) -> _Sent:
        """Upload a file, unless that was done before; in a thread of its own."""
        try:
            return self._sent_before(work) or self._upload(work)
        except (Unfinished, NeveError) as error:
            return _Sent(why=str(error))
        except OSError as error:
            return _refused(error)
        except Exception as error:  # noqa: BLE001  # what is wrong with one file holds up no other
            _LOG.exception("upload failed path=%r", work.found.path)
            return _Sent(why=f"{type(error).__name__}: {error}")

    def _sent_before(self, work: _Work) -> _Sent | None:
        """How it stands with what was uploaded before; None if that is not what stands there now."""
        if work.upload is None or work.upload.key != work.found.key:
            return None
        match unchanged(work.folder, work.upload):
            case None:
                # After a try that failed S3 is asked again: it may be another bucket by now, or be emptied.
                return _Sent(upload=replace(work.upload, verified=work.upload.verified and work.tries == 1))
            case Fate.GONE:
                return _Sent(gone=Count.GONE)
            case Fate.BUSY:
                return _Sent(why=Fate.BUSY.value)
            case _:
                return None

    def _upload(self, work: _Work) -> _Sent:
        found = work.found
        with read(work.folder.path, found.path) as reading:
            now = self.ports.clock()
            if not is_settled(found, reading, quiet_s=work.folder.quiet_s, tries=work.tries, now=now):
                return _Sent(why="it changed a moment ago", after_s=max(1, round(work.folder.quiet_s)))
            self._claim(work)
            stored = self.ports.uploads.put(found.key, reading)
        upload = Upload(
            folder=found.folder, path=found.path, key=found.key, seen=reading.seen, ctime_ns=reading.ctime_ns,
            sha256=reading.sha256, md5=reading.md5, crc64nvme=reading.crc64nvme,
            version_id=stored.version_id, etag=stored.etag, uploaded_at=now,
        )  # fmt: skip
        return _Sent(upload=upload, fresh=True)

    def _claim(self, work: _Work) -> None:
        """Say where a new file can be fetched until it is copied. It is an offer: without it the upload goes on.

        It is not taken back if the file is deleted before it is copied: then the host answers that it is not there, to
        a redirect that nobody stores.
        """
        if self.ports.pointers and work.folder.host_url:
            url = f"{work.folder.host_url}{quote(work.found.path)}?{HERE}"
            try:
                self.ports.pointers.claim_host(OnHost(key=work.found.key, url=url, since=self.ports.clock()))
            except NeveError as error:
                _LOG.warning("cannot write the host's pointer key=%r why=%r", work.found.key, str(error))

    def _collect(self, wait_s: float) -> None:
        """Gather what the threads have ended, for a moment."""
        ended: list[tuple[_Work, _Sent]] = []
        until = self.ports.monotonic() + wait_s
        while self._uploading and len(ended) < VERIFY_AT_ONCE:
            try:
                work, sent = self._ended.get(timeout=max(0.0, until - self.ports.monotonic()))
            except Empty:
                break
            self._uploading -= 1
            if isinstance(sent, BaseException):
                raise sent
            ended.append((work, sent))
            if self._uploading > self.parallel and self._ended.empty():
                time.sleep(BREATH_S)
        self._sort(ended)

    def _sort(self, ended: Sequence[tuple[_Work, _Sent]]) -> None:
        forget: list[Place] = []
        put_off: dict[tuple[str, int | None], list[_Work]] = defaultdict(list)
        gone: dict[Count, list[_Work]] = defaultdict(list)
        for work, sent in ended:
            if sent.upload:
                work.upload = sent.upload
                if sent.fresh:
                    self.counts[Count.UPLOADED] += 1
                    self.counts[Count.UPLOADED_BYTES] += sent.upload.seen.size_bytes
                if sent.upload.verified:
                    self._wait_for_pointers([work])
                else:
                    self._unverified.append(work)
            elif sent.gone:
                forget.append(work.place)
                gone[sent.gone].append(work)
            else:
                put_off[sent.why, sent.after_s].append(work)
        large = [work.upload for work, sent in ended if sent.fresh and work.upload and not work.upload.md5]
        if large or forget:
            self._note(large, forget=forget)  # gigabytes are not sent again after a death
        for count, works in gone.items():
            self._end(works, count)
        for (why, after_s), works in put_off.items():
            self._put_off(works, why, after_s=after_s)

    def _note(self, uploads: Sequence[Upload], *, forget: Iterable[Place] = ()) -> bool:
        try:
            self.ports.journal.note(uploads, forget=forget)
        except Transient as error:
            _LOG.warning("cannot note uploads files=%d why=%r", len(uploads), str(error))
            return False
        return True

    # -- Verifying

    def _verify(self) -> None:
        """Ask S3 what it holds. While more is being uploaded, many are asked for at once."""
        if not self._unverified:
            return
        if self._uploading and len(self._unverified) < VERIFY_AT_ONCE:
            now = self.ports.monotonic()
            self._verify_at = self._verify_at or now + VERIFY_WITHIN_S
            if now < self._verify_at:
                return
        self._verify_at = None
        works, self._unverified = self._unverified[:VERIFY_AT_ONCE], self._unverified[VERIFY_AT_ONCE:]
        try:
            proofs = self.ports.uploads.proofs([work.verified for work in works])
        except Transient as error:
            self._note([work.verified for work in works])
            self._put_off(works, str(error))
            return
        intact: list[_Work] = []
        for work, proof in zip(works, proofs, strict=True):
            if proof is Proof.INTACT:
                work.upload = replace(work.verified, verified=True)
                intact.append(work)
            else:
                _LOG.error(
                    "upload not verified key=%r version=%s why=%r",
                    work.found.key, work.verified.version_id, proof.value,
                )  # fmt: skip
        refuted = [work for work in works if not work.verified.verified]
        self._note([], forget=[work.place for work in refuted])
        self._put_off(refuted, "the upload could not be verified")
        self.counts[Count.VERIFIED] += len(intact)
        if self.ports.pointers is None:
            self._keep(intact)
        elif self._note([work.verified for work in intact]):
            self._wait_for_pointers(intact)
        else:
            self._put_off(intact, "the journal could not be written")

    # -- Waiting for pointers

    def _wait_for_pointers(self, works: Iterable[_Work]) -> None:
        now = self.ports.monotonic()
        for work in works:
            work.looks = first_look(now)
            self._waiting[work.place] = work

    def _next_look_s(self) -> float:
        now = self.ports.monotonic()
        return max(0.0, min((work.looks.next_at - now for work in self._waiting.values()), default=float("inf")))

    def _look(self) -> None:
        """Look for the pointers that are due, and let the files go that may."""
        now = self.ports.monotonic()
        due = [work for work in self._waiting.values() if work.looks.next_at <= now]
        if not due:
            return
        covered: list[_Work] = []
        why = "no pointer names its upload yet"
        assert self.ports.pointers is not None, "without pointers nothing waits for them"
        try:
            pointers = self.ports.pointers.get_many([work.found.key for work in due])
            covered = [work for work in due if self._is_covered(work, pointers.get(work.found.key))]
        except NeveError as error:
            why = str(error)
        done = {work.place for work in covered}
        impatient: list[_Work] = []
        for work in due:
            work.looks.put_off(now)
            if work.place not in done and now - work.looks.since >= PATIENCE_S:
                impatient.append(work)
        for work in (*covered, *impatient):
            del self._waiting[work.place]
        self._put_off(impatient, why)
        self.counts[Count.POINTED] += len(covered)
        keep = [work for work in covered if work.found.keep]
        self._keep(keep)
        going = [work for work in covered if not work.found.keep]
        for start in range(0, len(going), LET_GO_AT_ONCE):
            self._let_go(going[start : start + LET_GO_AT_ONCE])

    def _is_covered(self, work: _Work, pointer: Pointer | None) -> bool:
        return work.looks.covered(pointer, work.verified, lambda: self.ports.uploads.order(work.found.key))

    # -- Letting go

    def _keep(self, works: Sequence[_Work]) -> None:
        """These stay where they are."""
        same = self._unchanged(works)
        if same and self._note([], forget=[work.place for work in same]):
            self._end(same, Count.KEPT)
        elif same:
            self._put_off(same, "the journal could not be written")

    def _unchanged(self, works: Sequence[_Work]) -> list[_Work]:
        """Those that are as they were uploaded; what is to be done with the others is done."""
        fates: dict[Fate, list[_Work]] = defaultdict(list)
        same: list[_Work] = []
        for work in works:
            try:
                fate = unchanged(work.folder, work.verified)
            except OSError as error:
                self._put_off([work], f"it cannot be read: {error.strerror}")
                continue
            if fate is None:
                same.append(work)
            else:
                fates[fate].append(work)
        self._gone(fates[Fate.GONE])
        self._changed(fates[Fate.CHANGED], Fate.CHANGED.value)
        self._put_off(fates[Fate.BUSY], Fate.BUSY.value)
        return same

    def _gone(self, works: Sequence[_Work]) -> None:
        """Nothing stands there any more: what S3 has is what there is."""
        if works and self._note([], forget=[work.place for work in works]):
            self._end(works, Count.GONE)
        elif works:
            self._put_off(works, "the journal could not be written")

    def _changed(self, works: Sequence[_Work], why: str) -> None:
        """Other bytes stand there now: they are uploaded as well."""
        if works:
            self._note([], forget=[work.place for work in works])
            self.counts[Count.CHANGED] += len(works)
            self._put_off(works, why, after_s=1)

    def _let_go(self, works: Sequence[_Work]) -> None:
        """Move files to the attic: noted, renamed, hashed, kept by the disk, noted as done, announced no more."""
        now = self.ports.clock()
        moves = [_move(work, now) for work in self._unchanged(self._with_attics(works))]
        if not moves:
            return
        by_token = {move.token: self._works[move.folder, move.path] for move in moves}
        try:
            self.ports.journal.begin_moves(moves)
        except Transient as error:
            self._put_off(by_token.values(), str(error))
            return
        fates: dict[Fate, list[_Work]] = defaultdict(list)
        for outcome in self._end_moves(list(self._movers.map(self._move, moves))):
            work = by_token.pop(outcome.move.token)
            if outcome.fate is Fate.FAILED:
                self._put_off([work], outcome.why)
            else:
                fates[outcome.fate].append(work)
        self._put_off(by_token.values(), "the journal could not be written")
        self._end(fates[Fate.ATTIC], Count.ATTIC)
        self._end(fates[Fate.DELETED], Count.DELETED)
        self._gone(fates[Fate.GONE])
        for fate in (Fate.CHANGED, Fate.STRAYED):
            self.counts[Count.CHANGED] += len(fates[fate])
            self._put_off(fates[fate], fate.value, after_s=1)

    def _with_attics(self, works: Sequence[_Work]) -> list[_Work]:
        """Those whose attics are there, or were made again: folders are removed and made, and unmounted."""
        fit: list[_Work] = []
        for name, attic in self._attics.items():
            here = [work for work in works if work.folder.name == name]
            try:
                if here and not attic.is_there:
                    self._prepare(attic)
            except (AtticUnfit, Transient) as error:
                self._put_off(here, str(error))
            except OSError as error:
                self._put_off(here, f"no attic can be made: {error.strerror}")
            else:
                fit += here
        return fit

    def _prepare(self, attic: Attic) -> None:
        attic.prepare(moving_files=self.ports.journal.moving(attic.folder.name))

    def _move(self, move: Move) -> Outcome:
        """Make and end one move; in a thread of its own."""
        attic = self._attics[move.folder]
        moved = False
        try:
            attic.reserve(move)
            fate = attic.move(move)
            if fate:
                return Outcome(move=move, fate=fate)
            moved = True
            return attic.end(move)
        except OSError as error:
            why = f"it cannot be moved to the attic: {error.strerror}"
            return Outcome(move=move, fate=Fate.FAILED, why=why, unended=moved)

    def _end_moves(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Note how moves ended, once the disk has kept it; none if that cannot be noted: then they are ended again.

        Uploads of files that are where they were stay noted, and the file is looked at again.
        """
        ended: list[Outcome] = []
        for name, attic in self._attics.items():
            of_it = [each for each in outcomes if each.move.folder == name and not each.unended]
            try:
                attic.settle(of_it)
            except OSError as error:
                _LOG.warning("the disk may not keep moves folder=%r files=%d why=%r", name, len(of_it), error.strerror)
            else:
                ended += of_it
        kept = {outcome.move.token for outcome in ended}
        outcomes = [each for each in outcomes if each.unended or each.move.token in kept]
        try:
            self.ports.journal.end_moves(
                [outcome.move.token for outcome in ended],
                [outcome.remains for outcome in ended if outcome.remains],
                forget=[
                    (outcome.move.folder, outcome.move.path)
                    for outcome in ended
                    if outcome.fate not in (Fate.FAILED, Fate.GONE)
                ],
            )
        except Transient as error:
            _LOG.warning("cannot note moves files=%d why=%r", len(outcomes), str(error))
            return []
        for outcome in outcomes:
            if outcome.fate is Fate.STRAYED and outcome.remains:
                _LOG.error(
                    "changed file kept in the attic path=%r place=%r why=%r",
                    outcome.move.path, outcome.remains.place, outcome.why,
                )  # fmt: skip
        return outcomes

    def _recover(self) -> None:
        """End moves that a death, or a full disk, has left half done."""
        moves = [move for move in self.ports.journal.adopt_moves() if move.folder in self._attics]
        if not moves:
            return
        outcomes: list[Outcome] = []
        for move in moves:
            try:
                outcomes.append(self._attics[move.folder].end(move))
            except OSError as error:
                _LOG.warning("cannot end a move path=%r why=%r", move.path, error.strerror)
        # What is back in its place is announced before its move is forgotten: nobody else may know of it.
        back = [outcome for outcome in outcomes if outcome.fate in (Fate.CHANGED, Fate.STRAYED)]
        self.ports.announcements.put([found for outcome in back if (found := self._found(outcome.move))])
        ended = self._end_moves(outcomes)
        self.counts[Count.ATTIC] += sum(outcome.fate is Fate.ATTIC for outcome in ended)
        self.counts[Count.DELETED] += sum(outcome.fate is Fate.DELETED for outcome in ended)
        _LOG.info("moves ended after a death files=%d", len(ended))

    def _found(self, move: Move) -> Found | None:
        folder = self._attics[move.folder].folder
        try:
            descriptor = open_file(folder.path, move.path)
        except OSError:
            return None
        try:
            return Found(folder=move.folder, path=move.path, key=move.key, seen=seen(os.fstat(descriptor)))
        finally:
            os.close(descriptor)

    # -- Purging

    def _purge(self) -> None:
        """Delete what has been in the attics for long enough, once more asking for the pointers.

        That somebody answers proves the clock as well: AWS refuses requests signed minutes away from its own time. So
        an attic outlives a clock that jumps.
        """
        if self.ports.pointers is None:
            return
        now = self.ports.clock()
        for name, attic in self._attics.items():
            age = timedelta(days=attic.folder.keep_days)
            due = self.ports.journal.remains(name, moved_before=now - age, limit=PURGE_AT_ONCE)
            if not due:
                continue
            pointers = self.ports.pointers.get_many(sorted({each.key for each in due}))
            purged, held = _purged(attic, due, pointers)
            attic.clear(purged)
            self.ports.journal.purged(purged)
            self.ports.journal.hold_back(held, until=now - age + timedelta(days=1))
            self.counts[Count.PURGED] += len(purged)
            for each in held:
                _LOG.warning("not purged place=%r why=%r", each.place, each.why)
            if len(due) == PURGE_AT_ONCE:
                self._due["purge"] = 0.0  # there is more

    def _every(self, name: str, pause_s: float, do: Callable[[], None]) -> None:
        now = self.ports.monotonic()
        if now < self._due.get(name, now):
            return
        self._due[name] = now + pause_s
        try:
            do()
        except (NeveError, OSError) as error:
            _LOG.warning("%s failed, again in %g s why=%r", name, pause_s, str(error))


def _purged(
    attic: Attic, due: Sequence[Remains], pointers: Mapping[str, Pointer]
) -> tuple[list[Remains], list[Remains]]:
    """(those that were deleted, those that stay, with the reasons)."""
    purged: list[Remains] = []
    held: list[Remains] = []
    for each in due:
        if not isinstance(pointers.get(each.key), InContent):
            held.append(replace(each, why="no pointer says that it is in the content bucket"))
            continue
        try:
            if attic.purge(each):
                purged.append(each)
            else:
                held.append(replace(each, why="its bytes are not those that were uploaded"))
        except OSError as error:
            held.append(replace(each, why=f"it cannot be deleted: {error.strerror}"))
    return purged, held


def _refused(error: OSError) -> _Sent:
    """What it means that a file could not be opened or read."""
    if error.errno in _GONE:
        return _Sent(gone=Count.GONE)
    if isinstance(error, NotRegular) or error.errno in _NO_FILE:
        return _Sent(gone=Count.NO_FILE)
    return _Sent(why=f"it cannot be read: {error.strerror}")


def _move(work: _Work, now: datetime) -> Move:
    upload = work.verified
    return Move(
        token=token(), folder=upload.folder, path=upload.path, key=upload.key, size_bytes=upload.seen.size_bytes,
        sha256=upload.sha256, version_id=upload.version_id, since=now,
    )  # fmt: skip
