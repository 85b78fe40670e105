"""How schemathesis calls: never beyond this machine, and as so many callers that no limit hides what is behind it."""

import itertools
import os

import schemathesis

TOKENS = itertools.cycle(os.environ["PULSE_TOKENS"].split(","))
CALLERS = itertools.count()
# What is there, so that every other call about an instance finds one.
KEYS = itertools.cycle(os.environ["PULSE_KEYS"].split(","))
# Whatever is generated for these fields, nothing is ever sent elsewhere.
NOBODY = {"url": "https://127.0.0.1:9", "host": "127.0.0.1", "members": ["https://127.0.0.1:9"]}


@schemathesis.hook
def before_call(context, case, kwargs):
    number = next(CALLERS)
    case.headers["X-Forwarded-For"] = f"203.{number // 62500}.{number // 250 % 250}.{number % 250}"
    if number % 2 and "key" in (case.path_parameters or {}):
        case.path_parameters["key"] = next(KEYS)
    instance = case.body.get("instance") if isinstance(case.body, dict) else None
    if isinstance(instance, dict):
        for field, nobody in NOBODY.items():
            if instance.get(field):
                instance[field] = nobody
    if isinstance(case.body, dict):
        # To JSON Schema 3.0 is a whole number; to most readers of JSON, ours too, it is none.
        for field, value in case.body.items():
            if isinstance(value, float) and value.is_integer():
                case.body[field] = int(value)


@schemathesis.auth(refresh_interval=None)
class Token:
    def get(self, case, context):
        return next(TOKENS)

    def set(self, case, token, context):
        case.headers["Authorization"] = f"Bearer {token}"
