"""The coordinator and its colluders as an adversary that does anything, and what it can work out of all answers, by linear algebra.

Sites are real (`light`), but a mask is not added: it is noted. So every answer is an equation

    answer = unknown(site, use, meaning) + Σ sign · symbol(seed)

over masks that two honest sites share; what is shared with a colluder, or made with a key of the adversary, is known and left out.
A combination of answers says something only where all symbols vanish. Elimination gives a basis of these combinations, and in each
of them the unknowns of one meaning have to weigh the same at all honest sites: then it is made of sums over all of them. The
meaning is all that a site's numbers follow from but its cases: it is noted where they are made, and knows nothing of T.
"""

import itertools
import random
from collections import defaultdict
from dataclasses import dataclass, field, replace

from csasn.federated.messages import Answer, Collect, Kind, Ready, Train
from csasn.federated.secagg import sealing
from csasn.federated.secagg.keys import SignedKey, sign_key
from csasn.platform.canonical import canonical

PRIME = (1 << 61) - 1
COUNT_BYTES = 8


# ---- linear algebra


@dataclass(frozen=True)
class Equation:
    """One array that a site sent: `unknown` is (use, meaning, site)."""

    unknown: tuple
    masks: dict


def combinations_without_masks(equations):
    """A basis of the combinations whose masks vanish, as weights of the unknowns modulo a prime."""
    pivots, free = [], []
    for equation in equations:
        masks = {symbol: sign % PRIME for symbol, sign in equation.masks.items() if sign % PRIME}
        weights = {equation.unknown: 1}
        for symbol, pivot_masks, pivot_weights in pivots:
            if factor := masks.get(symbol, 0):
                _subtract(masks, pivot_masks, factor)
                _subtract(weights, pivot_weights, factor)
        if not masks:
            free += [weights] if weights else []
            continue
        symbol, value = next(iter(masks.items()))
        inverse = pow(value, -1, PRIME)
        pivots.append((symbol, *({key: v * inverse % PRIME for key, v in row.items()} for row in (masks, weights))))
    return free


def _subtract(row, other, factor):
    for key, value in other.items():
        if rest := (row.get(key, 0) - factor * value) % PRIME:
            row[key] = rest
        else:
            row.pop(key, None)


def tells_sites_apart(weights, honest):
    """Whether a combination weighs honest sites differently in anything."""
    by_meaning = defaultdict(dict)
    for (use, meaning, site), weight in weights.items():
        by_meaning[use, meaning][site] = weight
    return any(set(of) != set(honest) or len(set(of.values())) > 1 for of in by_meaning.values())


# ---- what is noted in place of masking


class Notes:
    """Stands for `add_masks`: what each call hides, and under which (seed, sign)."""

    def __init__(self):
        self.calls = []

    def __call__(self, values, masks, num_threads=1):
        self.calls.append((values.tobytes(), list(masks)))

    def patch(self, monkeypatch):
        monkeypatch.setattr(sealing, "add_masks", self)
        return self

    def take(self):
        taken, self.calls = self.calls, []
        return taken


# ---- the adversary


@dataclass
class Play:
    """One sequence of what an adversary does; afterwards `equations` is all that it got."""

    sites: object
    num_colluders: int
    random: random.Random
    notes: Notes
    equations: list = field(default_factory=list)
    keys: dict = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))  # T -> site -> keys that it signed
    readies: list = field(default_factory=list)  # (site, question, T)
    trained: list = field(default_factory=list)  # transcripts of train questions
    copies: dict = field(default_factory=lambda: defaultdict(list))
    number: int = 0
    own: set = field(default_factory=set)  # public keys whose private half the adversary has

    def __post_init__(self):
        names = list(self.sites.names)
        self.random.shuffle(names)
        self.colluders, self.honest = names[: self.num_colluders], names[self.num_colluders :]

    def go(self, length):
        actions = [self.round] * 5 + [self.split] * 3 + [self.again] * 4 + [self.ask_one] * 2 + [self.collect_one] * 3
        actions += [self.copy] * 2 + [self.roll_back] * 2 + [self.kill]
        for _ in range(length):
            self.random.choice(actions)()
        return self

    def violations(self):
        """Combinations without masks, and those of them that tell honest sites apart."""
        free = combinations_without_masks(self.equations)
        return free, [weights for weights in free if tells_sites_apart(weights, self.honest)]

    # -- questions

    def question(self):
        draw, sites = self.random, self.sites
        kind = draw.choice(["train"] * 5 + ["measure", "hello", "validate", "finish"])
        model, omega = draw.choice(["one", "two"]), draw.choice([1.0, 2.0])
        accepted = self.accepted()
        facts = {"number": draw.randint(1, 3)}
        if kind != "hello":
            facts |= {"model": model, "accepted": accepted, "omega": omega}
        if kind == "train":
            number = self.number = max(1, min(20, self.number + draw.choice([-1, 0, 0, 1, 1, 2])))
            facts |= {"ranges": draw.choice([1.0, 2.0]), "number": number, "current_round": draw.randint(1, min(number, 3))}
        return getattr(sites, kind)(**facts)

    def accepted(self):
        """Mostly what was trained last or before that, as of a coordinator that goes on."""
        return self.random.choice([None, *self.trained[-3:], *self.trained[-2:], *self.trained[-1:]])

    def varied(self, question):
        """Another question of the same kind and number, or the same with another label."""
        header, draw = question.header, self.random
        changes = [replace(question, header=replace(header, attempt=header.attempt + 1))]
        changes += [replace(question, header=replace(header, number=header.number + 1))]
        if question.kind is not Kind.HELLO:
            changes += [replace(question, accepted=self.accepted())] * 3
            changes += [replace(question, model=replace(question.model, state_hash="0" * 64))]
        if isinstance(question, Train):
            changes += [replace(question, ranges=question.ranges * 2)]
        return draw.choice(changes)

    def ask(self, site, question):
        reply = self.sites.say(site, question)
        if isinstance(reply, Ready):
            self.keys[reply.transcript][site].append(reply.key)
            self.readies.append((site, question, reply.transcript))
            if isinstance(question, Train) and reply.transcript not in self.trained:
                self.trained.append(reply.transcript)
        return reply

    # -- collects

    def key_for(self, peer, digest):
        """A key in the place of `peer`: mostly one that it signed for this question, else whatever there is."""
        draw = self.random
        known = self.keys[digest][peer]
        if peer in self.colluders:
            return self.colluding_key(peer, digest)
        if draw.random() < 0.85 and known:
            return draw.choice(known[-2:]) if draw.random() < 0.5 else known[-1]
        others = [key for by_site in list(self.keys.values()) for key in by_site[peer]]
        made = self.made_key(draw.choice(self.colluders), digest) if self.colluders else SignedKey(draw.randbytes(32), "ab" * 64)
        forged = SignedKey(made.public, draw.choice(others).signature if others else made.signature)
        return draw.choice([*others[-3:], made, forged])

    def colluding_key(self, peer, digest):
        draw = self.random
        known = self.keys[digest][peer]
        if known and draw.random() < 0.7:
            return known[-1]
        if draw.random() < 0.1 and (honest := [key for site in self.honest for key in self.keys[digest][site]]):
            copied = draw.choice(honest).public  # of an honest site, under the colluder's name
            return SignedKey(copied, self.sites.signer(peer)("secagg-key", _statement(digest, copied)))
        known.append(self.made_key(peer, digest))
        return known[-1]

    def made_key(self, peer, digest):
        made = sign_key(self.random.randbytes(32), digest, self.sites.signer(peer))
        self.own.add(made.public)
        return made

    def collect(self, site, question, digest, keys):
        header = question.header
        if self.random.random() < 0.05:
            header = replace(header, number=self.random.randint(1, 6))
        kind = question.kind if self.random.random() < 0.97 else self.random.choice(list(Kind))
        self.notes.take()
        reply = self.sites.say(site, Collect(header, kind, digest, tuple(keys.values())))
        if isinstance(reply, Answer):
            uses = ("counts", "update")
            for use, (hidden, masks) in zip(uses, self.notes.take(), strict=False):
                of_cases = hidden[:-COUNT_BYTES] if use == "counts" else hidden  # without the mark of work that failed
                unknown = use, self.sites.meaning[site, of_cases], site
                self.equations.append(Equation(unknown, self._symbols(site, keys, masks)))

    def _symbols(self, site, keys, masks):
        peers = self.sites.roster.others(site)
        found = defaultdict(int)
        for peer, mask in zip(peers, masks, strict=True):
            if peer in self.honest and keys[peer].public not in self.own:
                found[mask.seed] += mask.sign
        return dict(found)

    def keys_under(self, digest, *, honestly=False):
        if honestly:
            found = {site: self.keys[digest][site] for site in self.honest}
            if not all(found.values()):
                return None
            return {site: found[site][-1] if site in found else self.colluding_key(site, digest) for site in self.sites.names}
        return {site: self.key_for(site, digest) for site in self.sites.names}

    # -- actions

    def round(self):
        """As an honest coordinator, from all or from some."""
        question = self.question()
        self._run(question, dict.fromkeys(self.honest, question))

    def split(self):
        """Some honest sites are asked something else."""
        question = self.question()
        asked = {site: self.varied(question) if self.random.random() < 0.4 else question for site in self.honest}
        self._run(question, asked)

    def again(self):
        """An earlier question once more, to all or some; then its answers again, under whatever keys there are now."""
        if not self.readies:
            return
        _, question, _ = self.random.choice(self.readies[-12:])
        some = [site for site in self.honest if self.random.random() < 0.6]
        self._run(question, dict.fromkeys(some, question))

    def _run(self, question, asked):
        for site in self.random.sample(list(asked), len(asked)):
            self.ask(site, asked[site])
        last = {site: digest for site, _, digest in self.readies}
        merged = {site: key for by_site in self.keys.values() for site, keys in by_site.items() for key in keys[-1:]}
        keys = dict.fromkeys(set(last.values()), merged) if self.random.random() < 0.25 and len(merged) == self.sites.num else {}
        keys = {digest: {site: merged[site] for site in self.sites.names} for digest in keys}
        honestly = self.random.random() < 0.8
        for site in self.random.sample(self.honest, len(self.honest)):
            if site in last and self.random.random() < 0.95:
                found = keys.get(last[site]) or self.keys_under(last[site], honestly=honestly)
                if found:
                    self.collect(site, asked.get(site, question), last[site], keys.setdefault(last[site], found))

    def ask_one(self):
        self.ask(self.random.choice(self.honest), self.question())

    def collect_one(self):
        if self.readies:
            _, question, digest = self.random.choice(self.readies[-12:])
            self.collect(self.random.choice(self.honest), question, digest, self.keys_under(digest))

    def copy(self):
        site = self.random.choice(self.honest)
        self.copies[site].append(self.sites.copy_of(site))

    def roll_back(self):
        site = self.random.choice(self.honest)
        if self.copies[site]:
            self.sites.bring_back(site, self.random.choice(self.copies[site]))

    def kill(self):
        self.sites.kill(self.random.choice(self.honest))


def _statement(digest, public):
    return canonical([digest, public])


@dataclass
class Tally:
    """What many sequences came to."""

    sequences: int = 0
    answers: int = 0
    combinations: int = 0
    telling: int = 0  # sequences in which something was learnt at all
    first: object = None  # the first sequence that told sites apart

    def __add__(self, other):
        return Tally(
            *(getattr(self, name) + getattr(other, name) for name in ("sequences", "answers", "combinations", "telling")),
            self.first or other.first,
        )


def try_sequences(make_sites, seeds, notes, length=(2, 8)):
    """Plays one sequence for each seed, of n sites with c colluders in turn; ends at the first that tells honest sites apart."""
    groups = [(num, colluders) for num in (3, 4, 5, 6) for colluders in range(num - 1)]
    tally = Tally()
    for seed, (num, colluders) in zip(seeds, itertools.cycle(groups)):
        draw = random.Random(seed)
        play = Play(make_sites(num), colluders, draw, notes).go(draw.randint(*length))
        free, wrong = play.violations()
        tally += Tally(1, len(play.equations), len(free), bool(free), (seed, num, colluders, wrong[0]) if wrong else None)
        if wrong:
            break
    return tally
