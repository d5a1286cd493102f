"""Rebuilds the index: lost manifests first if that is wanted, then the counter, then the rows; and shows how far."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer

from neve.domain.prices import US_EAST_1, Bill, Charge, Use
from neve.domain.thaw import Need, Tier, offered, promise, thaw_uses
from neve.flows.rebuild import LeftOut, Rebuilder, Rebuilt, largest_serial, patiently
from neve.flows.recover_manifests import ManifestRecoverer, Recovered, State
from neve_cli import clock, output
from neve_cli.failures import PROBLEM
from neve_cli.text import counted, iso, moment, safe, size, span, usd

if TYPE_CHECKING:
    from neve_cli.stack import Stack

INTERRUPTED = 130
INDEXERS = 5
"""Archives that are indexed at once: each reads and writes its rows in up to eight requests, of forty connections."""
RECOVERERS = 16
"""Archives that are thawed and read at once. S3 takes 1,000 requests for thaws a second of an account."""
ROUND_S = 900
"""Between two looks at what thaws."""
SHOWN = 20
AGAIN = "run the same command again: what was done stays, and what thaws is read then"
LINE_EVERY = timedelta(seconds=60)

Show = Callable[[int, str], None]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the command was asked for. `last` is None for all that there are."""

    first: int
    last: int | None
    from_archives: bool
    tier: Tier
    days: int
    yes: bool
    wait: bool
    dry_run: bool
    report: Path | None
    as_json: bool


@dataclass
class _Refusals:
    """What is left out: the first are kept, the others counted; all go to `file`, if there is one."""

    file: TextIO | None
    count: int = 0
    first: list[LeftOut] = field(default_factory=list)

    def add(self, left_out: Sequence[LeftOut]) -> None:
        self.count += len(left_out)
        self.first += left_out[: SHOWN - len(self.first)]
        if self.file:
            self.file.writelines(f"{json.dumps(asdict(each))}\n" for each in left_out)

    def forget(self) -> None:
        """Begin anew: what was left out in an earlier round is looked at again."""
        self.count = 0
        self.first.clear()
        if self.file:
            self.file.seek(0)
            self.file.truncate()

    def tell(self) -> None:
        for each in self.first:
            typer.echo(f"neve: left out: {each.object_key}: {safe(each.reason)}", err=True)
        if self.count > len(self.first):
            more = "" if self.file else "; --report FILE writes them all"
            typer.echo(f"neve: left out: {self.count - len(self.first):,} more{more}", err=True)


@dataclass(frozen=True, kw_only=True)
class _Missing:
    """The archives without manifests by what can be done about them; `asleep` has number and bytes by storage class."""

    counts: Counter[State]
    asleep: Mapping[str, tuple[int, int]]

    @property
    def asleep_bytes(self) -> int:
        return sum(size_bytes for _, size_bytes in self.asleep.values())

    def bill(self, need: Need) -> Bill:
        """What it takes to thaw and read all that can be read, and to write their manifests."""
        uses = [
            use
            for storage_class, (archives, size_bytes) in self.asleep.items()
            for use in thaw_uses(storage_class, need.tier, days=need.days, archives=archives, size_bytes=size_bytes)
        ]
        archives = self.counts.total() - self.counts[State.HOPELESS]
        uses += [
            Use(purpose="reading archives", charge=Charge.S3_GET, quantity=2 * archives, rule="two reads of each head"),
            Use(purpose="writing manifests", charge=Charge.S3_PUT, quantity=archives),
        ]
        return Bill(prices=US_EAST_1, uses=tuple(uses))


def run(deployed: Stack, order: Order) -> None:
    """Do what was asked for, and tell what came of it. Raises typer.Exit with the exit status unless all is well."""
    with _reported(order) as refusals:
        largest = patiently(lambda: largest_serial(deployed.listing), clock.pause)
        fields: dict[str, Any] = {"dry_run": order.dry_run, "from": order.first, "largest_serial": largest}
        rebuilder = Rebuilder(
            store=deployed.store,
            listing=deployed.listing,
            files=deployed.files,
            archives=deployed.archives,
            bundles=deployed.bundles,
            threads=INDEXERS,
            pause=clock.pause,
            dry_run=order.dry_run,
            missing_told=order.from_archives and not order.dry_run,
        )
        drawn = rebuilder.mend_counter(largest)  # first of all: thaws may take days
        if order.from_archives:
            fields |= _recover(deployed, order, min(order.last or largest, largest), refusals)
        total = _rebuild(rebuilder, order, min(order.last or largest, largest), refusals)
        if order.as_json:
            totals = {name: value for name, value in asdict(total).items() if name != "left_out"}
            told = {"left_out": refusals.count, "first_left_out": [asdict(each) for each in refusals.first]}
            price = {"usd": round(_bill(total).usd, 6)} if order.dry_run else {}
            output.document(fields | {"last_serial": drawn} | totals | price | told)
        else:
            _tell(total, largest, drawn, order)
    if refusals.count:
        raise typer.Exit(PROBLEM)


@contextmanager
def _reported(order: Order) -> Iterator[_Refusals]:
    """What is left out, which is told at the end, however that comes."""
    try:
        file = order.report.open("w", encoding="ascii") if order.report else None
    except OSError as error:
        typer.echo(f"neve: the report cannot be written: {error}", err=True)
        raise typer.Exit(PROBLEM) from error
    refusals = _Refusals(file)
    try:
        yield refusals
    finally:
        if not order.as_json:
            refusals.tell()
        if file:
            file.close()


# -- Manifests -------------------------------------------------------------------------------------------------------


def _recover(deployed: Stack, order: Order, largest: int, refusals: _Refusals) -> dict[str, Any]:
    """Write lost manifests again, as far as their archives can be read; what to tell of it as JSON."""
    recoverer = ManifestRecoverer(
        store=deployed.store,
        listing=deployed.listing,
        glacier=deployed.glacier,
        reader=deployed.reader,
        threads=RECOVERERS,
        pause=clock.pause,
        clock=clock.now,
    )
    need = Need(tier=order.tier, days=order.days)
    with going_on(lambda: AGAIN):
        with _shown("looking", order, largest) as show:
            missing = _look(recoverer, order, show)
        _require_offered(missing, need)
        fields = {"missing": _missing_fields(missing, need)}
        if not order.as_json:
            _show_missing(missing, need)
        if order.dry_run:
            return fields
        asleep, price = counted(missing.counts[State.ASLEEP], "archive"), usd(missing.bill(need).usd)
        if missing.asleep and not order.yes:
            typer.confirm(f"Thaw {asleep} for {price}?", abort=True, err=True)
        recovered = 0
        while True:
            refusals.forget()
            with _shown("recovering", order, largest) as show:
                done = _recover_once(recoverer, order, need, refusals, show)
            recovered += done.recovered
            if not order.as_json:
                typer.echo(_told_of_manifests(done))
            if not (order.wait and done.thawing):
                break
            clock.pause(ROUND_S)
    return fields | {"recovered": recovered, "thawing": done.thawing, "ready_at": iso(done.ready_at)}


def _require_offered(missing: _Missing, need: Need) -> None:
    for storage_class in missing.asleep:
        if not offered(storage_class, need.tier):
            typer.echo(f"neve: {storage_class} has no tier {need.tier}: take --tier standard or bulk.", err=True)
            raise typer.Exit(PROBLEM)


def _look(recoverer: ManifestRecoverer, order: Order, show: Show) -> _Missing:
    counts: Counter[State] = Counter()
    asleep: dict[str, tuple[int, int]] = {}
    for through, lost in recoverer.look(order.first, order.last):
        for each in lost:
            counts[each.state] += 1
            if each.state is State.ASLEEP:
                archives, size_bytes = asleep.get(each.archive.storage_class, (0, 0))
                asleep[each.archive.storage_class] = archives + 1, size_bytes + each.archive.size_bytes
        show(through, f"{counts.total():,} without manifests")
    return _Missing(counts=counts, asleep=asleep)


def _recover_once(recoverer: ManifestRecoverer, order: Order, need: Need, refusals: _Refusals, show: Show) -> Recovered:
    """One look at every archive that has no manifest."""
    done = Recovered(through=order.first)
    for each in recoverer.recover(need, order.first, order.last):
        refusals.add(each.left_out)
        done = Recovered(
            through=each.through,
            recovered=done.recovered + each.recovered,
            thawing=done.thawing + each.thawing,
            asked=done.asked + each.asked,
            ready_at=max((at for at in (done.ready_at, each.ready_at) if at), default=None),
        )
        show(each.through, f"{done.recovered:,} recovered, {done.thawing:,} thawing")
    return done


def _show_missing(missing: _Missing, need: Need) -> None:
    counts = missing.counts
    typer.echo(
        f"{counted(counts.total(), 'archive')} without a manifest: {counts[State.READABLE]:,} can be read now, "
        f"{counts[State.THAWING]:,} thaw already, {counts[State.ASLEEP]:,} have to be thawed "
        f"({size(missing.asleep_bytes)}), {counts[State.HOPELESS]:,} do not tell what they hold"
    )
    bill = missing.bill(need)
    if missing.asleep:
        slowest = max(promise(storage_class, need.tier) for storage_class in missing.asleep)
        typer.echo(f"  tier     {need.tier}, thawed within {span(slowest)}; copies stay {counted(need.days, 'day')}")
    typer.echo(f"  price    {usd(bill.usd)} by the list prices of {bill.prices.region}, {bill.prices.checked}")
    for purpose, cost in _by_purpose(bill).items():
        typer.echo(f"             {purpose:<19} {usd(cost):>12}")


def _missing_fields(missing: _Missing, need: Need) -> dict[str, Any]:
    bill = missing.bill(need)
    return {
        **{state.value: missing.counts[state] for state in State},
        "asleep_bytes": missing.asleep_bytes,
        "tier": need.tier.value,
        "days": need.days,
        "usd": round(bill.usd, 6),
        "usd_by_part": {purpose: round(cost, 6) for purpose, cost in _by_purpose(bill).items()},
    }


def _by_purpose(bill: Bill) -> dict[str, float]:
    sums: dict[str, float] = {}
    for use in bill.uses:
        sums[use.purpose] = sums.get(use.purpose, 0.0) + bill.usd_of(use)
    return sums


def _told_of_manifests(done: Recovered) -> str:
    told = f"{counted(done.recovered, 'manifest')} written again"
    if not done.thawing:
        return told
    by = f"by {moment(done.ready_at)} UTC at the latest"
    return f"{told}; {counted(done.thawing, 'archive')} thawing ({done.asked:,} asked for now), {by}"


# -- Rows ------------------------------------------------------------------------------------------------------------


def _rebuild(rebuilder: Rebuilder, order: Order, largest: int, refusals: _Refusals) -> Rebuilt:
    """Window after window; the sum of what became of them."""
    total = Rebuilt(through=order.first - 1)
    with (
        going_on(lambda: f"go on with `neve rebuild-index --from {total.through + 1}{_until(order)}`"),
        _shown("rebuilding", order, largest) as show,
    ):
        for each in rebuilder.rebuild(order.first, order.last):
            refusals.add(each.left_out)
            total = Rebuilt(
                through=each.through,
                archives=total.archives + each.archives,
                files=total.files + each.files,
                duplicates=total.duplicates + each.duplicates,
                rows=total.rows + each.rows,
            )
            left_out = f", {refusals.count:,} left out" if refusals.count else ""
            show(each.through, f"{total.archives:,} archives, {total.files:,} files{left_out}")
    return total


def _until(order: Order) -> str:
    return f" --to {order.last}" if order.last else ""


def _bill(total: Rebuilt) -> Bill:
    """What it takes if none of the rows stands: DynamoDB charges for a row that is not there like for one that is."""
    return Bill(
        prices=US_EAST_1,
        uses=(
            Use(purpose="manifests, proofs", charge=Charge.S3_GET, quantity=2 * total.archives),
            Use(purpose="looking for rows", charge=Charge.DYNAMODB_READ_UNIT, quantity=total.files),
            Use(purpose="writing rows", charge=Charge.DYNAMODB_WRITE_UNIT, quantity=total.files + total.archives),
        ),
    )


def _tell(total: Rebuilt, largest: int, drawn: int, order: Order) -> None:
    archives, files = counted(total.archives, "archive"), counted(total.files, "file")
    if order.dry_run:
        bill = _bill(total)
        typer.echo(f"{archives} with {files} can be taken into the index")
        typer.echo(f"  price    {usd(bill.usd)} at most, by the list prices of {bill.prices.region}")
        typer.echo(f"  counter  would be {drawn:,}; the largest serial is {largest:,}")
        return
    duplicates = f", {total.duplicates:,} of them counted to others" if total.duplicates else ""
    typer.echo(f"{archives} with {files}{duplicates}: {total.rows:,} rows of files written or changed")
    typer.echo(f"  counter  {drawn:,} is the last serial drawn; the largest in use is {largest:,}")


# -- How far it is ---------------------------------------------------------------------------------------------------


@contextmanager
def going_on(how: Callable[[], str]) -> Iterator[None]:
    """Whatever ends the work, say how to go on."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        typer.echo(f"neve: interrupted; {how()}", err=True)
        raise typer.Exit(INTERRUPTED) from interrupt
    except (typer.Exit, typer.Abort):
        raise
    except Exception:
        typer.echo(f"neve: broken off; {how()}", err=True)
        raise


@contextmanager
def _shown(what: str, order: Order, largest: int) -> Iterator[Show]:
    """Something that shows how far the work is: a bar on a terminal, elsewhere a line a minute."""
    if order.as_json:
        yield lambda _through, _note: None
    elif sys.stdout.isatty():
        with _bar(what, order.first, largest) as show:
            yield show
    else:
        yield _Lines(what, largest, clock.now())


@dataclass
class _Lines:
    what: str
    largest: int
    last: datetime

    def __call__(self, through: int, note: str) -> None:
        now = clock.now()
        if now - self.last >= LINE_EVERY:
            typer.echo(f"{moment(now)}  {self.what}: serial {through:,} of {self.largest:,}; {note}")
            self.last = now


@contextmanager
def _bar(what: str, first: int, largest: int) -> Iterator[Show]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns) as progress:
        task = progress.add_task(what, total=max(0, largest - first + 1), note="")
        yield lambda through, note: progress.update(task, completed=through - first + 1, note=note)
