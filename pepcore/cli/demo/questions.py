"""What the processes of the demo's company ask, and what it expects as the answer.

Four points, each with its own obligations: `gateway`, `ci`, `agents`, `database`. The questions repeat with the
skew of real traffic: a few are asked all the time, some never again. Everything follows from the seed.
Never: asks, or decides; `expect` is written by hand from the policies, None where a rate decides.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from ...core.obligation import Headers, Rows

POLICIES = Path(__file__).parent / "company"
ENTITIES = POLICIES / "entities.json"


class Case(NamedTuple):
    """One question of the company, and what should come of it."""

    title: str
    subject: str
    action: str
    resource: str
    context: dict[str, Any]
    chain: tuple[str, ...] = ()
    payload: Any = None
    expect: bool | None = True


class Point(NamedTuple):
    handles: tuple[str, ...]
    cases: tuple[Callable[[Random], Case], ...]


def _skewed(rng: Random, most: int) -> int:
    """A number from 1 to `most`; small ones are much more frequent."""
    return min(most, int(rng.paretovariate(0.9)))


_REQUEST = Headers([("Authorization", "Bearer 9f2c"), ("Accept", "json")])


def _charge(rng: Random) -> Case:
    euros = 10 * _skewed(rng, 50)
    context = {"mtls": {"verified": True, "peer": "spiffe://larkfield/checkout"}, "amount": euros * 100}
    title = f"checkout charges {euros} EUR over mutual TLS"
    return Case(title, "Service::checkout", "charge", "Api::payments", context, payload=_REQUEST)


def _charge_too_much(rng: Random) -> Case:
    euros = 1000 * (1 + _skewed(rng, 9))
    context = {"mtls": {"verified": True, "peer": "spiffe://larkfield/checkout"}, "amount": euros * 100}
    title = f"checkout charges {euros} EUR"
    return Case(title, "Service::checkout", "charge", "Api::payments", context, expect=False)


def _refund(rng: Random) -> Case:
    context = {"mtls": {"verified": True}, "order": _skewed(rng, 500)}
    title = f"invoices refunds order {context['order']}"
    return Case(title, "Service::invoices", "refund", "Api::payments", context, payload=_REQUEST)


def _plaintext(rng: Random) -> Case:
    title = "invoices asks the balance without mutual TLS"
    return Case(title, "Service::invoices", "balance", "Api::payments", {}, expect=False)


def _newsletter(rng: Random) -> Case:
    context = {"mtls": {"verified": True, "peer": "spiffe://larkfield/newsletter"}}
    return Case("newsletter refunds", "Service::newsletter", "refund", "Api::payments", context, expect=False)


def _staging(rng: Random) -> Case:
    branch = f"fix-{_skewed(rng, 200)}"
    title = f"shop-deploy deploys {branch} to staging"
    return Case(title, "Job::shop-deploy", "deploy", "Environment::shop-staging", {"branch": branch})


def _production(rng: Random) -> Case:
    title = "shop-deploy deploys main to production"
    return Case(title, "Job::shop-deploy", "deploy", "Environment::shop-production", {"branch": "main"})


def _production_branch(rng: Random) -> Case:
    branch = f"fix-{_skewed(rng, 200)}"
    title = f"shop-deploy deploys {branch} to production"
    where = "Environment::shop-production"
    return Case(title, "Job::shop-deploy", "deploy", where, {"branch": branch}, expect=False)


def _other_app(rng: Random) -> Case:
    title = "blog-deploy deploys the shop"
    return Case(title, "Job::blog-deploy", "deploy", "Environment::shop-staging", {"branch": "main"}, expect=False)


def _customer(rng: Random) -> Case:
    number = _skewed(rng, 2000)
    user = rng.choice(("maria", "ines"))
    record = {"name": "A. Moreau", "card": "4970110000004021", "notes": "late twice"}
    title = f"helpdesk reads customer {number} for {user}"
    return Case(title, "Agent::helpdesk", "read", f"Customer::{number}", {}, (f"User::{user}",), record)


def _customer_for_nobody(rng: Random) -> Case:
    number = _skewed(rng, 2000)
    title = f"helpdesk reads customer {number} for nobody"
    return Case(title, "Agent::helpdesk", "read", f"Customer::{number}", {}, expect=False)


def _customer_for_another(rng: Random) -> Case:
    title = "helpdesk reads customer 7 for tom"
    return Case(title, "Agent::helpdesk", "read", "Customer::7", {}, ("User::tom",), expect=False)


def _calendar(rng: Random) -> Case:
    title = "bookkeeper calls the calendar for tom"
    return Case(title, "Agent::bookkeeper", "call", "Tool::calendar", {}, ("User::tom",))


def _shell(rng: Random) -> Case:
    command = ("rm", "-rf", f"/srv/{_skewed(rng, 20)}")
    title = f"helpdesk calls the shell: {' '.join(command)}"
    context = {"argv": list(command)}
    return Case(title, "Agent::helpdesk", "call", "Tool::shell", context, ("User::ines",), expect=False)


def _search(rng: Random) -> Case:
    return Case(
        "bookkeeper calls the search, 5 times a second", "Agent::bookkeeper", "call", "Tool::search", {}, expect=None
    )


_CUSTOMERS = Rows(
    ["id", "email"],
    [(1, "ada@example.org"), (2, "bo@example.org"), (3, "cy@example.org"), (4, "di@example.org")],
)


def _select(rng: Random) -> Case:
    table = rng.choice(("customers", "orders"))
    context = {"client": f"10.0.0.{_skewed(rng, 200)}"}
    title = f"analyst selects from sales.{table}"
    return Case(title, "DbRole::analyst", "select", f"Table::sales.{table}", context, payload=_CUSTOMERS)


def _report(rng: Random) -> Case:
    title = "report selects from sales.orders"
    return Case(title, "DbRole::report", "select", "Table::sales.orders", {}, payload=_CUSTOMERS)


def _delete(rng: Random) -> Case:
    context = {"client": f"10.0.0.{_skewed(rng, 200)}"}
    title = "analyst deletes from sales.orders"
    return Case(title, "DbRole::analyst", "delete", "Table::sales.orders", context, expect=False)


def _salaries(rng: Random) -> Case:
    title = "analyst selects from hr.salaries"
    return Case(title, "DbRole::analyst", "select", "Table::hr.salaries", {}, expect=False)


POINTS = {
    "gateway": Point(
        ("remove-header", "set-header"),
        (_charge, _charge, _charge, _refund, _charge_too_much, _plaintext, _newsletter),
    ),
    "ci": Point(
        (),
        (_staging, _staging, _production, _production, _production_branch, _other_app),
    ),
    "agents": Point(
        ("mask", "redact"),
        (_customer, _customer, _customer, _calendar, _customer_for_nobody, _customer_for_another, _shell, _search),
    ),
    "database": Point(
        ("drop", "limit", "mask"),
        (_select, _select, _select, _report, _delete, _salaries),
    ),
}


def written(payload: Any) -> str:
    """A payload in one short line, for people."""
    if isinstance(payload, Headers):
        return ", ".join(f"{name}: {value}" for name, value in payload.items)
    if isinstance(payload, Rows):
        rows = [f"({', '.join(_cell(cell) for cell in row)})" for row in payload.rows]
        return f"{len(rows)} rows {' '.join(rows[:2])} .."
    return ", ".join(f"{name}: {'null' if value is None else value}" for name, value in payload.items())


def _cell(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 16 else f"{text[:10]}.."
