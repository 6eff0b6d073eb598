"""Malformed values for every field, those of everything that can be chosen by name included."""

import random
import re
import time
import typing
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.all_fields import Field, all_fields
from tests.chaos.case import Case, Options

#: No number, no choice, no list of numbers.
_GARBLED = ("many", "2,x", "maybe", "1e", "[1", "none of these", "-", "=", "0x10", "1 2", "1_0")
#: What no number of a configuration is: 32 bits do not hold them.
_NO_NUMBERS = ("nan", "inf", "-inf", "1e39", "-1e39", str(10**40), "9" * 5000)
_NO_WHOLE_NUMBERS = (str(2**31), str(-(2**31) - 1), "1.5")
_NO_PATHS = ("gs://bucket/x", "", "  ", "$NOT_SET_ANYWHERE/x", "s3://b", "~nobody_at_all/x")
#: Fields of numbers of either sign.
_SIGNED = {"algorithm.fedrcl.threshold"}
#: What a choice needs besides.
_NEEDS = {"privacy.name": {"privacy.noise_multiplier": 1.0}}


def cases(options: Options, scratch: Path) -> Iterator[Case]:
    """Yield malformed values of all fields, of which `options.configurations` are drawn."""
    del scratch
    drawn = list(malformed())
    random.Random(options.seed).shuffle(drawn)
    for cls, field, text in drawn[: options.configurations]:
        chosen = ", ".join(map(str, field.chosen.values()))
        name = f"{cls.__name__} {field.name}={text!r:.40}" + (f" of {chosen}" if chosen else "")
        yield Case(name, partial(refuse, cls, field, text))


def malformed() -> Iterator[tuple[type, Field, str]]:
    """Yield every field of every configuration class with every text that it cannot take."""
    from semanticfl_jax import ExperimentConfig
    from semanticfl_jax.pretraining.config import PretrainConfig

    for cls in (ExperimentConfig, PretrainConfig):
        for field in all_fields(cls):
            for text in wrong_values(field):
                yield cls, field, text


def wrong_values(field: Field) -> list[str]:
    """Return texts that a field cannot take; none where it takes any."""
    from semanticfl_jax.config.values import PathOrName, PathText, describe

    hint, args = field.hint, typing.get_args(field.hint)
    if hint in (PathText, PathOrName) or PathText in args or PathOrName in args:
        return list(_NO_PATHS)
    words = describe(hint)
    if "a text" in words or "a list of texts" in words:
        return []
    if not re.search("number", words):
        return [*_GARBLED, "nan"]
    found = [*_GARBLED, *_NO_NUMBERS, *([] if field.name in _SIGNED else ["-1"])]
    return found + ([*_NO_WHOLE_NUMBERS] if "whole number" in words else [])


def refuse(cls: type, field: Field, text: str) -> str | None:
    """Give a field a text as the command line does; return what was wrong with the answer."""
    from semanticfl_jax.config.overrides import combine, parse
    from semanticfl_jax.errors import ConfigError

    began = time.perf_counter()
    try:
        value: Any = parse(cls, field.name, text)
        overrides = {**field.chosen, field.name: value}
        for name in field.chosen:
            overrides = {**_NEEDS.get(name, {}), **overrides}
        combine(cls, {}, overrides)
    except ConfigError as error:
        seconds = time.perf_counter() - began
        if field.name not in str(error):
            return f"not named: {error}"
        return None if seconds < 2 else f"{seconds:.1f} s: {error}"
    except Exception as error:
        return f"{error!r:.300}"
    return "it was taken"
