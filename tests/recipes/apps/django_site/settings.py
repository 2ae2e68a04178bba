"""The least that Django needs, and middleware that looks at every response."""

SECRET_KEY = "for tests"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "tests.recipes.apps.django_site.urls"
INSTALLED_APPS = ["tests.recipes.apps.django_site.answers"]
MIDDLEWARE = [
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    "django.middleware.common.CommonMiddleware",
]
USE_TZ = True
