"""Reads configurations as Patroni does: one JSON line in, one JSON line out.

{"yaml": TEXT}                     -> {"text": str(value)} or {"error": MESSAGE}: what PyYAML makes of a text
{"local": TEXT, "dynamic": TEXT}   -> {"calls": [ARGV, ...], "raised": MESSAGE}: the programs that Patroni starts to create a
                                      replica, each of which fails; "dynamic" may be null

Patroni's own code reads the configuration, the list of methods and their options, and runs the loop. Only the programs are scripted.
"""

import json
import logging
import sys
import tempfile

import yaml

from patroni.config import Config
from patroni.dcs import Member, RemoteMember
from patroni.postgresql import Postgresql
from patroni.postgresql.bootstrap import Bootstrap

CONNECTION = {'host': '10.0.0.1', 'port': 5432, 'dbname': 'postgres'}


class Configuration:
    """The part of Patroni's ConfigHandler that Bootstrap uses."""

    pg_version = 150000

    def __init__(self, values):
        self.values = values
        self.replication = {}

    def get(self, key, default=None):
        return self.values.get(key, default)

    def write_pgpass(self, record):
        return {}

    def format_dsn(self, record):
        return 'CONNSTRING'


class Server:
    """The part of Patroni's Postgresql that Bootstrap uses to start the programs."""

    create_replica_methods = Postgresql.create_replica_methods
    replica_method_options = Postgresql.replica_method_options
    replica_method_can_work_without_replication_connection = \
        Postgresql.replica_method_can_work_without_replication_connection

    def __init__(self, values):
        self.config = Configuration(values)
        self.scope = values.get('scope')
        self.data_dir = values.get('data_dir')
        self.calls = []
        self.cancellable = self
        self.is_cancelled = False

    def call(self, cmd, env=None):
        self.calls.append(cmd)
        return 1

    def pgcommand(self, name):
        return name

    def data_directory_empty(self):
        return True

    def set_state(self, state):
        pass

    def schedule_sanity_checks_after_pause(self):
        pass


def calls(local, dynamic):
    with tempfile.NamedTemporaryFile('w', suffix='.yml') as file:
        file.write(local)
        file.flush()
        config = Config(file.name, validator=None)
    if dynamic is None:
        dynamic = config.local_configuration.get('bootstrap', {}).get('dcs') or {}
    else:
        dynamic = yaml.safe_load(dynamic)
    config.set_dynamic_configuration(dynamic)
    standby = dynamic.get('standby_cluster') or {}
    data = {'conn_kwargs': dict(CONNECTION)}
    if any(standby.get(key) for key in ('host', 'port', 'restore_command')):
        allowed = {key: value for key, value in standby.items() if key in RemoteMember.ALLOWED_KEYS}
        member = RemoteMember('remote', {**data, **allowed})
    else:
        member = Member(0, 'source', 28, data)
    server = Server(config['postgresql'])
    raised = None
    try:
        Bootstrap(server).create_replica(member)
    except Exception as error:
        raised = repr(error)
    return {'calls': server.calls, 'raised': raised}


def answer(case):
    if 'yaml' in case:
        try:
            return {'text': str(yaml.safe_load(case['yaml']))}
        except Exception as error:
            return {'error': str(error)}
    return calls(case['local'], case['dynamic'])


def main():
    logging.disable(logging.CRITICAL)
    import patroni.postgresql.bootstrap
    patroni.postgresql.bootstrap.time.sleep = lambda seconds: None
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == '__main__':
    main()
