"""Random Cedar conditions over one fixed vocabulary, mostly well typed.

Promises: with `guarded`, an optional attribute or tag is read only behind its `has`, so that most conditions
pass the schema's validator; without, guards are often missing and conditions raise. The same Random gives the
same text.
"""

from __future__ import annotations

from random import Random

# type -> attribute -> type of the value; entity types are those that are keys here
ATTRS: dict[str, dict[str, str]] = {
    "Role": {},
    "Group": {"lead": "User"},
    "User": {"lvl": "Long", "dept": "String", "manager": "User", "home": "Folder"},
    "Svc": {"owner": "User", "env": "String"},
    "Folder": {"owner": "User"},
    "Doc": {"owner": "User", "meta": "Meta", "dept": "String", "seen": "datetime"},
    "Config": {"frozen": "Bool", "boss": "User"},
    "Job": {"by": "User", "lvl": "Long"},
    "Order": {"owner": "User", "lvl": "Long", "dept": "String"},
}
TAGGED = {"User": "User", "Doc": "User"}  # type -> type of its tags
PARENTS = {
    "Role": ("Role",), "Group": ("Group",), "User": ("Role", "Group"), "Svc": ("Role",),
    "Folder": ("Folder",), "Doc": ("Folder",), "Config": (), "Job": ("Role",), "Order": ("Folder",),
}  # fmt: skip
OPEN = ("Job", "Order")
COUNT = {"Role": 5, "Group": 5, "User": 8, "Svc": 4, "Folder": 6, "Doc": 8, "Config": 2, "Job": 3, "Order": 3}
TAGS = ("buddy", "team")
PRINCIPALS = ("User", "Svc", "Job")
RESOURCES = ("Doc", "Folder", "Order")
ACTIONS = tuple(f"a{n}" for n in range(6))
GROUPS = tuple(f"g{n}" for n in range(4))
DAY = "2026-11-25"
TIMES = (*(f'datetime("{DAY}T{h:02d}:00:00Z")' for h in (6, 12, 18)), f'datetime("{DAY}")')

SCHEMA = """
entity Role in [Role]; entity Group in [Group] {lead?: User}; entity Folder in [Folder] {owner?: User};
entity User in [Role, Group] {lvl?: Long, dept?: String, manager?: User, home?: Folder} tags User;
entity Svc in [Role] {owner?: User, env?: String};
entity Doc in [Folder] {owner?: User, meta?: {lvl?: Long, aud?: Set<Group>, by?: User}, dept?: String,
  seen?: datetime} tags User;
entity Config {frozen?: Bool, boss?: User};
entity Job in [Role] {by?: User, lvl?: Long};
entity Order in [Folder] {owner?: User, lvl?: Long, dept?: String};
type Ctx = {lvl?: Long, mfa?: Bool, by?: User, at?: ipaddr, note?: {text?: String}, on_behalf_of?: Set<User>,
  action?: {force?: Bool}};
action g0, g1; action g2 in [g0]; action g3 in [g2, g1];
""" + "\n".join(
    f"action a{n} in [{group}] appliesTo "
    f"{{principal: [User, Svc, Job], resource: [Doc, Folder, Order], context: {ctx}}};"
    for n, (group, ctx) in enumerate(
        [("g3", "Ctx"), ("g0", "Ctx"), ("g1", "Ctx"), ("g2", "Ctx"),
         ("g0, g1", "{lvl?: Long, now: datetime}"), ("g1", "{lvl?: Long, by?: User, now?: datetime}")]
    )
)  # fmt: skip


def literal(r: Random, type_: str) -> str:
    return f'{type_}::"{type_[0].lower()}{r.randrange(COUNT[type_])}"'


class Conditions:
    """Makes conditions for one policy whose principal and resource are of these types."""

    def __init__(self, r: Random, principal: str, resource: str, guarded: bool) -> None:
        self.r, self.principal, self.resource, self.guarded = r, principal, resource, guarded
        self.guards: list[str] = []

    def guard(self, text: str) -> None:
        if self.guarded or self.r.random() < 0.6:
            self.guards.append(text)

    def entity(self, steps: int) -> tuple[str, str]:
        """An expression with an entity as its value, and that entity's type."""
        r, k = self.r, self.r.random()
        if k < 0.3:
            e, t = "principal", self.principal
        elif k < 0.6:
            e, t = "resource", self.resource
        elif k < 0.8:
            t = r.choice(("User", "Config", "Group", "Doc", "Svc", "Folder"))
            e = literal(r, t)
        else:
            self.guard("context has by")
            e, t = "context.by", "User"
        for _ in range(steps):
            ways = [(f".{a}", v, a) for a, v in ATTRS[t].items() if v in ATTRS]
            if t == "Doc":
                ways.append((".meta.by", "User", "meta.by"))
            if t in TAGGED:
                ways.append(("", TAGGED[t], ""))
            if not ways:
                break
            step, t, name = r.choice(ways)
            if name:
                self.guard(f"{e} has {name}")
                e += step
            else:
                tag = r.choice(TAGS)
                self.guard(f'{e}.hasTag("{tag}")')
                e = f'{e}.getTag("{tag}")'
            if r.random() < 0.08:
                e = f"(if context has lvl then {e} else {e})"
            elif r.random() < 0.08:
                e = f"{{x: {e}}}.x"
        return e, t

    def atom(self) -> str:
        r, k = self.r, self.r.random()
        if k < 0.2:
            return self.of_context()
        if k < 0.3:
            return self.of_time()
        e, t = self.entity(r.choice((0, 0, 1, 1, 2, 2, 3)))
        kind = r.random()
        plain = [a for a, v in ATTRS[t].items() if v not in ATTRS]
        if kind < 0.4 and plain:
            return self.plain(e, r.choice(plain), t)
        if kind < 0.65 and PARENTS[t]:
            group = r.choice(PARENTS[t])
            if r.random() < 0.3:
                return f"{e} is {t} in {literal(r, group)}"
            if r.random() < 0.3:
                return f"{e} in [{literal(r, group)}, {literal(r, group)}]"
            return f"{e} in {literal(r, group)}"
        if kind < 0.72 and self.resource == "Doc" and t in ("User", "Group"):
            self.guard("resource has meta.aud")
            return f"{e} in resource.meta.aud"
        if kind < 0.8 and t in TAGGED:
            return f'{e}.hasTag("{r.choice(TAGS)}")'
        if kind < 0.88 and ATTRS[t]:
            return f"{e} has {r.choice(list(ATTRS[t]))}"
        return f"{e} == {literal(r, t)}"

    def plain(self, e: str, attr: str, t: str) -> str:
        r, v = self.r, ATTRS[t][attr]
        self.guard(f"{e} has {attr}")
        if v == "Long":
            return f"{e}.{attr} {r.choice(('<', '>', '==', '<='))} {r.randrange(8)}"
        if v == "String":
            return r.choice((f'{e}.{attr} == "{r.choice(("eng", "hr"))}"', f'{e}.{attr} like "e*"'))
        if v == "Bool":
            return f"{e}.{attr}"
        if v == "datetime":
            return f"{e}.{attr} < {r.choice(TIMES)}"
        self.guard(f"{e} has {attr}.lvl")
        return f"{e}.{attr}.lvl > {r.randrange(8)}"

    def of_context(self) -> str:
        r = self.r
        attr, body = r.choice(
            [
                ("lvl", f"context.lvl > {r.randrange(8)}"),
                ("lvl", "context.lvl + 9223372036854775800 > 3"),
                ("mfa", "context.mfa"),
                ("on_behalf_of", f"context.on_behalf_of.contains({literal(r, 'User')})"),
                ("on_behalf_of", "principal in context.on_behalf_of"),
                ("action", "context.action has force && context.action.force"),
                ("at", "context.at.isLoopback()"),
                ("note", 'context.note has text && context.note.text == "x"'),
            ]
        )
        if not self.guarded and r.random() < 0.1:
            return r.choice(("context == {lvl: 3}", 'ip("x").isIpv4()', 'decimal("1.0") == decimal("y")'))
        self.guard(f"context has {attr}")
        return f"({body})"

    def of_time(self) -> str:
        r = self.r
        op = r.choice(("<", "<=", ">", ">=", "==", "!="))
        self.guard("context has now")
        return r.choice(
            [
                f"context.now {op} {r.choice(TIMES)}",
                f"{r.choice(TIMES)} {op} context.now",
                f'context.now {op} {r.choice(TIMES)}.offset(duration("{r.choice(("-2h", "30m", "1d"))}"))',
                f'context.now.toTime() {op} duration("{r.choice(("6h", "12h", "18h30m"))}")',
                f'context.now.durationSince({r.choice(TIMES)}) > duration("1h")',
            ]
        )

    def condition(self) -> str:
        r = self.r
        parts = []
        for _ in range(r.choice((1, 1, 1, 2, 3))):
            self.guards = []
            atom = self.atom()
            if r.random() < 0.15:
                atom = f"!({atom})"
            parts.append(" && ".join([*dict.fromkeys(self.guards), atom]))
        return r.choice((" && ", " || ", " || ")).join(f"({p})" for p in parts)
