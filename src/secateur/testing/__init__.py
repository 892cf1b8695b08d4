"""Judge operator rules, your own and the built-in ones, against the operators themselves."""

from ._calls import Call as Call
from ._calls import calls_of as calls_of
from ._judge import check_rule as check_rule
from ._judge import judge_call as judge_call
from ._judge import judge_rule as judge_rule
from ._verdict import Kind as Kind
from ._verdict import Verdict as Verdict
