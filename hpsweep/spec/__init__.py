"""What is trained: the frozen, self-checking records Trial, Sweep and Target, and how their fields are declared."""

from hpsweep.spec.checks import check_field_names as check_field_names
from hpsweep.spec.checks import typed as typed
from hpsweep.spec.fields import Field as Field
from hpsweep.spec.fields import Interval as Interval
from hpsweep.spec.fields import fields_of as fields_of
from hpsweep.spec.fields import interval as interval
from hpsweep.spec.sweep import FINE_SEEDS as FINE_SEEDS
from hpsweep.spec.sweep import QUARTER as QUARTER
from hpsweep.spec.sweep import Refine as Refine
from hpsweep.spec.sweep import Search as Search
from hpsweep.spec.sweep import Sweep as Sweep
from hpsweep.spec.sweep import octaves_within as octaves_within
from hpsweep.spec.sweep import on_quarter_octaves as on_quarter_octaves
from hpsweep.spec.target import Target as Target
from hpsweep.spec.trial import BEFORE as BEFORE
from hpsweep.spec.trial import RESOLVED as RESOLVED
from hpsweep.spec.trial import TUNED as TUNED
from hpsweep.spec.trial import Precision as Precision
from hpsweep.spec.trial import Trial as Trial
from hpsweep.spec.trial import WeightDecayRule as WeightDecayRule
from hpsweep.spec.trial import as_json as as_json
from hpsweep.spec.trial import hash_of as hash_of
from hpsweep.spec.trial import shape_of as shape_of
from hpsweep.spec.trial import trial_from_row as trial_from_row
