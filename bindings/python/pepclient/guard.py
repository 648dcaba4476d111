"""A function that runs only if the question about its call is permitted.

Promises: the question is computed from the call's arguments before the function runs; what cannot be computed, and
every fault, is `Denied`; the function's own signature stays as it was.
Never: calls the function of a denied call; gives out a result that an obligation was not applied to, where `apply`
was asked for. Between the check and the effect lies time: what must be atomic belongs into one system.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn, ParamSpec, TypeGuard, TypeVar, cast

from pepcore.core.verdict import Verdict, deny
from pepcore.errors import BadQuestion, Denied

from .questions import ActionLike, Check, Context, EntityLike, MinRevision, NotAfter, shown

P = ParamSpec("P")
R = TypeVar("R")


def enforced(verdict: Verdict) -> Verdict:
    """The verdict if it permits. Raises Denied."""
    if not verdict.permit:
        raise Denied(verdict)
    return verdict


class Asker:
    """The question of a guarded function: constants, and callables over parameters of the function, by name."""

    def __init__(self, function: Callable[..., Any], places: dict[str, Any]) -> None:
        self._signature = inspect.signature(function)
        self._fixed = {name: place for name, place in places.items() if not callable(place)}
        self._computed = {name: (place, self._wanted(name, place)) for name, place in places.items() if callable(place)}

    def _wanted(self, name: str, place: Callable[..., Any]) -> list[str]:
        """Which arguments of the call a callable wants. Raises TypeError when the function is decorated."""
        wanted = []
        for parameter in inspect.signature(place).parameters.values():
            if parameter.name in self._signature.parameters:
                if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                    what = f"guard: `{name}` takes `{parameter.name}` by position only, and arguments come by name"
                    raise TypeError(f"{what}: take it as a plain parameter")
                wanted.append(parameter.name)
            elif parameter.default is parameter.empty and parameter.kind not in (
                parameter.VAR_POSITIONAL,
                parameter.VAR_KEYWORD,
            ):
                raise TypeError(f"guard: `{name}` wants `{parameter.name}`, which is no parameter of the function")
        return wanted

    def question(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of `check` for a call. Raises TypeError for a call that the function does not take."""
        if not self._computed:
            return self._fixed
        call = self._signature.bind(*args, **kwargs)
        call.apply_defaults()
        out = dict(self._fixed)
        for name, (place, wanted) in self._computed.items():
            try:
                out[name] = place(**{key: call.arguments[key] for key in wanted})
            except Exception as error:
                fault = BadQuestion(name, f"cannot be computed from the call: {shown(error, 200)}")
                raise Denied(deny(fault)) from error
        return out


def guarded(
    function: Callable[P, R],
    places: dict[str, Any],
    check: Callable[..., Verdict] | None,
    acheck: Callable[..., Awaitable[Verdict]] | None,
    apply: bool,
) -> Callable[P, R]:
    """Wrap a function. `check` serves plain functions, `acheck` coroutine functions."""
    asker = Asker(function, places)
    if _is_async(function):
        if acheck is None:
            _refuse(function, "is async: use `aconnect`")
        return cast("Callable[P, R]", _guarded_async(function, asker, acheck, apply))
    if check is None:
        _refuse(function, "is not async: use `connect`")

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        verdict = enforced(check(**asker.question(args, kwargs)))
        result = function(*args, **kwargs)
        return verdict.apply(result) if apply else result

    return call


def _is_async(function: Callable[..., Any]) -> TypeGuard[Callable[..., Awaitable[Any]]]:
    """A coroutine function, or an object whose call is one: the check must then be awaited, and its result too."""
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, type):  # what is called is its constructor, not the `__call__` of its instances
        return False
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _guarded_async(
    function: Callable[..., Awaitable[Any]], asker: Asker, acheck: Callable[..., Awaitable[Verdict]], apply: bool
) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        verdict = enforced(await acheck(**asker.question(args, kwargs)))
        result = await function(*args, **kwargs)
        return verdict.apply(result) if apply else result

    return call


def _refuse(function: Callable[..., Any], why: str) -> NoReturn:
    raise TypeError(f"guard: `{getattr(function, '__qualname__', function)}` {why}")


class Guarding:
    """`guard` of whoever can check."""

    def _checks(self) -> tuple[Callable[..., Verdict] | None, Callable[..., Awaitable[Verdict]]]:
        """What checks for a function, None: nothing does, and what for an async one."""
        raise NotImplementedError

    def guard(
        self,
        subject: EntityLike | Callable[..., EntityLike],
        action: ActionLike | Callable[..., ActionLike],
        resource: EntityLike | Callable[..., EntityLike],
        context: Context | Callable[..., Context | None] | None = None,
        *,
        on_behalf_of: Sequence[EntityLike] | Callable[..., Sequence[EntityLike]] = (),
        apply: bool = False,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorate a function so that it runs only if permitted, else raises Denied.

        A callable gets the arguments of the call that it names: `resource=lambda doc_id: f"Document::{doc_id}"`.
        `apply` discharges the obligations on what the function returns. An async function does not hold its loop up;
        the client for asyncio takes no other.
        """
        places = {
            "subject": subject, "action": action, "resource": resource, "context": context,
            "on_behalf_of": on_behalf_of,
        }  # fmt: skip
        return lambda function: guarded(function, places, *self._checks(), apply)


class Guards(Guarding):
    """`enforce` and `guard` of whoever has a `check` that does not have to be awaited."""

    check: Check
    """Whether `subject` may do `action` on `resource`. The answer is `bool(verdict)`; it never raises."""

    def enforce(
        self,
        subject: EntityLike,
        action: ActionLike,
        resource: EntityLike,
        context: Context | None = None,
        *,
        on_behalf_of: Sequence[EntityLike] = (),
        not_after: NotAfter | None = None,
        min_revision: MinRevision | None = None,
    ) -> Verdict:
        """As `check`, but a deny raises Denied."""
        return enforced(
            self.check(
                subject, action, resource, context,
                on_behalf_of=on_behalf_of, not_after=not_after, min_revision=min_revision,
            )
        )  # fmt: skip

    def _checks(self) -> tuple[Callable[..., Verdict], Callable[..., Awaitable[Verdict]]]:
        return self.check, self._check_beside

    async def _check_beside(self, **question: Any) -> Verdict:
        """As `check`, for an async function. Whose `check` waits for another process waits elsewhere."""
        return self.check(**question)
