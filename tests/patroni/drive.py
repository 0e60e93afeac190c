"""Runs Patroni's own Bootstrap.create_replica over cases: one JSON line in, one JSON line out.

Patroni's own code runs the loop and basebackup, removes the data directory, reads the options of the methods and
writes the passfile. Only two things are scripted: what a started program does and how it ends (`cancellable.call`),
and the sleep between the tries of basebackup.

usage: drive.py DATA_DIR BIN_DIR   (DATA_DIR is removed and recreated for every case)
"""

import json
import logging
import os
import shutil
import sys
import time

from unittest.mock import patch

from patroni.dcs import Leader, Member, RemoteMember
from patroni.exceptions import PostgresException
from patroni.postgresql import Postgresql
from patroni.postgresql.cancellable import CancellableSubprocess
from patroni.postgresql.mpp import get_mpp

SOURCE = {'host': '10.0.0.1', 'port': 5432, 'dbname': 'postgres'}


class Name(str):
    """A method's name that knows its place in the list, so that a repeated name can have another script."""

    position = 0


def name(position, text):
    named = Name(text)
    named.position = position
    return named


class ScriptedPrograms(CancellableSubprocess):
    """Follows the case's script instead of starting a program."""

    def __init__(self, postgresql):
        super().__init__()
        self._postgresql = postgresql

    def call(self, cmd, env=None):
        if self.is_cancelled:
            raise PostgresException('cancelled')
        return self._postgresql.play(cmd, env)


class RecordedPostgresql(Postgresql):
    """Patroni's Postgresql, which also records what it is asked to do."""

    configured = ()  # what the last case put into the configuration

    def begin(self, case):
        self.case = case
        self.events = []
        self.position = None
        self.tries = {}

    def set_state(self, value):
        super().set_state(value)
        if hasattr(self, 'events'):
            self.events.append({'state': str(value)})

    def replica_method_options(self, method):
        self.position = getattr(method, 'position', 0)
        return super().replica_method_options(method)

    def remove_data_directory(self):
        had = self.files()
        super().remove_data_directory()
        self.events.append({'emptied': had})

    def files(self):
        """Returns the files in the data directory that a case can have put there."""
        found = []
        for top, _, names in os.walk(self.data_dir):
            for each in names:
                path = os.path.relpath(os.path.join(top, each), self.data_dir)
                if path.startswith('base/') or path == 'global/pg_control':
                    found.append(path)
        return sorted(found)

    def play(self, cmd, env):
        place = str(self.position)
        attempt = self.tries.get(place, 0)
        self.tries[place] = attempt + 1
        script = self.case['scripts'][place][attempt]
        passfile = env.get('PGPASSFILE')
        self.events.append({'call': {
            'position': self.position,
            'try': attempt,
            'argv': [arg.replace(self.data_dir, '<datadir>') for arg in cmd],
            'at_start': self.files(),
            'passfile': open(passfile).read() if passfile else None,
        }})
        for path in script['leaves']:
            put(os.path.join(self.data_dir, path), path)
        if script['cancel']:
            self.cancellable.cancel()
        if script['ends'] == 'exception':
            raise OSError('scripted')
        return script['ends']

    def sleep(self, seconds):
        self.events.append({'slept': seconds})
        if self.case['scripts'][str(self.position)][0]['cancel_in_pause']:
            self.cancellable.cancel()


def put(path, text):
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    with open(path, 'w') as file:
        file.write(text)


def make_old_data(kind, data_dir):
    shutil.rmtree(data_dir, ignore_errors=True)
    if kind == 'missing':
        return
    os.makedirs(data_dir, 0o700)
    if kind == 'cluster':
        put(os.path.join(data_dir, 'PG_VERSION'), '15\n')
        for path in ('base/old', 'global/pg_control'):
            put(os.path.join(data_dir, path), path)


def clone_member(case):
    data = {'conn_kwargs': dict(SOURCE)} if case['source'] else {}
    if case['remote'] is not None:
        methods = [name(*each) for each in case['remote']]
        return RemoteMember('remote', {**data, 'create_replica_methods': methods})
    if not case['source']:
        return None
    member = Member(0, 'source', 28, data)
    return Leader(-1, 28, member) if case['leader'] else member


def run(postgresql, case):
    make_old_data(case['old'], postgresql.data_dir)
    postgresql.cancellable.reset_is_cancelled()
    config = postgresql.config._config
    for key in postgresql.configured:
        config.pop(key, None)
    postgresql.configured = ['create_replica_methods', *case['sections']]
    config.update(case['sections'])
    config['create_replica_methods'] = [name(*each) for each in case['local']]
    postgresql.begin(case)
    if case['cancel_before']:
        postgresql.cancellable.cancel()
    returned, raised = None, None
    try:
        returned = postgresql.bootstrap.create_replica(clone_member(case), case['from_leader'])
    except Exception as error:  # any exception that leaves Patroni's loop is a part of the answer
        raised = repr(error)
    return {'events': postgresql.events, 'returned': returned, 'raised': raised, 'left': postgresql.files()}


def main():
    data_dir, bin_dir = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    os.environ.pop('PGPASSFILE', None)
    shutil.rmtree(data_dir, ignore_errors=True)
    config = {
        'name': 'oracle', 'scope': 'batman', 'data_dir': data_dir, 'bin_dir': bin_dir, 'retry_timeout': 10,
        'pgpass': data_dir + '.pgpass', 'listen': '127.0.0.1:5432', 'connect_address': '127.0.0.1:5432',
        'authentication': {'replication': {'username': 'replicator', 'password': 'a:b\\c'}},
        'parameters': {'unix_socket_directories': os.path.dirname(data_dir)},
    }
    # Postgresql reads the major version of the data directory when it is created.
    make_old_data('cluster', data_dir)
    with patch.object(Postgresql, 'get_postgres_role_from_data_directory', lambda _: 'replica'):
        postgresql = RecordedPostgresql(config, get_mpp(config))
    postgresql.cancellable = ScriptedPrograms(postgresql)
    with patch.object(time, 'sleep', postgresql.sleep):
        for line in sys.stdin:
            print(json.dumps(run(postgresql, json.loads(line))), flush=True)


if __name__ == '__main__':
    main()
