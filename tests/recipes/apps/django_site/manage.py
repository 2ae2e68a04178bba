"""python -m tests.recipes.apps.django_site.manage build build-42"""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.recipes.apps.django_site.settings")
    execute_from_command_line(sys.argv)
