"""What MONAI Label loads from an app's folder: the class of the app. Background tasks start here as well, in a process
of their own.
"""

from lib.compatibility import provide_storage_uids
from lib.options import use_bundle_of_environment

provide_storage_uids()
use_bundle_of_environment()

from lib.application import CTFindingsApp  # noqa: E402

__all__ = ["CTFindingsApp"]
