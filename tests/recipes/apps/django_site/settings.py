"""The least that Django needs."""

SECRET_KEY = "for tests"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "tests.recipes.apps.django_site.urls"
INSTALLED_APPS = ["tests.recipes.apps.django_site.answers"]
USE_TZ = True
