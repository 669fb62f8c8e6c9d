"""Was every sample trained on exactly once per pass? Answered from a run's files alone.

Nothing of the training code is imported, so that a mistake there cannot hide here: the newest whole checkpoint says
which attempts did which batches and what it has seen (:mod:`.claim`; for runs of before, :mod:`.old_runs` guesses), the
ledger is counted along that lineage (:mod:`.count`), and both are held against the data set (:mod:`.compare`, with
what is :mod:`.due`) for the :mod:`.verdict`.
"""

from theworld.audit.data_set import DataSet, GenerationIds, JsonIds
from theworld.audit.report import PassReport
from theworld.audit.verdict import Audit, audit

__all__ = ["Audit", "DataSet", "GenerationIds", "JsonIds", "PassReport", "audit"]
