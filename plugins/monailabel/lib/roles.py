"""Who may call a route, when MONAI Label's authentication is switched on."""

from fastapi import Depends
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC

USER = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))
ANNOTATOR = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))
ADMIN = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))
