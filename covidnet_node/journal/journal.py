"""The journal: every door of it in one class, each chapter in a file of its own.

reception.py    what came: cases admitted and refused, rejections, counters
work.py         the worker's steps: claim, report, retry, park; leases and their recovery
owed.py         what destinations are owed, and what became of it
committing.py   what destinations are asked to commit to, and what they answer
operate.py      a person's steps: requeue, discard; and retention
observe.py      questions that change nothing
"""

from covidnet_node.journal.committing import Promises
from covidnet_node.journal.observe import Observation
from covidnet_node.journal.operate import Operation
from covidnet_node.journal.owed import Debts
from covidnet_node.journal.reception import Reception
from covidnet_node.journal.work import Work


class Journal(Reception, Work, Debts, Promises, Operation, Observation):
    """The only durable state of the node. Open it with `Journal.open`.

    Every door that writes is one durable transaction and raises RetryLater when that cannot be
    had; `now` is always given, aware.
    """
