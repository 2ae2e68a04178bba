"""python manage.py build build-42"""

from django.core.management.base import BaseCommand

from .....model import model_tokens
from ...streams import context


class Command(BaseCommand):
    def add_arguments(self, parser):
        parser.add_argument("build_id")
        parser.add_argument("words", nargs="*")

    def handle(self, build_id, words, **options):
        status = context.produce(build_id, lambda: model_tokens(" ".join(words)))
        self.stdout.write(f"{build_id}: {status}")
