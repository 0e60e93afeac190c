"""A component that requests an address: with Python's own client over wasi:sockets, or with niquests over wasi:http. It always fails, with
a message that begins with `answered` and the status and text that it got, or with `refused` and the error that it got; or with an
exception that it does not catch."""

# Modules are part of the component only if they are imported when it is built. `socket` would import this codec at the first connection.
import encodings.idna
import urllib.request

import niquests
from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import understudy_method_types as types

# The timeout of a request in seconds.
PATIENCE = 30


def by_urllib(address):
    with urllib.request.urlopen(address, timeout=PATIENCE) as response:
        return response.status, response.read().decode()


def by_niquests(address):
    with niquests.Session() as session:
        # Without this, niquests looks for ~/.netrc, which is denied.
        session.trust_env = False
        response = session.get(address, timeout=PATIENCE)
        # `text` would import codecs to guess the encoding.
        return response.status_code, response.content.decode()


def by_raising(address):
    raise Unexpected(f"no manifest at {address}")


class Unexpected(BaseException):
    """An exception that `create_replica` does not catch."""


WAYS = {"urllib": by_urllib, "niquests": by_niquests, "raise": by_raising}


class ReplicaMethod(exports.ReplicaMethod):
    def describe(self):
        return types.Description(
            name="caller-python",
            version="0.1.0",
            summary="requests an address",
            options=[
                types.OptionSpec("by", types.Kind_Choice(list(WAYS)), True, None, "the client"),
                types.OptionSpec("address", types.Kind_Text(), True, None, "what it requests"),
            ],
            needs=[],
        )

    def plan(self, r):
        return types.RestorePlan("caller", None, None, None, None, None, None, None, [], False)

    def create_replica(self, r, p):
        options = {option.name: option.value.value for option in r.options}
        try:
            status, text = WAYS[options["by"]](options["address"])
        # niquests also raises errors of urllib3, which are not subclasses of OSError.
        except Exception as error:
            raise Err(types.Failure_Failed(f"refused: {error}"))
        raise Err(types.Failure_Failed(f"answered: {status} {text}"))
