"""Functions whose arguments are the fields of a dataclass of options."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from evalkit.pipeline.options import current_name, options_of

Keywords = ParamSpec("Keywords")
Call = TypeVar("Call")
Result = TypeVar("Result")


def called_with(
    call: Callable[Keywords, Call],
) -> Callable[[Callable[[Call], Result]], Callable[Keywords, Result]]:
    """Gives a function of one dataclass the fields as arguments; type checkers and `help` show them."""
    kind = cast(type[Any], call)

    def decorate(function: Callable[[Call], Result]) -> Callable[Keywords, Result]:
        signature = inspect.signature(call)

        @functools.wraps(function)
        def with_keywords(*args: Keywords.args, **kwargs: Keywords.kwargs) -> Result:
            named: dict[str, Any] = {current_name(name, kind): value for name, value in kwargs.items()}
            bound = signature.bind(*args, **named)
            return function(call(*bound.args, **bound.kwargs))

        returned = inspect.signature(function).return_annotation
        with_keywords.__signature__ = signature.replace(return_annotation=returned)  # type: ignore[attr-defined]
        meaning = "\n".join(f"    {name}: {entry.option.help}" for name, entry in options_of(kind).items())
        with_keywords.__doc__ = f"{inspect.getdoc(function)}\n\nOptions:\n{meaning}\n"
        return with_keywords

    return decorate
