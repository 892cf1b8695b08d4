"""Recovery: accuracy back after a cut, in closed form and without training."""

from ._probe import output_probe as output_probe
from ._recover import Recovery as Recovery
from ._recover import recover as recover
from ._report import RecoveryReport as RecoveryReport
from ._report import Stage as Stage
