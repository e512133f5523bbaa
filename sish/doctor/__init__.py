"""``sish doctor``: find out what works in this installation, and what to do about the rest.

Each check runs in a child process, so that a library that crashes, hangs or does not load ends one check and
not the others. Therefore this package imports only the standard library before a check begins.

>>> from sish.doctor import examine
>>> examine(only=["python"]).is_sound
True
"""

from sish.doctor.examination import Examination as Examination
from sish.doctor.examination import examine as examine
from sish.doctor.findings import Check as Check
