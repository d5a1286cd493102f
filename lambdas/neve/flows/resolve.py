"""Resolve: look a file up, in the order of neve.domain.route, and answer where it is.

Nothing is changed, except that a file which only the archive has may be recalled. A look-up that fails raises: that
says nothing about the file, and must never become a 404.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from neve.domain.route import Answer, Asked, Kind, Known, Look, Rules, by_key, next_step, stored_at, to_content
from neve.errors import Transient
from neve.flows.recall import Recaller
from neve.ports import Pointers, Signer, Standing


def _at_random(bases: Sequence[str], _: str) -> str:
    return random.choice(bases)  # noqa: S311  # it spreads the load, and is no secret


CHOICES: Mapping[str, Callable[[Sequence[str], str], str]] = {"by-key": by_key, "random": _at_random}
"""How one of the CDN's names is chosen, by the setting cdn_choice."""


@dataclass(frozen=True, kw_only=True)
class Resolver:
    """Resolve's rules over its ports. `recaller` is None where the archive is not asked.

    The signers make the locations of answers that have something to be signed.
    """

    pointers: Pointers
    uploads: Standing
    content: Standing
    upload_signer: Signer
    content_signer: Signer
    recaller: Recaller | None
    rules: Rules
    clock: Callable[[], datetime]

    def resolve(self, asked: Asked, *, until: datetime) -> Answer:
        """The answer, with its location. No look-up is begun after `until`: then, and where one fails, this raises."""
        known = Known()
        while isinstance(step := next_step(asked, known, self.rules), Look):
            if self.clock() > until:
                raise Transient(f"no time is left to look at: {step}")
            if step is Look.ARCHIVE:
                return self._located(self._recall(asked, known), asked)
            known = self._looked(asked, known, step)
        return self._located(step, asked)

    def _looked(self, asked: Asked, known: Known, look: Look) -> Known:
        known = replace(known, looked=known.looked | {look})
        if look is Look.UPLOAD:
            return replace(known, in_uploads=self.uploads.holds(asked.key))
        if look is Look.CONTENT:
            stored = stored_at(asked.key, known.pointer, self.rules.layout)
            return replace(known, in_content=self.content.holds(stored))
        return replace(known, pointer=self.pointers.get(asked.key))

    def _recall(self, asked: Asked, known: Known) -> Answer:
        stored = stored_at(asked.key, known.pointer, self.rules.layout)
        assert self.recaller is not None, "the rules say that files are restored"
        answer = self.recaller.recall(stored, known.pointer)
        return answer or to_content(asked.key, stored, self.rules, query=asked.query)

    def _located(self, answer: Answer, asked: Asked) -> Answer:
        if not answer.to_sign:
            return answer
        signer = self.upload_signer if answer.kind is Kind.UPLOAD else self.content_signer
        location = signer.signed(answer.to_sign, head=asked.head, lifetime_s=answer.lifetime_s)
        return replace(answer, location=location)
